#include "handoff_world.h"

#include <algorithm>

#include "base/status.h"

namespace baton {
namespace {

constexpr WorkerId kPrefillWorker{1};
constexpr int32_t kLayers = 2;
constexpr uint8_t kGarbage = 255;

uint8_t RequestOf(SequenceId sequence) { return static_cast<uint8_t>((sequence.value - 1) % 16); }
uint64_t EpochBase(uint8_t incarnation) { return uint64_t{incarnation} << 16; }

}  // namespace

World::World(const WorldOptions& options)
    : options_(options),
      news_{{1, false}},
      decode_(EpochBase(1), options.decode),
      pool_(options.blocks),
      requests_(options.requests),
      prefill_(1, kLayers, options.prefill) {}

void World::Fail(std::string error) {
  if (error_.empty()) error_ = std::move(error);
}

World::Session* World::FindSession(uint8_t id) { return const_cast<Session*>(std::as_const(*this).FindSession(id)); }
const World::Session* World::FindSession(uint8_t id) const {
  const auto found = std::ranges::find(sessions_, id, &Session::id);
  return found == sessions_.end() ? nullptr : &*found;
}

int32_t World::FreeBlocks() const { return static_cast<int32_t>(std::ranges::count_if(pool_, &Block::IsFree)); }

// The block that holds the prefix of all prompts, or -1.
int32_t World::FindShared() const {
  if (!options_.shared_prefix) return -1;
  const auto found = std::ranges::find(pool_, true, &Block::published);
  return found == pool_.end() ? -1 : static_cast<int32_t>(found - pool_.begin());
}

int32_t World::BlocksNeeded() const { return options_.blocks_per_request - (FindShared() >= 0 ? 1 : 0); }

// What the bytes of a request's block should be.
uint8_t World::Mark(uint8_t request, size_t block) const {
  return options_.shared_prefix && block == 0 ? 1 : static_cast<uint8_t>(10 * (request + 1) + block);
}

// ---- D ----

void World::Ask(uint8_t request, uint64_t incarnation) {
  ExecutePeer(decode_.Need(kPrefillWorker, incarnation));
  decode_.Start(DecodeSequence(request), kPrefillWorker);
  requests_[request].phase = Phase::kHanded;
  if (decode_.peers().at(kPrefillWorker).incarnation == refused_incarnation_) {
    Execute(decode_.Handle(DecodeSequence(request), DecodeEvent::kPeerGone));
  }
}

void World::Connected(Session& session) {
  session.decode_knows = true;
  const PeerDecision decision = decode_.OnConnected(session.connection, true);
  if (decision.close != 0) {
    session.broken = session.decode_closed = true;
    return;
  }
  Message offer{
      .kind = Message::Kind::kOffer, .session = session.id, .number = decode_.peers().at(kPrefillWorker).incarnation};
  if (options_.probe && FreeBlocks() > 0) {
    const auto block = std::ranges::find_if(pool_, &Block::IsFree);
    block->lent = true;
    offer.blocks = {static_cast<BlockId>(block - pool_.begin())};
    decode_.Lend(session.connection, offer.blocks);
  }
  if (!session.broken) session.to_prefill.push_back(std::move(offer));
}

void World::ExecutePeer(const PeerDecision& decision) {
  for (Session& session : sessions_) {
    if (decision.close == 0 || session.connection != decision.close || session.d_incarnation != d_incarnation_)
      continue;
    session.broken = true;
    if (session.decode_knows) session.decode_closed = true;
  }
  if (decision.report_lost && p_alive_ && decode_.peers().at(kPrefillWorker).incarnation == p_incarnation_) {
    p_reported_ = true;
  }
  const auto settle = [&](const std::vector<BlockId>& blocks, bool from_lent, bool fence) {
    for (const BlockId id : blocks) {
      Block& block = pool_[id];
      if ((from_lent && !block.lent) || (!from_lent && !block.fenced)) Fail(Cat("block ", id, " has another owner"));
      block.lent = false;
      block.fenced = fence;
    }
  };
  settle(decision.free, true, false);
  settle(decision.fence, true, true);
  settle(decision.unfence, false, false);
  for (const DecodeDecision& request : decision.requests) Execute(request);
  if (decision.connect != 0) connecting_.push_back(decision.connect);
}

void World::Execute(const std::optional<DecodeDecision>& decision) {
  if (!decision) return;
  const uint8_t r = RequestOf(decision->sequence);
  if (decision->blocks != BlocksFate::kKeep) {
    const std::vector<BlockId> fenced = GiveBack(r, decision->blocks == BlocksFate::kFence);
    decode_.Fence(*decision, fenced);
  }
  const bool ends = decision->to == DecodeState::kForgotten && !decision->Does(DecodeAction::kDecode) &&
                    !decision->Does(DecodeAction::kRecompute);
  if (ends) requests_[r].phase = Phase::kDone;
  for (const DecodeAction action : decision->actions) Act(action, *decision);
}

void World::Act(DecodeAction action, const DecodeDecision& decision) {
  const uint8_t r = RequestOf(decision.sequence);
  Request& request = requests_[r];
  using Kind = Message::Kind;
  switch (action) {
    case DecodeAction::kNothing:
    case DecodeAction::kDeliverError:
      return;
    case DecodeAction::kSendPrefill:
      for (const Session& session : sessions_) {
        if (session.connection == decision.connection && session.d_incarnation == d_incarnation_) {
          request.session = session.id;
        }
      }
      return SendToPrefill(decision, {.kind = Kind::kPrefill, .request = r});
    case DecodeAction::kSendReservation:
      return SendToPrefill(
          decision,
          {.kind = Kind::kReservation, .request = r, .blocks = request.blocks, .first_missing = request.first_missing});
    case DecodeAction::kSendCancel:
      return SendToPrefill(decision, {.kind = Kind::kCancel, .request = r});
    case DecodeAction::kDeliverToken:
      request.token = true;
      return;
    case DecodeAction::kDecode:
      if (!request.token) Fail(Cat("request ", r, " decodes without its first token"));
      return Run(r, Phase::kDecoding);
    case DecodeAction::kRecompute:
      if (!request.blocks.empty()) Fail(Cat("request ", r, " is computed anew and still has the old blocks"));
      request.phase = Phase::kLocalWaiting;
      return;
  }
}

void World::SendToPrefill(const DecodeDecision& decision, Message message) {
  for (Session& session : sessions_) {
    if (session.connection != decision.connection || session.d_incarnation != d_incarnation_) continue;
    message.session = session.id;
    message.number = decision.epoch;
    if (!session.broken) session.to_prefill.push_back(std::move(message));
    return;
  }
}

// Returns what was fenced.
std::vector<BlockId> World::GiveBack(uint8_t r, bool fence) {
  Request& request = requests_[r];
  std::vector<BlockId> fenced;
  for (size_t i = 0; i < request.blocks.size(); ++i) {
    Block& block = pool_[request.blocks[i]];
    const auto bit = static_cast<uint8_t>(1 << r);
    if ((block.owners & bit) == 0 || block.lent || block.fenced) {
      Fail(Cat("block ", request.blocks[i], " is not request ", r, "'s to give back"));
    }
    block.owners &= static_cast<uint8_t>(~bit);
    if (block.owners == 0) block.published = false;
    if (fence && static_cast<int32_t>(i) >= request.first_missing) {
      block.fenced = true;
      fenced.push_back(request.blocks[i]);
    }
  }
  request.blocks.clear();
  request.first_missing = 0;
  return fenced;
}

void World::TakeBlocks(uint8_t r) {
  Request& request = requests_[r];
  if (!request.blocks.empty()) Fail(Cat("request ", r, " takes blocks and has some"));
  if (const int32_t shared = FindShared(); shared >= 0) request.blocks.push_back(shared);
  request.first_missing = static_cast<int32_t>(request.blocks.size());
  for (BlockId id = 0; std::ssize(request.blocks) < options_.blocks_per_request && id < std::ssize(pool_); ++id) {
    if (!pool_[id].IsFree()) continue;
    pool_[id].marks = {};  // whatever they are
    request.blocks.push_back(id);
  }
  for (const BlockId id : request.blocks) pool_[id].owners |= static_cast<uint8_t>(1 << r);
}

void World::CheckArrived(uint8_t r, std::string_view when) {
  const Request& request = requests_[r];
  for (size_t i = 0; i < request.blocks.size(); ++i) {
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      if (pool_[request.blocks[i]].marks[layer] == Mark(r, i)) continue;
      return Fail(Cat("request ", r, " decodes on bytes that did not arrive, or not its own: block ", request.blocks[i],
                      ", layer ", layer, ", ", when));
    }
  }
  if (std::ssize(request.blocks) != options_.blocks_per_request) Fail(Cat("request ", r, " decodes without blocks"));
}

