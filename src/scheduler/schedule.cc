// What the next step computes: decode rows, then prefill chunks.
#include <algorithm>
#include <tuple>
#include <utility>

#include "scheduler/scheduler.h"

namespace baton {
namespace {

constexpr size_t kStepsInFlight = 2;

}  // namespace

StepPlan Scheduler::Schedule() {
  StepPlan plan;
  if (in_flight_.size() >= (options_.run_ahead ? kStepsInFlight : 1)) return plan;
  const std::optional<std::vector<Sequence*>> rows = ChooseDecodeRows();
  if (!rows) return plan;
  const Chunks chunks = ChoosePrefills(static_cast<int32_t>(rows->size()));
  if (rows->empty() && chunks.items.empty()) {
    if (!PlansAhead()) starved_steps_ = chunks.starved ? starved_steps_ + 1 : 0;
    return plan;
  }
  // A prompt waits for the step in flight: whoever comes until then may be computed with it, and its hand-off sees one
  // step at a time. The device's gap before such a step is little beside its length (ADR 16).
  if (PlansAhead() && !chunks.items.empty()) return plan;
  starved_steps_ = chunks.starved ? starved_steps_ + 1 : 0;
  plan.step = ++step_;
  in_flight_.push_back({.step = plan.step, .sequences = {}});
  plan.batch.items.reserve(rows->size() + chunks.items.size());
  plan.items.reserve(rows->size() + chunks.items.size());
  for (Sequence* sequence : *rows) PlanItem(*sequence, 1, plan);
  for (const Chunk& chunk : chunks.items) {
    PlanItem(*chunk.sequence, chunk.tokens, plan);
    plan.prefill_tokens += chunk.tokens;
  }
  plan.decode_rows = static_cast<int32_t>(rows->size());
  return plan;
}

// The token that a step in flight samples is its last one for sure, whatever it is.
bool Scheduler::EndsAtLimit(const Sequence& sequence) const {
  return sequence.generated() + sequence.unknown >= sequence.request.sampling.max_tokens ||
         sequence.length() + sequence.unknown >= options_.max_model_len;
}

// In order of (priority, arrival), so that whoever is preempted comes later and is not chosen yet. None: a step in
// flight must be committed first.
std::optional<std::vector<Sequence*>> Scheduler::ChooseDecodeRows() {
  std::vector<Sequence*> rows;
  for (size_t i = 0; i < running_.size(); ++i) {
    Sequence& sequence = *running_[i];
    if (sequence.ended || !sequence.decodes_next()) continue;
    if (sequence.unknown > 0) {
      if (EndsAtLimit(sequence)) continue;
      if (sequence.request.sampling.has_penalties()) return std::nullopt;
    }
    const Growth growth = GrowForDecode(sequence);
    if (growth == Growth::kWaits) return std::nullopt;
    if (growth == Growth::kGrown) rows.push_back(&sequence);
  }
  return rows;
}

// Makes sure of a block for the next token. kPreempted: of the sequence itself. Steps in flight write the blocks of
// their sequences, so nobody is preempted before they have ended.
Scheduler::Growth Scheduler::GrowForDecode(Sequence& sequence) {
  while (static_cast<int32_t>(sequence.blocks.size()) < pool_.BlocksFor(sequence.planned + 1)) {
    if (pool_.Available() > 0) {
      sequence.blocks.push_back(pool_.Allocate(1)->front());
      continue;
    }
    if (PlansAhead()) return Growth::kWaits;
    Sequence& victim = *running_.back();
    Preempt(victim);
    if (&victim == &sequence) return Growth::kPreempted;
  }
  return Growth::kGrown;
}

void Scheduler::Preempt(Sequence& sequence) {
  std::erase(running_, &sequence);
  FreeBlocks(sequence);
  sequence.state = SequenceState::kWaiting;
  waiting_.Return(&sequence);
  ++preemptions_;
}

// What the dial needs to know. The row that has saved least, against the target, says how much may be spent.
DialState Scheduler::StateForDial(int32_t decode_rows, std::span<Sequence* const> prefills) const {
  DialState state{.decode_rows = decode_rows,
                  .prompts_waiting = 0,
                  .most = options_.max_batch_tokens - decode_rows,
                  .slack_us = 1e12};
  for (const Sequence* sequence : running_) {
    if (!sequence->decoding || sequence->ended) continue;
    state.decode_context += sequence->computed;
    const double allowed_us = options_.targets.itl_ms * 1e3 * sequence->decoded;
    state.slack_us = std::min(state.slack_us, allowed_us - (clock_us_ - sequence->decoding_since_us));
  }
  // In the order in which they are going to be computed, more or less.
  const auto count = [&](const Sequence& sequence, int32_t tokens) {
    state.prompts_waiting += 1;
    state.prompt_tokens_waiting += tokens;
    const double left_us = kTtftShare * options_.targets.ttft_ms * 1e3 - (clock_us_ - sequence.added_us);
    if (left_us <= 0) {
      state.rate_needed = 1e12;  // as fast as can be
    } else {
      state.rate_needed = std::max(state.rate_needed, static_cast<double>(state.prompt_tokens_waiting) / left_us);
    }
  };
  for (const Sequence* sequence : prefills) count(*sequence, sequence->prefill_end - sequence->planned);
  for (const Sequence* sequence : waiting_.All()) count(*sequence, sequence->length());
  if (!prefills.empty()) state.prompt_context = prefills.front()->planned;
  return state;
}

// Prompt tokens that this step may compute.
int32_t Scheduler::PrefillBudget(int32_t decode_rows, std::span<Sequence* const> prefills) const {
  const int32_t room = options_.max_batch_tokens - decode_rows;
  if (decode_rows == 0) return room;
  const bool starved = starved_steps_ >= options_.prefill_patience_steps;
  if (options_.prefill_budget < 0 && !options_.step_times.empty()) {
    const auto budget = static_cast<int32_t>(
        baton::PrefillBudget(options_.step_times, options_.targets, StateForDial(decode_rows, prefills)));
    return starved ? std::min(room, std::max(budget, pool_.block_size())) : budget;
  }
  int32_t ride = options_.prefill_budget < 0 ? options_.prefill_chunk_tokens : options_.prefill_budget;
  if (starved) ride = std::max(ride, options_.prefill_chunk_tokens);
  return std::min(room, ride);
}

Scheduler::Chunks Scheduler::ChoosePrefills(int32_t decode_rows) {
  WakeParked();
  std::vector<Sequence*> prefills;
  std::ranges::copy_if(running_, std::back_inserter(prefills),
                       [](const Sequence* s) { return !s->decoding && !s->ended && s->planned < s->prefill_end; });
  int32_t budget = PrefillBudget(decode_rows, prefills);
  Chunks chunks;
  chunks.starved = budget == 0 && (!prefills.empty() || waiting_.size() > 0);
  bool first = true;
  bool admitting = true;
  for (size_t next = 0; budget > 0;) {
    Sequence* running = next < prefills.size() ? prefills[next] : nullptr;
    Sequence* waiting = admitting ? waiting_.Front() : nullptr;
    Sequence* chosen = running;
    if (waiting != nullptr && (running == nullptr || waiting->request.priority < running->request.priority)) {
      const Admission admission = Admit(*waiting);
      admitting = admission != Admission::kNoRoom;
      if (admission != Admission::kAdmitted) continue;
      chosen = waiting;
    } else if (running != nullptr) {
      ++next;
    } else {
      break;
    }
    const int32_t count = ChunkTokens(*chosen, budget);
    if (first) chunks.starved = count == 0;
    first = false;
    if (count == 0) continue;
    chunks.items.push_back({chosen, count});
    budget -= count;
  }
  return chunks;
}

// Those whose awaited block is there, or whose computing sequence is gone, are candidates again, in their users' turns.
void Scheduler::WakeParked() {
  std::erase_if(parked_, [&](const Parked& parked) {
    if (computing_.contains(parked.waits_for)) return false;
    waiting_.Push(parked.sequence);
    return true;
  });
}

// Tries to start the front of the waiting queue.
Scheduler::Admission Scheduler::Admit(Sequence& sequence) {
  if (static_cast<int32_t>(running_.size()) + reserved_ >= options_.max_sequences) return Admission::kNoRoom;
  const std::span<const BlockHash> usable = UsableHashes(sequence);
  const int32_t hits = pool_.CountPrefix(usable, sequence.tokens);
  if (const BlockHash* hash = FindComputing(sequence, hits)) {
    waiting_.Pop();
    parked_.push_back({&sequence, *hash});
    return Admission::kParked;
  }
  std::vector<BlockId> blocks = pool_.MatchPrefix(usable.first(hits), sequence.tokens);
  if (pool_.Available() < BlocksToAdmit(sequence) - hits) {
    pool_.Free(blocks);
    return Admission::kNoRoom;
  }
  const std::vector<BlockId> fresh = *pool_.Allocate(pool_.BlocksFor(sequence.length()) - hits);
  blocks.insert(blocks.end(), fresh.begin(), fresh.end());
  waiting_.Pop();
  sequence.blocks = std::move(blocks);
  sequence.named_blocks = hits;
  sequence.computed = sequence.planned = hits * pool_.block_size();
  if (sequence.cached_tokens < 0) {
    sequence.cached_tokens = std::min(sequence.computed, sequence.prompt_length);
    pool_.RecordLookup(sequence.length(), sequence.computed);
  }
  StartRunning(sequence);
  Announce(sequence);
  return Admission::kAdmitted;
}

// The last of a run of blocks, from the first one that the cache lacks, that others are computing; null when there is
// none. Nobody waits for a sequence of lower priority: that one may not get its turn.
const BlockHash* Scheduler::FindComputing(const Sequence& sequence, int32_t first_block) const {
  const BlockHash* last = nullptr;
  for (const BlockHash& hash : UsableHashes(sequence).subspan(first_block)) {
    const auto found = computing_.find(hash);
    if (found == computing_.end() || found->second->request.priority > sequence.request.priority) break;
    last = &hash;
  }
  return last;
}

void Scheduler::StartRunning(Sequence& sequence) {
  sequence.state = SequenceState::kRunning;
  sequence.prefill_end = sequence.length();
  const auto key = [](const Sequence* s) { return std::tuple(s->request.priority, s->arrival); };
  running_.insert(std::ranges::upper_bound(running_, key(&sequence), {}, key), &sequence);
}

int32_t Scheduler::ChunkTokens(const Sequence& sequence, int32_t budget) const {
  const int32_t remaining = sequence.prefill_end - sequence.planned;
  const int32_t count = std::min({remaining, budget, options_.prefill_chunk_tokens});
  if (sequence.kind != SequenceKind::kPrefillOnly || count == remaining) return count;
  return std::max(0, (sequence.planned + count) / pool_.block_size() * pool_.block_size() - sequence.planned);
}

void Scheduler::PlanItem(Sequence& sequence, int32_t count, StepPlan& plan) {
  const int32_t end = sequence.planned + count;
  const bool last = end == sequence.length() + sequence.unknown;
  const bool decodes = sequence.decodes_next();
  const std::span<const BlockId> table(sequence.blocks);
  plan.batch.items.push_back({.sequence = sequence.id,
                              .tokens = sequence.tokens,
                              .prompt_length = sequence.prompt_length,
                              .start = sequence.planned,
                              .count = count,
                              .block_table = table.first(pool_.BlocksFor(end)),
                              .sample = last,
                              .prompt_logprobs = sequence.prompt_logprobs && !decodes,
                              .sampling = &sequence.request.sampling,
                              .sampled_by = sequence.unknown > 0 ? sequence.sampled_by : -1});
  const int32_t complete = last && !decodes ? pool_.BlocksFor(end) : end / pool_.block_size();
  const int32_t begin = std::exchange(sequence.complete_blocks, std::max(complete, sequence.complete_blocks));
  plan.items.push_back({.kind = sequence.kind, .complete_begin = begin, .complete_end = sequence.complete_blocks});
  sequence.planned = end;
  if (last) {
    ++sequence.unknown;
    sequence.sampled_by = static_cast<int32_t>(plan.items.size()) - 1;
  }
  ++sequence.in_flight;
  in_flight_.back().sequences.push_back(&sequence);
}

}  // namespace baton
