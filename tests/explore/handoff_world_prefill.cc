// P in a World: its inbox, its scheduler and its copies.
#include <algorithm>
#include <utility>

#include "base/status.h"
#include "handoff_world.h"

namespace baton {

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

void World::WritePiece(Copy& copy, bool corrupt) {
  const PushPiece& piece = copy.pieces[copy.next++];
  if (copy.d_incarnation != d_incarnation_) return;  // memory of a process that is gone
  CheckMayBeWritten(piece.target, copy.session, copy.request, "a copy");
  const auto sequence = std::ranges::find(sequences_, copy.sequence, &Sequence::id);
  for (int32_t layer = piece.layer_begin; layer < piece.layer_end; ++layer) {
    // Given back, or not computed yet: bytes of somebody else.
    const bool right = !corrupt && sequence != sequences_.end() && sequence->generation == copy.generation &&
                       sequence->position >= 3 * piece.source + 2 + layer;
    pool_[piece.target].marks[layer] = right ? Mark(copy.request, piece.source) : kGarbage;
  }
}

void World::EndCopy(size_t index, bool ok) {
  const uint64_t tag = copies_[index].tag;
  copies_.erase(copies_.begin() + static_cast<ptrdiff_t>(index));
  Execute(prefill_.CopyEnded(tag, ok));
}

}  // namespace baton