void World::Run(uint8_t r, Phase phase) {
  Request& request = requests_[r];
  if (phase == Phase::kLocalRunning) {
    for (size_t i = request.first_missing; i < request.blocks.size(); ++i) {
      pool_[request.blocks[i]].marks.fill(Mark(r, i));
    }
  }
  CheckArrived(r, "at its start");
  request.phase = phase;
  if (options_.shared_prefix && !request.blocks.empty() && FindShared() < 0) pool_[request.blocks[0]].published = true;
}

void World::EndRequest(uint8_t r) {
  GiveBack(r, false);
  requests_[r].phase = Phase::kDone;
}

void World::DecodeReceives(Session& session) {
  const Message message = session.to_decode.front();
  session.to_decode.erase(session.to_decode.begin());
  DecodeEvent event = DecodeEvent::kStarted;
  using Kind = Message::Kind;
  switch (message.kind) {
    case Kind::kMeasured:
      for (const BlockId id : decode_.OnMeasured(session.connection)) {
        if (!pool_[id].lent) Fail(Cat("block ", id, " was not lent"));
        pool_[id].lent = false;
      }
      if (message.refused && decode_.IsOpen(session.connection)) {
        refused_incarnation_ = decode_.peers().at(kPrefillWorker).incarnation;
      }
      return;
    case Kind::kStarted:
      event = DecodeEvent::kStarted;
      break;
    case Kind::kFirstToken:
      event = DecodeEvent::kFirstToken;
      break;
    case Kind::kLastToken:
      event = DecodeEvent::kLastToken;
      break;
    case Kind::kComplete:
      event = DecodeEvent::kComplete;
      break;
    case Kind::kQuiesced:
      event = DecodeEvent::kQuiesced;
      break;
    case Kind::kRefused:
      event = DecodeEvent::kRefused;
      break;
    default:
      return Fail("a message that is not for D");
  }
  const auto decision = decode_.OnMessage(session.connection, message.number, event);
  if (decision &&
      (requests_[RequestOf(decision->sequence)].session != session.id || decision->epoch != message.number)) {
    Fail(Cat("a stale message was accepted, for request ", RequestOf(decision->sequence)));
  }
  Execute(decision);
}

