// What can happen next in a World, and what each event is called.
#include <algorithm>

#include "base/status.h"
#include "handoff_world.h"

namespace baton {
namespace {

using E = WorldEvent;

uint8_t Narrow(size_t value) { return static_cast<uint8_t>(value); }

}  // namespace

// ---- what can happen ----

bool World::Fits() const {
  const bool waits = std::ranges::count(requests_, Phase::kLocalWaiting, &Request::phase) > 0;
  return FreeBlocks() >= BlocksNeeded() + (waits ? options_.blocks_per_request : 0);  // as the scheduler does
}

void World::AddDecodeChoices(std::vector<Choice>& choices) const {
  for (size_t i = 0; i < requests_.size(); ++i) {
    const Request& request = requests_[i];
    const uint8_t r = Narrow(i);
    switch (request.phase) {
      case Phase::kIdle:
        for (int inc = std::max(1, p_incarnation_ - 1); inc <= p_incarnation_; ++inc) {
          choices.push_back({E::kAsk, r, Narrow(inc)});
        }
        continue;
      case Phase::kLocalWaiting:
        if (FreeBlocks() >= BlocksNeeded()) choices.push_back({E::kLocalAdmit, r});
        break;
      case Phase::kLocalRunning:
      case Phase::kDecoding:
        choices.push_back({E::kFinish, r});
        break;
      case Phase::kDone:
        continue;
      case Phase::kHanded: {
        const auto found = decode_.requests().find(DecodeSequence(r));
        if (found == decode_.requests().end()) continue;
        const DecodeState state = found->second.state;
        if (state == DecodeState::kWaiting && decode_.IsOpen(found->second.connection)) {
          choices.push_back({E::kHeadRoom, r});
        }
        if (state == DecodeState::kStarted || state == DecodeState::kHeldThere) {
          if (Fits()) choices.push_back({E::kReserve, r});
          if (options_.early_ends) choices.push_back({E::kNeverFits, r});
        }
        break;
      }
    }
    if (!request.cancelled && cancels_ < options_.cancels) choices.push_back({E::kCancel, r});
  }
  if (!news_.empty()) choices.push_back({E::kMembers});
}

void World::AddSessionChoices(std::vector<Choice>& choices) const {
  for (size_t i = 0; i < connecting_.size(); ++i)
    choices.push_back({p_alive_ ? E::kAccept : E::kConnectFailed, Narrow(i)});
  for (size_t i = 0; i < sessions_.size(); ++i) {
    const Session& session = sessions_[i];
    const uint8_t s = Narrow(i);
    if (!session.decode_knows) choices.push_back({E::kConnected, s});
    if (session.decode_knows && !session.to_decode.empty()) choices.push_back({E::kDecodeReceives, s});
    if (session.broken && session.to_decode.empty() && !session.decode_closed) choices.push_back({E::kDecodeClosed, s});
    const bool listens = !session.prefill_closed;
    if (listens && !session.to_prefill.empty()) choices.push_back({E::kPrefillReceives, s});
    if (listens && session.broken && session.to_prefill.empty()) choices.push_back({E::kPrefillClosed, s});
  }
}

void World::AddPrefillChoices(std::vector<Choice>& choices) const {
  if (!p_alive_) return;
  const bool between_steps = !InStep() && measuring_ == 0;
  if (measuring_ != 0) choices.push_back({E::kMeasured});
  if (between_steps && !inbox_.empty()) {
    choices.push_back({E::kInbox, 0});
    if (options_.early_ends && inbox_.front().kind == Message::Kind::kPrefill) {
      choices.push_back({E::kInbox, 1});
      choices.push_back({E::kInbox, 2});
    }
  }
  for (size_t i = 0; i < sequences_.size(); ++i) {
    const Sequence& sequence = sequences_[i];
    const bool in_step = sequence.position % 3 != 0;
    if (sequence.held) continue;
    if (in_step || between_steps || sequence.position == StepsOfPrompt()) choices.push_back({E::kStep, Narrow(i)});
    if (options_.early_ends && sequence.position == StepsOfPrompt()) choices.push_back({E::kEndsAtOnce, Narrow(i)});
    if (between_steps && sequence.position > 0 && preemptions_ < options_.preemptions) {
      choices.push_back({E::kPreempt, Narrow(i)});
    }
  }
  if (between_steps) {
    for (size_t i = 0; i < prompts_.size(); ++i) {
      const PrefillSide::Prompt* prompt = prefill_.Find(prompts_[i].tag);
      if (prompt == nullptr) continue;
      if (cancels_ < options_.cancels) choices.push_back({E::kDeadlineAtP, Narrow(i)});
      // The product asks only of held ones; the others must not mind.
      const bool others = prompt->state == PrefillState::kPushing || prompt->state == PrefillState::kFinishing;
      if (others || prompt->state == PrefillState::kHeld) choices.push_back({E::kLease, Narrow(i), others});
    }
  }
  bool first = true;
  for (size_t i = 0; i < copies_.size(); ++i) {
    const Copy& copy = copies_[i];
    if (copy.cancelled) {
      choices.push_back({E::kCopyEnded, Narrow(i)});
      if (copy.late) choices.push_back({E::kLateWrite, Narrow(i)});
    } else if (std::exchange(first, false)) {
      choices.push_back({E::kWrite, Narrow(i)});
      if (copy_failures_ < options_.copy_failures) choices.push_back({E::kCopyFails, Narrow(i)});
    }
  }
}

void World::AddFaults(std::vector<Choice>& choices) const {
  if (p_alive_ && p_reported_) choices.push_back({E::kKilled});
  if (!p_alive_ && !p_reaped_) choices.push_back({E::kReaped});
  if (!p_alive_ && p_reaped_) choices.push_back({E::kRestarted});
  if (p_alive_ && p_deaths_ < options_.p_deaths) choices.push_back({E::kPrefillDies});
  if (d_deaths_ < options_.d_deaths) choices.push_back({E::kDecodeDies});
  for (size_t i = 0; i < sessions_.size(); ++i) {
    if (sessions_[i].broken) continue;
    if (breaks_ < options_.breaks) {
      choices.push_back({E::kBreak, Narrow(i)});
      choices.push_back({E::kBreakAndLose, Narrow(i)});
    }
    if (duplicates_ < options_.duplicates) {
      if (!sessions_[i].to_prefill.empty()) choices.push_back({E::kDuplicateToPrefill, Narrow(i)});
      if (!sessions_[i].to_decode.empty()) choices.push_back({E::kDuplicateToDecode, Narrow(i)});
    }
  }
}

std::vector<Choice> World::Choices() const {
  std::vector<Choice> choices;
  AddDecodeChoices(choices);
  AddSessionChoices(choices);
  AddPrefillChoices(choices);
  AddFaults(choices);
  return choices;
}

bool World::IsFair(const Choice& choice) {
  switch (choice.event) {
    case E::kCancel:
    case E::kDeadlineAtP:
    case E::kNeverFits:
    case E::kEndsAtOnce:
    case E::kPreempt:
    case E::kCopyFails:
    case E::kBreak:
    case E::kBreakAndLose:
    case E::kDuplicateToPrefill:
    case E::kDuplicateToDecode:
    case E::kPrefillDies:
    case E::kDecodeDies:
      return false;
    case E::kInbox:
      return choice.a == 0;
    case E::kLease:
      return choice.b == 0;
    default:
      return true;
  }
}

// ---- what it does ----

void World::Apply(const Choice& choice) {
  ApplyToDecode(choice);
  ApplyToPrefill(choice);
  ApplyFault(choice);
  DropClosedSessions();
  CheckWritable();
}

void World::ApplyToDecode(const Choice& choice) {
  const uint8_t a = choice.a;
  switch (choice.event) {
    case E::kAsk:
      return Ask(a, choice.b);
    case E::kCancel: {
      cancels_ += 1;
      requests_[a].cancelled = true;
      if (requests_[a].phase == Phase::kHanded) {
        return Execute(decode_.Handle(DecodeSequence(a), DecodeEvent::kCancelled));
      }
      return EndRequest(a);
    }
    case E::kHeadRoom:
      return Execute(decode_.Handle(DecodeSequence(a), DecodeEvent::kHeadRoom));
    case E::kReserve:
      TakeBlocks(a);
      return Execute(decode_.Handle(DecodeSequence(a), DecodeEvent::kReserved));
    case E::kNeverFits:
      return Execute(decode_.Handle(DecodeSequence(a), DecodeEvent::kNeverFits));
    case E::kLocalAdmit:
      TakeBlocks(a);
      return Run(a, Phase::kLocalRunning);
    case E::kFinish:
      CheckArrived(a, "at its end");
      return EndRequest(a);
    case E::kConnected:
      return Connected(sessions_[a]);
    case E::kConnectFailed: {
      const uint64_t connection = connecting_[a];
      connecting_.erase(connecting_.begin() + a);
      return ExecutePeer(decode_.OnConnected(connection, false));
    }
    case E::kDecodeReceives:
      return DecodeReceives(sessions_[a]);
    case E::kDecodeClosed:
      sessions_[a].decode_closed = true;
      return ExecutePeer(decode_.OnClosed(sessions_[a].connection));
    case E::kMembers: {
      const DecodeSide::Member member = news_.front();
      news_.erase(news_.begin());
      ExecutePeer(decode_.OnMember({1}, member.incarnation, member.dead));
      if (options_.early_connect && !member.dead) ExecutePeer(decode_.Need({1}, member.incarnation));
      return;
    }
    default:
      return;
  }
}

void World::ApplyToPrefill(const Choice& choice) {
  const uint8_t a = choice.a;
  switch (choice.event) {
    case E::kAccept:
      sessions_.push_back({.id = next_session_++,
                           .d_incarnation = d_incarnation_,
                           .p_incarnation = p_incarnation_,
                           .connection = connecting_[a]});
      connecting_.erase(connecting_.begin() + a);
      return;
    case E::kPrefillReceives:
      return PrefillReceives(sessions_[a]);
    case E::kPrefillClosed:
      sessions_[a].prefill_closed = true;
      inbox_.push_back({.kind = Message::Kind::kClosed, .session = sessions_[a].id});
      return;
    case E::kInbox:
      return RunInbox(a);
    case E::kMeasured:
      return Measured();
    case E::kStep:
      return Step(a, false);
    case E::kEndsAtOnce:
      return Step(a, true);
    case E::kPreempt:
      preemptions_ += 1;
      sequences_[a].generation += 1;
      sequences_[a].position = 0;
      sequences_[a].admitted = true;
      return;
    case E::kLease:
      return Execute(prefill_.Handle(prompts_[a].sequence, PrefillEvent::kLeaseExpired));
    case E::kDeadlineAtP:
      cancels_ += 1;
      return Execute(prefill_.Handle(prompts_[a].sequence, PrefillEvent::kFailed));
    case E::kWrite:
      WritePiece(copies_[a]);
      if (copies_[a].next == copies_[a].pieces.size()) EndCopy(a, true);
      return;
    case E::kLateWrite:
      copies_[a].late = false;
      return WritePiece(copies_[a]);
    case E::kCopyEnded:
      return EndCopy(a, false);
    case E::kCopyFails:
      copy_failures_ += 1;
      return EndCopy(a, false);
    default:
      return;
  }
}

void World::ApplyFault(const Choice& choice) {
  const auto duplicate = [](std::vector<Message>& wire) { wire.push_back(Message(wire.front())); };
  switch (choice.event) {
    case E::kBreakAndLose:
      sessions_[choice.a].to_prefill.clear();
      sessions_[choice.a].to_decode.clear();
      [[fallthrough]];
    case E::kBreak:
      breaks_ += 1;
      sessions_[choice.a].broken = true;
      return;
    case E::kDuplicateToPrefill:
      duplicates_ += 1;
      return duplicate(sessions_[choice.a].to_prefill);
    case E::kDuplicateToDecode:
      duplicates_ += 1;
      return duplicate(sessions_[choice.a].to_decode);
    case E::kPrefillDies:
      p_deaths_ += 1;
      return PrefillDies();
    case E::kKilled:
      return PrefillDies();
    case E::kDecodeDies:
      d_deaths_ += 1;
      return DecodeDies();
    case E::kReaped:
      p_reaped_ = true;
      return news_.push_back({p_incarnation_, true});
    case E::kRestarted:
      return Restart();
    default:
      return;
  }
}

// ---- names ----

std::string World::Describe(const Choice& choice) const {
  static constexpr const char* kMessages[] = {"PoolOffer",
                                              "Prefill",
                                              "Reservation",
                                              "CancelPrefill",
                                              "PathMeasured",
                                              "Started",
                                              "FirstToken",
                                              "FirstToken (the last)",
                                              "Complete",
                                              "Quiesced",
                                              "Quiesced (refused for good)",
                                              "closed",
                                              "abort",
                                              "release"};
  const int a = choice.a;
  const auto name = [&](const std::vector<Message>& queue) -> std::string {
    if (queue.empty()) return "nothing";
    const Message& front = queue.front();
    return front.number > 0xffff ? Cat(kMessages[static_cast<int>(front.kind)], " of epoch ", front.number >> 16, ".",
                                       front.number & 0xffff)
                                 : kMessages[static_cast<int>(front.kind)];
  };
  const auto session = [&] { return static_cast<int>(sessions_[a].id); };
  switch (choice.event) {
    case E::kAsk:
      return Cat("request ", a, " comes to D, to be prefilled by incarnation ", static_cast<int>(choice.b), " of P");
    case E::kCancel:
      return Cat("request ", a, " is cancelled, or its deadline passes");
    case E::kHeadRoom:
      return Cat("D has head-room for request ", a, " and sends Prefill");
    case E::kReserve:
      return Cat("D reserves blocks for request ", a);
    case E::kNeverFits:
      return Cat("D's scheduler refuses request ", a, " for good");
    case E::kLocalAdmit:
      return Cat("D prefills request ", a, " itself");
    case E::kFinish:
      return Cat("request ", a, " generates its last token");
    case E::kConnected:
      return Cat("D hears that session ", session(), " is open");
    case E::kConnectFailed:
      return "D cannot connect";
    case E::kDecodeReceives:
      return Cat("D receives ", name(sessions_[a].to_decode), " by session ", session());
    case E::kDecodeClosed:
      return Cat("D hears that session ", session(), " is closed");
    case E::kMembers:
      return Cat("D hears that incarnation ", news_.front().incarnation, " of P is ",
                 news_.front().dead ? "reaped" : "there");
    case E::kAccept:
      return Cat("incarnation ", static_cast<int>(p_incarnation_), " of P accepts session ",
                 static_cast<int>(next_session_));
    case E::kPrefillReceives:
      return Cat("P receives ", name(sessions_[a].to_prefill), " by session ", session());
    case E::kPrefillClosed:
      return Cat("P hears that session ", session(), " is closed");
    case E::kInbox:
      return Cat("P's step loop takes ", name(inbox_), a == 0 ? "" : ", and its scheduler refuses it");
    case E::kMeasured:
      return "P has measured the path";
    case E::kStep:
    case E::kEndsAtOnce: {
      const Sequence& sequence = sequences_[a];
      const std::string what = sequence.position == StepsOfPrompt() ? "samples the first token"
                               : sequence.position % 3 == 0         ? "begins a step"
                                                                    : "has computed a layer";
      return Cat("P ", what, " of request ", static_cast<int>(sequence.request),
                 choice.event == E::kEndsAtOnce ? ", which ends it" : "");
    }
    case E::kPreempt:
      return Cat("P preempts request ", static_cast<int>(sequences_[a].request));
    case E::kLease:
      return Cat("P's hold lease of request ", static_cast<int>(prompts_[a].request), " runs out");
    case E::kDeadlineAtP:
      return Cat("P ends request ", static_cast<int>(prompts_[a].request), ": its deadline has passed");
    case E::kWrite:
    case E::kLateWrite: {
      const Copy& copy = copies_[a];
      return Cat("P writes layers [", copy.pieces[copy.next].layer_begin, ", ", copy.pieces[copy.next].layer_end,
                 ") of block ", copy.pieces[copy.next].target, " for request ", static_cast<int>(copy.request),
                 choice.event == E::kLateWrite ? ", after the cancel" : "");
    }
    case E::kCopyEnded:
      return Cat("a cancelled copy of request ", static_cast<int>(copies_[a].request), " has ended");
    case E::kCopyFails:
      return Cat("a copy of request ", static_cast<int>(copies_[a].request), " fails");
    case E::kBreak:
      return Cat("session ", session(), " breaks");
    case E::kBreakAndLose:
      return Cat("session ", session(), " breaks, and loses what was under way");
    case E::kDuplicateToPrefill:
      return Cat(name(sessions_[a].to_prefill), " is sent twice");
    case E::kDuplicateToDecode:
      return Cat(name(sessions_[a].to_decode), " is sent twice");
    case E::kPrefillDies:
      return "P dies";
    case E::kDecodeDies:
      return "D dies, and another incarnation takes its requests";
    case E::kKilled:
      return "the supervisor kills P, whom D reported lost";
    case E::kReaped:
      return Cat("the supervisor reaps incarnation ", static_cast<int>(p_incarnation_), " of P");
    case E::kRestarted:
      return "the supervisor starts P again";
  }
  return "";
}

// ---- equality ----

void World::AppendKey(std::string& key) const {
  const auto put = [&](auto... values) { (key.push_back(static_cast<char>(values)), ...); };
  const auto put_epoch = [&](uint64_t epoch) { put(epoch >> 16, epoch); };
  const auto put_messages = [&](const std::vector<Message>& messages) {
    put(messages.size());
    for (const Message& m : messages) {
      put(m.kind, m.session, m.request, m.refused, m.first_missing, m.blocks.size());
      put_epoch(m.number);
      for (const BlockId block : m.blocks) put(block);
    }
  };
  put(p_deaths_, d_deaths_, breaks_, cancels_, duplicates_, preemptions_, copy_failures_);
  put(p_incarnation_, p_alive_, p_reaped_, p_reported_, d_incarnation_, refused_incarnation_, measuring_);
  put(sessions_.size());
  for (const Session& s : sessions_) {
    put(s.id, s.d_incarnation, s.p_incarnation, s.connection, s.broken, s.decode_knows, s.decode_closed,
        s.prefill_closed);
    put_messages(s.to_prefill);
    put_messages(s.to_decode);
  }
  put(news_.size());
  for (const DecodeSide::Member& member : news_) put(member.incarnation, member.dead);
  put(connecting_.size());
  for (const uint64_t connection : connecting_) put(connection);
  for (const Block& b : pool_) put(b.owners, b.lent, b.fenced, b.published, b.marks[0], b.marks[1]);
  for (const Request& r : requests_) {
    put(r.phase, r.cancelled, r.token, r.session, r.first_missing, r.blocks.size());
    for (const BlockId block : r.blocks) put(block);
  }
  put(decode_.requests().size());
  for (const auto& [sequence, r] : decode_.requests()) {
    put(sequence.value, r.incarnation, r.connection, r.state);
    put_epoch(r.epoch);
  }
  for (const auto& [worker, peer] : decode_.peers()) {
    put(peer.incarnation, peer.connection, peer.link, peer.lent.size());
    for (const BlockId block : peer.lent) put(block);
  }
  for (const auto& [worker, member] : decode_.members()) put(member.incarnation, member.dead);
  put(decode_.fenced().size());
  for (const auto& [owner, blocks] : decode_.fenced()) {
    put(owner.second, blocks.size());
    for (const BlockId block : blocks) put(block);
  }
  put_messages(inbox_);
  put(prompts_.size());
  for (const Prompt& p : prompts_) {
    put(p.tag, p.session, p.request, p.sequence.value, p.refused_for_good);
    put_epoch(p.epoch);
  }
  put(prefill_.peers().size());
  for (const auto& [session, peer] : prefill_.peers()) {
    put(session, peer.accepted);
    put_epoch(peer.last_epoch);
  }
  put(prefill_.prompts().size());
  for (const auto& [tag, p] : prefill_.prompts()) {
    put(tag, p.state, p.in_flight, p.progress.first_missing(), p.progress.complete_blocks(), p.progress.chunk_end(),
        p.progress.chunk_layers(), p.progress.target().size(), p.progress.pushed_layers().size());
    for (const BlockId block : p.progress.target()) put(block);
    for (const int32_t layers : p.progress.pushed_layers()) put(layers);
  }
  put(sequences_.size());
  for (const Sequence& s : sequences_) put(s.id.value, s.request, s.generation, s.position, s.admitted, s.held);
  put(copies_.size());
  for (const Copy& c : copies_) {
    put(c.tag, c.session, c.request, c.generation, c.d_incarnation, c.next, c.cancelled, c.late, c.pieces.size());
    for (const PushPiece& piece : c.pieces) put(piece.source, piece.target, piece.layer_begin, piece.layer_end);
  }
}

}  // namespace baton
