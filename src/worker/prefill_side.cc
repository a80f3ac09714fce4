#include "worker/prefill_side.h"

#include <algorithm>

namespace baton {
namespace {

using S = PrefillState;
using E = PrefillEvent;
using A = PrefillAction;
constexpr auto kNo = A::kNothing;

// clang-format off
constexpr PrefillRow kRows[] = {
  // state        event              what happens                                             state after
  {S::kQueued,    E::kPlanned,       {A::kSendStarted, kNo, kNo},                             S::kComputing},
  {S::kQueued,    E::kFailed,        {A::kStopComputing, kNo, kNo},                           S::kEnding},
  {S::kQueued,    E::kCancelled,     {A::kStopComputing, kNo, kNo},                           S::kEnding},
  {S::kQueued,    E::kSessionClosed, {A::kStopComputing, kNo, kNo},                           S::kEnding},

  {S::kComputing, E::kPlanned,       {kNo, kNo, kNo},                                         S::kComputing},
  {S::kComputing, E::kLayersDone,    {kNo, kNo, kNo},                                         S::kComputing},
  {S::kComputing, E::kReservation,   {A::kPush, kNo, kNo},                                    S::kPushing},
  {S::kComputing, E::kFirstToken,    {A::kSendFirstToken, kNo, kNo},                          S::kHeld},
  {S::kComputing, E::kLastToken,     {A::kSendFirstToken, A::kRelease, kNo},                  S::kEnding},
  {S::kComputing, E::kFailed,        {A::kStopComputing, kNo, kNo},                           S::kEnding},
  {S::kComputing, E::kCancelled,     {A::kStopComputing, kNo, kNo},                           S::kEnding},
  {S::kComputing, E::kSessionClosed, {A::kStopComputing, kNo, kNo},                           S::kEnding},

  {S::kPushing,   E::kPlanned,       {A::kPush, kNo, kNo},                                    S::kPushing},
  {S::kPushing,   E::kLayersDone,    {A::kPush, kNo, kNo},                                    S::kPushing},
  {S::kPushing,   E::kFirstToken,    {A::kSendFirstToken, kNo, kNo},                          S::kFinishing},
  {S::kPushing,   E::kLastToken,     {A::kSendFirstToken, A::kCancelCopies, A::kRelease},     S::kEnding},
  {S::kPushing,   E::kFailed,        {A::kCancelCopies, A::kStopComputing, kNo},              S::kEnding},
  {S::kPushing,   E::kCancelled,     {A::kCancelCopies, A::kStopComputing, kNo},              S::kEnding},
  {S::kPushing,   E::kSessionClosed, {A::kCancelCopies, A::kStopComputing, kNo},              S::kEnding},

  {S::kHeld,      E::kReservation,   {A::kPush, kNo, kNo},                                    S::kFinishing},
  {S::kHeld,      E::kFailed,        {A::kRelease, kNo, kNo},                                 S::kEnding},
  {S::kHeld,      E::kLeaseExpired,  {A::kRelease, kNo, kNo},                                 S::kEnding},
  {S::kHeld,      E::kCancelled,     {A::kRelease, kNo, kNo},                                 S::kEnding},
  {S::kHeld,      E::kSessionClosed, {A::kRelease, kNo, kNo},                                 S::kEnding},

  {S::kFinishing, E::kAllPushed,     {A::kRelease, A::kSendComplete, kNo},                    S::kForgotten},
  {S::kFinishing, E::kFailed,        {A::kCancelCopies, A::kRelease, kNo},                    S::kEnding},
  {S::kFinishing, E::kCancelled,     {A::kCancelCopies, A::kRelease, kNo},                    S::kEnding},
  {S::kFinishing, E::kSessionClosed, {A::kCancelCopies, A::kRelease, kNo},                    S::kEnding},

  {S::kEnding,    E::kFirstToken,    {A::kRelease, kNo, kNo},                                 S::kEnding},
  {S::kEnding,    E::kLastToken,     {A::kRelease, kNo, kNo},                                 S::kEnding},
  {S::kEnding,    E::kQuiet,         {A::kSendQuiesced, kNo, kNo},                            S::kForgotten},
};
// clang-format on

}  // namespace

constinit const std::span<const PrefillRow> kPrefillTable = kRows;

std::vector<PrefillDecision> PrefillSide::OnClosed(Session session) {
  peers_.erase(session);
  std::vector<uint64_t> lost;
  for (const auto& [tag, prompt] : prompts_) {
    if (prompt.session == session) lost.push_back(tag);
  }
  std::vector<PrefillDecision> decisions;
  for (const uint64_t tag : lost) {
    if (auto decision = Apply(tag, PrefillEvent::kSessionClosed)) decisions.push_back(*std::move(decision));
  }
  return decisions;
}

std::pair<PrefillSide::Asked, uint64_t> PrefillSide::Ask(Session session, uint64_t epoch, SequenceId sequence) {
  const auto peer = peers_.find(session);
  if (peer == peers_.end() || !peer->second.accepted) return {Asked::kRefused, 0};
  if (rules_.one_prompt_an_epoch && epoch <= peer->second.last_epoch) return {Asked::kRepeated, 0};
  if (by_epoch_.contains({session, epoch})) return {Asked::kRefused, 0};
  peer->second.last_epoch = epoch;
  const uint64_t tag = next_tag_++;
  prompts_[tag] = {
      .session = session, .epoch = epoch, .sequence = sequence, .progress = PushProgress(num_layers_, rules_.push)};
  by_epoch_[{session, epoch}] = tag;
  by_sequence_[sequence] = tag;
  return {Asked::kAccepted, tag};
}

const PrefillSide::Prompt* PrefillSide::Find(uint64_t tag) const {
  const auto found = prompts_.find(tag);
  return found == prompts_.end() ? nullptr : &found->second;
}

std::optional<uint64_t> PrefillSide::FindEpoch(Session session, uint64_t epoch) const {
  const auto found = std::ranges::find_if(by_epoch_, [&](const auto& entry) {
    return entry.first.second == epoch && (entry.first.first == session || !rules_.own_session_only);
  });
  return found == by_epoch_.end() ? std::nullopt : std::optional(found->second);
}

// ---- events of one prompt ----

bool PrefillSide::Take(Prompt& prompt, PrefillEvent event, PrefillDecision& decision) {
  const auto row = std::ranges::find_if(
      rules_.table, [&](const PrefillRow& r) { return r.from == prompt.state && r.event == event; });
  if (row == rules_.table.end()) return false;
  prompt.state = row->to;
  for (const PrefillAction action : row->actions) {
    if (action == PrefillAction::kNothing) continue;
    if (action == PrefillAction::kCancelCopies && prompt.in_flight == 0) continue;
    if (action == PrefillAction::kPush) {
      decision.pieces = prompt.progress.TakeMissing();
      if (decision.pieces.empty()) continue;
      prompt.in_flight += 1;
    }
    decision.actions.push_back(action);
  }
  return true;
}

std::optional<PrefillDecision> PrefillSide::Apply(uint64_t tag, PrefillEvent event) {
  Prompt& prompt = prompts_.at(tag);
  PrefillDecision decision{.tag = tag};
  const bool taken = Take(prompt, event, decision);
  // What follows at once.
  const bool idle = prompt.in_flight == 0;
  if (prompt.state == PrefillState::kFinishing && (idle || !rules_.complete_after_copies) &&
      prompt.progress.AllPushed()) {
    Take(prompt, PrefillEvent::kAllPushed, decision);
  }
  if (prompt.state == PrefillState::kEnding && (idle || !rules_.quiesce_after_copies)) {
    Take(prompt, PrefillEvent::kQuiet, decision);
  }
  decision.to = prompt.state;
  if (prompt.state == PrefillState::kForgotten) {
    by_epoch_.erase({prompt.session, prompt.epoch});
    by_sequence_.erase(prompt.sequence);
    prompts_.erase(tag);
  }
  return taken || !decision.actions.empty() ? std::optional(std::move(decision)) : std::nullopt;
}

std::optional<PrefillDecision> PrefillSide::Handle(SequenceId sequence, PrefillEvent event) {
  const auto tag = by_sequence_.find(sequence);
  return tag == by_sequence_.end() ? std::nullopt : Apply(tag->second, event);
}

std::optional<PrefillDecision> PrefillSide::Plan(SequenceId sequence, std::span<const BlockId> source,
                                                 int32_t first_block, int32_t end_block, bool admitted) {
  const auto tag = by_sequence_.find(sequence);
  if (tag == by_sequence_.end()) return std::nullopt;
  prompts_.at(tag->second).progress.Plan(source, first_block, end_block, admitted);
  return Apply(tag->second, PrefillEvent::kPlanned);
}

std::optional<PrefillDecision> PrefillSide::LayersDone(SequenceId sequence, int32_t layer_end) {
  const auto tag = by_sequence_.find(sequence);
  if (tag == by_sequence_.end()) return std::nullopt;
  prompts_.at(tag->second).progress.LayersDone(layer_end);
  return Apply(tag->second, PrefillEvent::kLayersDone);
}

std::optional<PrefillDecision> PrefillSide::Reserve(Session session, uint64_t epoch, std::vector<BlockId> target,
                                                    int32_t first_missing) {
  const std::optional<uint64_t> tag = FindEpoch(session, epoch);
  if (!tag) return std::nullopt;
  Prompt& prompt = prompts_.at(*tag);
  // A second one; or one that was cancelled or given up meanwhile: its Quiesced is on the way.
  if (prompt.state != PrefillState::kComputing && prompt.state != PrefillState::kHeld) return std::nullopt;
  if (target.empty() || first_missing < 0 || first_missing > std::ssize(target)) {
    return Apply(*tag, PrefillEvent::kFailed);
  }
  prompt.progress.Reserve(std::move(target), first_missing);
  return Apply(*tag, PrefillEvent::kReservation);
}

std::optional<PrefillDecision> PrefillSide::Cancel(Session session, uint64_t epoch) {
  const std::optional<uint64_t> tag = FindEpoch(session, epoch);
  return tag ? Apply(*tag, PrefillEvent::kCancelled) : std::nullopt;
}

std::optional<PrefillDecision> PrefillSide::CopyEnded(uint64_t tag, bool ok) {
  const auto found = prompts_.find(tag);
  if (found == prompts_.end()) return std::nullopt;
  found->second.in_flight -= 1;
  return Apply(tag, ok ? PrefillEvent::kCopyEnded : PrefillEvent::kFailed);
}

}  // namespace baton