// ---- P ----

void World::Execute(const std::optional<PrefillDecision>& decision) {
  if (!decision) return;
  const auto found = std::ranges::find(prompts_, decision->tag, &Prompt::tag);
  if (found == prompts_.end()) return Fail("a decision for a prompt that P does not have");
  const Prompt prompt = *found;
  if (decision->to == PrefillState::kForgotten) prompts_.erase(found);
  using Kind = Message::Kind;
  for (const PrefillAction action : decision->actions) {
    switch (action) {
      case PrefillAction::kNothing:
        break;
      case PrefillAction::kSendStarted:
        SendToDecode(prompt, Kind::kStarted);
        break;
      case PrefillAction::kSendFirstToken:
        break;  // by Step, which knows whether it ends
      case PrefillAction::kCancelCopies:
        for (Copy& copy : copies_) {
          if (copy.tag != prompt.tag || copy.cancelled) continue;
          copy.cancelled = true;
          copy.late = &copy == &copies_.front();
        }
        break;
      case PrefillAction::kStopComputing:
        inbox_.push_back({.kind = Kind::kAbort, .number = prompt.sequence.value});
        break;
      case PrefillAction::kRelease:
        inbox_.push_back({.kind = Kind::kRelease, .number = prompt.sequence.value});
        break;
      case PrefillAction::kPush: {
        const Session* session = FindSession(prompt.session);
        const auto sequence = std::ranges::find(sequences_, prompt.sequence, &Sequence::id);
        copies_.push_back({.tag = prompt.tag,
                           .session = prompt.session,
                           .request = prompt.request,
                           .sequence = prompt.sequence,
                           .generation = sequence == sequences_.end() ? uint8_t{0} : sequence->generation,
                           .d_incarnation = session == nullptr ? uint8_t{0} : session->d_incarnation,
                           .pieces = decision->pieces});
        break;
      }
      case PrefillAction::kSendComplete:
        SendToDecode(prompt, Kind::kComplete);
        break;
      case PrefillAction::kSendQuiesced:
        SendToDecode(prompt, prompt.refused_for_good ? Kind::kRefused : Kind::kQuiesced);
        break;
    }
  }
}

