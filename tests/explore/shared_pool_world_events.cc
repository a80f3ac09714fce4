// What can happen next in a SharedPoolWorld, what it does, and what it is called.
#include <algorithm>

#include "base/status.h"
#include "shared_pool_world.h"

namespace baton {

using E = SharedPoolWorld::Event;

std::vector<SharedPoolWorld::Choice> SharedPoolWorld::Choices() const {
  std::vector<Choice> choices;
  for (uint8_t r = 0; r < requests_.size(); ++r) {
    const Request& request = requests_[r];
    if (request.phase == Phase::kDone) continue;
    if (request.phase == Phase::kIdle) {
      choices.push_back({E::kAsk, r});
      continue;
    }
    if (!request.cancelled && cancels_ < options_.cancels) choices.push_back({E::kCancel, r});
    if (request.phase == Phase::kRunning) choices.push_back({E::kFinish, r});
    if (request.phase == Phase::kLocalWaiting && FreeBlocks() >= options_.blocks_per_request && HasPlace()) {
      choices.push_back({E::kLocalAdmit, r});
    }
    const auto found = decode_.requests().find(Name(r));
    if (request.phase != Phase::kHanded || found == decode_.requests().end()) continue;
    const DecodeState state = found->second.state;
    if (state == DecodeState::kWaiting) choices.push_back({E::kHeadRoom, r});
    if ((state == DecodeState::kStarted || state == DecodeState::kHeldThere) && HasPlace()) {
      choices.push_back({E::kReserve, r});
    }
  }
  if (!inbox_.empty()) {
    choices.push_back({E::kInbox});
    if (options_.early_ends && inbox_.front().kind == Message::Kind::kPrefill) choices.push_back({E::kInbox, 0, 1});
  }
  for (uint8_t i = 0; i < sequences_.size(); ++i) {
    const Sequence& sequence = sequences_[i];
    if (sequence.blocks.empty()) {
      if (FreeBlocks() >= options_.blocks_per_request) choices.push_back({E::kPlan, i});
    } else if (sequence.computed < options_.blocks_per_request) {
      choices.push_back({E::kCompute, i});
    } else if (!sequence.held) {
      choices.push_back({E::kFirstToken, i});
      if (options_.early_ends) choices.push_back({E::kLastToken, i});
    }
    if (!sequence.blocks.empty() && !sequence.held && preemptions_ < options_.preemptions) {
      choices.push_back({E::kPreempt, i});
    }
    if (sequence.held && leases_ < options_.leases) choices.push_back({E::kLease, i});
  }
  return choices;
}

bool SharedPoolWorld::IsFair(const Choice& choice) {
  switch (choice.event) {
    case E::kCancel:
    case E::kLastToken:
    case E::kPreempt:
    case E::kLease:
      return false;
    case E::kInbox:
      return choice.b == 0;
    default:
      return true;
  }
}

void SharedPoolWorld::Apply(const Choice& choice) {
  const uint8_t a = choice.a;
  switch (choice.event) {
    case E::kAsk:
      requests_[a].phase = Phase::kHanded;
      decode_.Start(Name(a), {1});
      break;
    case E::kCancel:
      cancels_ += 1;
      requests_[a].cancelled = true;
      if (requests_[a].phase == Phase::kHanded) {
        Execute(decode_.Handle(Name(a), DecodeEvent::kCancelled));
        break;
      }
      [[fallthrough]];
    case E::kFinish:
      if (requests_[a].phase == Phase::kRunning) Run(a);  // the bytes are still its own
      Free(requests_[a].blocks);
      requests_[a].phase = Phase::kDone;
      break;
    case E::kHeadRoom:
      Execute(decode_.Handle(Name(a), DecodeEvent::kHeadRoom));
      break;
    case E::kReserve:
      requests_[a].blocks.swap(requests_[a].shared);
      Execute(decode_.Handle(Name(a), DecodeEvent::kReserved));
      break;
    case E::kLocalAdmit:
      requests_[a].blocks = Take();
      for (size_t i = 0; i < requests_[a].blocks.size(); ++i) pool_[requests_[a].blocks[i]].mark = Mark(a, i);
      Run(a);
      break;
    case E::kInbox:
      RunInbox(choice.b);
      break;
    case E::kPlan:
      PlanFirst(sequences_[a]);
      break;
    case E::kCompute: {
      Sequence& sequence = sequences_[a];
      pool_[sequence.blocks[sequence.computed]].mark = Mark(sequence.request, sequence.computed);
      sequence.computed += 1;
      if (sequence.computed == options_.blocks_per_request) {
        Execute(prefill_.LayersDone(sequence.id, 1), sequence.request);
      }
      break;
    }
    case E::kFirstToken:
    case E::kLastToken:
      SampleFirst(a, choice.event == E::kLastToken);
      break;
    case E::kPreempt:
      preemptions_ += 1;
      Free(sequences_[a].blocks);
      sequences_[a].computed = 0;
      // At once: D's references keep the blocks, so that it might never be planned again.
      if (options_.preempted_ends) {
        Execute(prefill_.Handle(sequences_[a].id, PrefillEvent::kFailed), sequences_[a].request);
      }
      break;
    case E::kLease:
      leases_ += 1;
      Execute(prefill_.Handle(sequences_[a].id, PrefillEvent::kLeaseExpired), sequences_[a].request);
      break;
  }
  CheckReferences();
}

std::string SharedPoolWorld::Describe(const Choice& choice) const {
  static constexpr const char* kMessages[] = {
      "Prefill",  "CancelPrefill", "Started", "FirstToken", "FirstToken (the last)",
      "Complete", "Quiesced",      "abort",   "release"};
  const bool of_sequence = choice.event >= E::kPlan;
  const int request = of_sequence ? sequences_[choice.a].request : choice.a;
  switch (choice.event) {
    case E::kAsk:
      return Cat("request ", request, " comes to D, to be prefilled by P");
    case E::kCancel:
      return Cat("request ", request, " is cancelled, or its deadline passes");
    case E::kHeadRoom:
      return Cat("D has head-room for request ", request, " and sends Prefill");
    case E::kReserve:
      return Cat("D has a place for request ", request, " and reserves its blocks");
    case E::kLocalAdmit:
      return Cat("D prefills request ", request, " itself");
    case E::kFinish:
      return Cat("request ", request, " generates its last token");
    case E::kInbox:
      return Cat("the step loop takes ", kMessages[static_cast<int>(inbox_.front().kind)], " of request ",
                 static_cast<int>(inbox_.front().request), choice.b == 0 ? "" : ", and P's scheduler refuses it");
    case E::kPlan:
      return Cat("P begins request ", request);
    case E::kCompute:
      return Cat("P has computed a block of request ", request);
    case E::kFirstToken:
      return Cat("P samples the first token of request ", request);
    case E::kLastToken:
      return Cat("P samples the first token of request ", request, ", which ends it");
    case E::kPreempt:
      return Cat("P preempts request ", request);
    case E::kLease:
      return Cat("P's hold lease of request ", request, " runs out");
  }
  return "";
}

void SharedPoolWorld::AppendKey(std::string& key) const {
  const auto put = [&](auto... values) { (key.push_back(static_cast<char>(values)), ...); };
  const auto put_blocks = [&](const std::vector<BlockId>& blocks) {
    put(blocks.size());
    for (const BlockId block : blocks) put(block);
  };
  put(cancels_, preemptions_, leases_);
  for (const Block& block : pool_) put(block.references, block.mark);
  for (const Request& request : requests_) {
    put(request.phase, request.cancelled, request.token);
    put_blocks(request.shared);
    put_blocks(request.blocks);
  }
  put(inbox_.size());
  for (const Message& message : inbox_) {
    put(message.kind, message.request, message.number);
    put_blocks(message.blocks);
  }
  put(sequences_.size());
  for (const Sequence& sequence : sequences_) {
    put(sequence.id.value, sequence.request, sequence.computed, sequence.held);
    put_blocks(sequence.blocks);
  }
  put(decode_.requests().size());
  for (const auto& [sequence, request] : decode_.requests()) put(sequence.value, request.epoch, request.state);
  put(prefill_.prompts().size());
  for (const auto& [tag, prompt] : prefill_.prompts()) {
    put(tag, prompt.epoch, prompt.state, prompt.in_flight, prompt.progress.complete_blocks());
    put_blocks(prompt.progress.target());
  }
}

}  // namespace baton
