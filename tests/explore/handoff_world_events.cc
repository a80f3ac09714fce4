// What can happen next in a World, and what it does.
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
      if (corruptions_ < options_.corruptions) choices.push_back({E::kCorruptWrite, Narrow(i)});
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
    case E::kCorruptWrite:
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
    case E::kCorruptWrite:
      corruptions_ += 1;
      [[fallthrough]];
    case E::kWrite:
      WritePiece(copies_[a], choice.event == E::kCorruptWrite);
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

}  // namespace baton