void World::SendToDecode(const Prompt& prompt, Message::Kind kind) {
  Session* session = FindSession(prompt.session);
  if (session == nullptr || session->broken) return;
  session->to_decode.push_back(
      {.kind = kind, .session = prompt.session, .request = prompt.request, .number = prompt.epoch});
}

// To an offer.
void World::Answer(uint8_t id, bool refused) {
  Session* session = FindSession(id);
  if (session == nullptr || session->broken) return;
  session->to_decode.push_back({.kind = Message::Kind::kMeasured, .session = id, .refused = refused});
}

void World::PrefillReceives(Session& session) {
  const Message message = session.to_prefill.front();
  session.to_prefill.erase(session.to_prefill.begin());
  if (message.kind == Message::Kind::kReservation) {
    const auto decision = prefill_.Reserve(session.id, message.number, message.blocks, message.first_missing);
    if (decision) {
      const auto prompt = std::ranges::find(prompts_, decision->tag, &Prompt::tag);
      if (prompt->session != session.id || prompt->epoch != message.number) Fail("P took a stale reservation");
    }
    return Execute(decision);
  }
  inbox_.push_back(message);
  // Through the inbox too, so that it cannot overtake its own Prefill.
  if (message.kind == Message::Kind::kCancel) Execute(prefill_.Cancel(session.id, message.number));
}

void World::RunInbox(uint8_t how) {
  const Message message = inbox_.front();
  inbox_.erase(inbox_.begin());
  switch (message.kind) {
    case Message::Kind::kOffer:
      if (!prefill_.TakesOffer(message.session)) return;
      if (prefill_.IsMeant(message.number)) {
        measuring_ = message.session;
        measured_blocks_ = message.blocks;
        return;
      }
      prefill_.Open(message.session, false);
      return Answer(message.session, true);
    case Message::Kind::kPrefill:
      return AskPrefill(message, how);
    case Message::Kind::kCancel:
      return Execute(prefill_.Cancel(message.session, message.number));
    case Message::Kind::kClosed:
      for (const PrefillDecision& decision : prefill_.OnClosed(message.session)) Execute(decision);
      return;
    case Message::Kind::kAbort:
    case Message::Kind::kRelease:
      std::erase_if(sequences_, [&](const Sequence& s) { return s.id.value == message.number; });
      return;
    default:
      return Fail("a message that is not for P");
  }
}

void World::AskPrefill(const Message& message, uint8_t how) {
  const SequenceId sequence{++next_sequence_};
  const auto [asked, tag] = prefill_.Ask(message.session, message.number, sequence);
  Prompt prompt{.tag = tag,
                .session = message.session,
                .request = message.request,
                .epoch = message.number,
                .sequence = sequence,
                .refused_for_good = how == 2};
  if (asked == PrefillSide::Asked::kRefused) return SendToDecode(prompt, Message::Kind::kQuiesced);
  if (asked == PrefillSide::Asked::kRepeated) return;
  prompts_.push_back(prompt);
  if (how != 0) return Execute(prefill_.Handle(sequence, PrefillEvent::kFailed));
  sequences_.push_back({.id = sequence, .request = message.request});
}

