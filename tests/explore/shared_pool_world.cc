#include "shared_pool_world.h"

#include <algorithm>
#include <utility>

#include "base/status.h"

namespace baton {
namespace {

constexpr WorkerId kPrefillWorker{1};

uint8_t RequestOf(SequenceId sequence) { return static_cast<uint8_t>(sequence.value - 1); }

}  // namespace

SharedPoolWorld::SharedPoolWorld(const SharedPoolOptions& options)
    : options_(options),
      pool_(options.blocks),
      requests_(options.requests),
      decode_(0, options.decode),
      prefill_(1, 1, options.prefill) {
  (void)decode_.Need(kPrefillWorker, 1);
  (void)decode_.OnConnected(kConnection, true);
  prefill_.Open(kSession, true);
}

void SharedPoolWorld::Fail(std::string error) {
  if (error_.empty()) error_ = std::move(error);
}

int32_t SharedPoolWorld::FreeBlocks() const {
  return static_cast<int32_t>(std::ranges::count(pool_, 0, &Block::references));
}

bool SharedPoolWorld::HasPlace() const {
  return std::ranges::count_if(requests_, [](const Request& r) { return !r.blocks.empty(); }) < options_.places;
}

std::vector<BlockId> SharedPoolWorld::Take() {
  std::vector<BlockId> blocks;
  for (BlockId id = 0; id < std::ssize(pool_) && std::ssize(blocks) < options_.blocks_per_request; ++id) {
    if (pool_[id].references != 0) continue;
    pool_[id] = {.references = 1, .mark = 0};
    blocks.push_back(id);
  }
  return blocks;
}

void SharedPoolWorld::Free(std::vector<BlockId>& blocks) {
  for (const BlockId id : std::exchange(blocks, {})) {
    if (--pool_[id].references < 0) Fail(Cat("block ", id, " is freed by somebody who does not have it"));
  }
}

void SharedPoolWorld::DropSequence(SequenceId id) {
  const auto found = std::ranges::find(sequences_, id, &Sequence::id);
  if (found == sequences_.end()) return;
  Free(found->blocks);
  sequences_.erase(found);
}

// ---- D ----

void SharedPoolWorld::Execute(const std::optional<DecodeDecision>& decision) {
  if (!decision) return;
  Request& request = requests_[RequestOf(decision->sequence)];
  if (decision->blocks != BlocksFate::kKeep) Free(request.blocks);
  const bool goes_on = decision->Does(DecodeAction::kDecode) || decision->Does(DecodeAction::kRecompute);
  for (const DecodeAction action : decision->actions) Act(action, *decision);
  if (decision->to != DecodeState::kForgotten) return;
  if (options_.free_forgotten) Free(request.shared);
  request.shared.clear();
  if (!goes_on) request.phase = Phase::kDone;
}

void SharedPoolWorld::Act(DecodeAction action, const DecodeDecision& decision) {
  const uint8_t r = RequestOf(decision.sequence);
  Request& request = requests_[r];
  using Kind = Message::Kind;
  switch (action) {
    case DecodeAction::kNothing:
    case DecodeAction::kDeliverError:
      return;
    case DecodeAction::kSendPrefill:
      request.epoch = decision.epoch;
      inbox_.push_back({.kind = Kind::kPrefill, .request = r, .number = decision.epoch});
      return;
    case DecodeAction::kSendReservation:
      return Execute(prefill_.Reserve(kSession, decision.epoch, request.blocks, options_.blocks_per_request), r);
    case DecodeAction::kSendCancel:
      inbox_.push_back({.kind = Kind::kCancel, .request = r, .number = decision.epoch});
      return Execute(prefill_.Cancel(kSession, decision.epoch), r);
    case DecodeAction::kDeliverToken:
      request.token = true;
      return;
    case DecodeAction::kDecode:
      if (!request.token) Fail(Cat("request ", r, " decodes without its first token"));
      return Run(r);
    case DecodeAction::kResume:
      return Fail("nothing was pushed that could be corrupt");
    case DecodeAction::kRecompute:
      if (!request.blocks.empty()) Fail(Cat("request ", r, " is computed anew and still has the old blocks"));
      request.phase = Phase::kLocalWaiting;
      return;
  }
}

void SharedPoolWorld::Run(uint8_t r) {
  Request& request = requests_[r];
  request.phase = Phase::kRunning;
  if (std::ssize(request.blocks) != options_.blocks_per_request) Fail(Cat("request ", r, " runs without its blocks"));
  for (size_t i = 0; i < request.blocks.size(); ++i) {
    if (pool_[request.blocks[i]].mark == Mark(r, i)) continue;
    Fail(Cat("request ", r, " runs on other bytes than its own: block ", request.blocks[i]));
  }
}

// As DecodeHandoff::OnMessage: the references are D's now, whether the request still wants them or not.
void SharedPoolWorld::ReceiveStarted(Message& message) {
  const auto decision = decode_.OnMessage(kConnection, message.number, DecodeEvent::kStarted);
  if (decision && decision->to == DecodeState::kStarted) {
    requests_[message.request].shared = std::exchange(message.blocks, {});
  }
  Execute(decision);
  if (options_.free_unwanted) Free(message.blocks);
}

// ---- P ----

void SharedPoolWorld::Execute(const std::optional<PrefillDecision>& decision, uint8_t r) {
  if (!decision) return;
  using Kind = Message::Kind;
  const uint64_t epoch = requests_[r].epoch;
  for (const PrefillAction action : decision->actions) {
    const auto of_request = std::ranges::find(sequences_, r, &Sequence::request);
    switch (action) {
      case PrefillAction::kNothing:
      case PrefillAction::kSendFirstToken:  // by SampleFirst
      case PrefillAction::kCancelCopies:
        break;
      case PrefillAction::kPush:
        Fail("P pushes bytes within one pool");
        break;
      case PrefillAction::kSendStarted: {
        std::vector<BlockId> blocks = of_request->blocks;
        for (const BlockId id : blocks) pool_[id].references += options_.references_with_started ? 1 : 0;
        inbox_.push_back({.kind = Kind::kStarted, .request = r, .number = epoch, .blocks = std::move(blocks)});
        break;
      }
      case PrefillAction::kStopComputing:
      case PrefillAction::kRelease:
        if (of_request == sequences_.end()) break;  // refused by the scheduler
        inbox_.push_back({.kind = action == PrefillAction::kRelease ? Kind::kRelease : Kind::kAbort,
                          .request = r,
                          .number = of_request->id.value});
        break;
      case PrefillAction::kSendComplete:
        inbox_.push_back({.kind = Kind::kComplete, .request = r, .number = epoch});
        break;
      case PrefillAction::kSendQuiesced:
        inbox_.push_back({.kind = Kind::kQuiesced, .request = r, .number = epoch});
        break;
    }
  }
}

void SharedPoolWorld::Ask(const Message& message, uint8_t how) {
  const SequenceId sequence{++next_sequence_};
  if (prefill_.Ask(kSession, message.number, sequence).first != PrefillSide::Asked::kAccepted) {
    return Fail("P takes an epoch for a repeated one");
  }
  if (how != 0) return Execute(prefill_.Handle(sequence, PrefillEvent::kFailed), message.request);
  sequences_.push_back({.id = sequence, .request = message.request});
}

void SharedPoolWorld::RunInbox(uint8_t how) {
  Message message = std::move(inbox_.front());
  inbox_.erase(inbox_.begin());
  using Kind = Message::Kind;
  const auto decide = [&](DecodeEvent event) { Execute(decode_.OnMessage(kConnection, message.number, event)); };
  switch (message.kind) {
    case Kind::kPrefill:
      return Ask(message, how);
    case Kind::kCancel:
      return Execute(prefill_.Cancel(kSession, message.number), message.request);
    case Kind::kStarted:
      return ReceiveStarted(message);
    case Kind::kFirstToken:
      return decide(DecodeEvent::kFirstToken);
    case Kind::kLastToken:
      return decide(DecodeEvent::kLastToken);
    case Kind::kComplete:
      return decide(DecodeEvent::kComplete);
    case Kind::kQuiesced:
      return decide(DecodeEvent::kQuiesced);
    case Kind::kAbort:
    case Kind::kRelease:
      return DropSequence({message.number});
  }
}

// The first step since an admission.
void SharedPoolWorld::PlanFirst(Sequence& sequence) {
  sequence.blocks = Take();
  const uint8_t r = sequence.request;
  const SequenceId id = sequence.id;
  Execute(prefill_.Plan(id, sequence.blocks, 0, options_.blocks_per_request, true), r);
}

void SharedPoolWorld::SampleFirst(uint8_t index, bool last) {
  Sequence& sequence = sequences_[index];
  const SequenceId id = sequence.id;
  const uint8_t r = sequence.request;
  sequence.held = true;
  const auto decision = prefill_.Handle(id, last ? PrefillEvent::kLastToken : PrefillEvent::kFirstToken);
  if (decision && std::ranges::count(decision->actions, PrefillAction::kSendFirstToken) > 0) {
    inbox_.push_back({.kind = last ? Message::Kind::kLastToken : Message::Kind::kFirstToken,
                      .request = r,
                      .number = requests_[r].epoch});
  }
  Execute(decision, r);
  if (last || !decision) DropSequence(id);  // it has ended in the scheduler, or was cancelled during its last step
}

// ---- rules ----

void SharedPoolWorld::CheckReferences() {
  std::vector<int32_t> holders(pool_.size(), 0);
  const auto count = [&](const std::vector<BlockId>& blocks) {
    for (const BlockId id : blocks) holders[id] += 1;
  };
  for (const Sequence& sequence : sequences_) count(sequence.blocks);
  for (const Message& message : inbox_) count(message.blocks);
  for (const Request& request : requests_) {
    count(request.shared);
    count(request.blocks);
  }
  for (size_t id = 0; id < pool_.size(); ++id) {
    if (holders[id] == pool_[id].references) continue;
    Fail(Cat("block ", id, " has ", static_cast<int>(pool_[id].references), " references and ", holders[id],
             " holders"));
  }
}

std::string SharedPoolWorld::CheckEnd() const {
  for (size_t r = 0; r < requests_.size(); ++r) {
    if (requests_[r].phase != Phase::kDone) return Cat("request ", r, " never ends");
  }
  if (FreeBlocks() != std::ssize(pool_)) return "a block never comes home";
  if (!decode_.requests().empty() || !prefill_.prompts().empty() || !sequences_.empty()) return "a request is left";
  return "";
}

}  // namespace baton