void World::Measured() {
  const Session* session = FindSession(measuring_);
  for (const BlockId block : measured_blocks_) {
    if (session != nullptr && session->d_incarnation == d_incarnation_) pool_[block].marks.fill(kGarbage);
  }
  prefill_.Open(measuring_, true);
  Answer(measuring_, false);
  measuring_ = 0;
  measured_blocks_.clear();
}

bool World::InStep() const {
  return std::ranges::any_of(sequences_, [&](const Sequence& sequence) {
    return sequence.position % 3 != 0 || (sequence.position == StepsOfPrompt() && !sequence.held);
  });
}

void World::Step(size_t index, bool ends) {
  Sequence& sequence = sequences_[index];
  const int32_t block = sequence.position / 3;
  const SequenceId id = sequence.id;
  if (sequence.position == StepsOfPrompt()) {
    sequence.held = true;
    const auto prompt = std::ranges::find(prompts_, id, &Prompt::sequence);
    const Prompt copy = prompt == prompts_.end() ? Prompt{} : *prompt;
    const auto decision = prefill_.Handle(id, ends ? PrefillEvent::kLastToken : PrefillEvent::kFirstToken);
    if (ends || !decision) std::erase_if(sequences_, [&](const Sequence& s) { return s.id == id; });
    if (!decision) return;  // cancelled during its last step
    if (std::ranges::count(decision->actions, PrefillAction::kSendFirstToken) > 0) {
      SendToDecode(copy, ends ? Message::Kind::kLastToken : Message::Kind::kFirstToken);
    }
    return Execute(decision);
  }
  sequence.position += 1;
  if (sequence.position % 3 != 1) {
    return Execute(prefill_.LayersDone(id, sequence.position % 3 == 2 ? 1 : kLayers));
  }
  std::vector<BlockId> source;
  for (int32_t i = 0; i <= block; ++i) source.push_back(i);
  const bool admitted = std::exchange(sequence.admitted, false);
  Execute(prefill_.Plan(id, source, block, block + 1, admitted));
}

void World::WritePiece(Copy& copy) {
  const PushPiece& piece = copy.pieces[copy.next++];
  if (copy.d_incarnation != d_incarnation_) return;  // memory of a process that is gone
  CheckMayBeWritten(piece.target, copy.session, copy.request, "a copy");
  const auto sequence = std::ranges::find(sequences_, copy.sequence, &Sequence::id);
  for (int32_t layer = piece.layer_begin; layer < piece.layer_end; ++layer) {
    // Given back, or not computed yet: bytes of somebody else.
    const bool right = sequence != sequences_.end() && sequence->generation == copy.generation &&
                       sequence->position >= 3 * piece.source + 2 + layer;
    pool_[piece.target].marks[layer] = right ? Mark(copy.request, piece.source) : kGarbage;
  }
}

void World::EndCopy(size_t index, bool ok) {
  const uint64_t tag = copies_[index].tag;
  copies_.erase(copies_.begin() + static_cast<ptrdiff_t>(index));
  Execute(prefill_.CopyEnded(tag, ok));
}

// ---- deaths ----

void World::PrefillDies() {
  p_alive_ = false;
  p_reaped_ = p_reported_ = false;
  inbox_.clear();
  sequences_.clear();
  copies_.clear();
  prompts_.clear();
  measuring_ = 0;
  measured_blocks_.clear();
  prefill_ = PrefillSide(p_incarnation_ + 1, kLayers, options_.prefill);
  for (Session& session : sessions_) {
    if (session.p_incarnation != p_incarnation_) continue;
    session.broken = session.prefill_closed = true;
    session.to_prefill.clear();
  }
}

void World::Restart() {
  p_incarnation_ += 1;
  p_alive_ = true;
  p_reaped_ = false;
  news_.push_back({p_incarnation_, false});
}

void World::DecodeDies() {
  d_incarnation_ += 1;
  decode_ = DecodeSide(EpochBase(options_.epochs_repeat ? 1 : d_incarnation_), options_.decode);
  connecting_.clear();
  refused_incarnation_ = 0;
  pool_.assign(pool_.size(), {});
  for (Session& session : sessions_) {
    if (session.d_incarnation == d_incarnation_) continue;
    session.broken = session.decode_closed = session.decode_knows = true;
    session.to_decode.clear();
  }
  // The router replays what has not ended.
  for (Request& request : requests_) {
    const bool over = request.phase == Phase::kDone || request.cancelled;
    request = {.phase = over ? Phase::kDone : Phase::kIdle, .cancelled = request.cancelled};
  }
  news_ = {{p_incarnation_, p_reaped_}};
}

void World::DropClosedSessions() {
  std::erase_if(sessions_, [&](const Session& session) {
    const bool in_use = session.id == measuring_ || std::ranges::count(inbox_, session.id, &Message::session) > 0 ||
                        std::ranges::count(prompts_, session.id, &Prompt::session) > 0 ||
                        std::ranges::count(copies_, session.id, &Copy::session) > 0;
    return session.decode_knows && session.decode_closed && session.prefill_closed && session.to_decode.empty() &&
           !in_use;
  });
}

// ---- rules ----

void World::CheckMayBeWritten(BlockId id, uint8_t session, uint8_t r, std::string_view by) {
  const Block& block = pool_[id];
  if (block.fenced) return;
  const Request& request = requests_[r];
  const auto owned = std::ranges::find(request.blocks, id);
  const bool reserved = request.phase == Phase::kHanded && request.session == session &&
                        owned != request.blocks.end() && owned - request.blocks.begin() >= request.first_missing &&
                        block.owners == static_cast<uint8_t>(1 << r);
  if (!reserved) {
    Fail(Cat("block ", id, " can be written by ", by, " for request ", r, ", and is ",
             block.IsFree() ? "free" : "somebody's"));
  }
}

// No block is free, or somebody's, that P could still write.
void World::CheckWritable() {
  for (const Copy& copy : copies_) {
    if (copy.d_incarnation != d_incarnation_ || (copy.cancelled && !copy.late)) continue;
    const size_t end = copy.cancelled ? copy.next + size_t{1} : copy.pieces.size();
    for (size_t i = copy.next; i < end; ++i) {
      CheckMayBeWritten(copy.pieces[i].target, copy.session, copy.request, "a copy");
    }
  }
  for (const Prompt& prompt : prompts_) {
    const PrefillSide::Prompt* state = prefill_.Find(prompt.tag);
    const Session* session = FindSession(prompt.session);
    if (state == nullptr || state->state != PrefillState::kPushing || session == nullptr ||
        session->d_incarnation != d_incarnation_) {
      continue;
    }
    const std::vector<BlockId>& target = state->progress.target();
    for (size_t i = state->progress.first_missing(); i < target.size(); ++i) {
      CheckMayBeWritten(target[i], prompt.session, prompt.request, "P");
    }
  }
  const Session* session = FindSession(measuring_);
  for (const BlockId id : measured_blocks_) {
    if (session != nullptr && session->d_incarnation == d_incarnation_ && !pool_[id].lent && !pool_[id].fenced) {
      Fail(Cat("block ", id, " can be written by the measurement of a path, and is not lent"));
    }
  }
}

std::string World::CheckEnd() const {
  for (size_t r = 0; r < requests_.size(); ++r) {
    if (requests_[r].phase != Phase::kDone) return Cat("request ", r, " never ends");
  }
  for (size_t id = 0; id < pool_.size(); ++id) {
    const Block& block = pool_[id];
    if (block.fenced) return Cat("block ", id, " stays fenced");
    if (!block.IsFree()) return Cat("block ", id, " never comes home");
  }
  if (!decode_.requests().empty()) return "D still has a request";
  if (!prefill_.prompts().empty() || !prompts_.empty() || !copies_.empty()) return "P still has a prompt";
  if (!sequences_.empty()) return "P's scheduler still has a sequence";
  return "";
}

}  // namespace baton
