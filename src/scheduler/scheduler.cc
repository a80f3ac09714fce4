// Sequences come and go: validation, abort, reservations, counters.
#include "scheduler/scheduler.h"

#include <algorithm>
#include <utility>

namespace baton {

absl::StatusOr<std::unique_ptr<Scheduler>> Scheduler::Create(SchedulerOptions options, BlockPool& pool) {
  if (options.max_sequences < 1 || options.max_model_len < 2 || options.prefill_patience_steps < 1) {
    return InvalidArgument(
        "scheduler: expected max_sequences >= 1, max_model_len >= 2 and prefill_patience_steps >= 1,"
        " found ",
        options.max_sequences, ", ", options.max_model_len, " and ", options.prefill_patience_steps);
  }
  if (options.prefill_chunk_tokens < pool.block_size()) {
    return InvalidArgument("scheduler: prefill_chunk_tokens ", options.prefill_chunk_tokens,
                           " is less than the block size ", pool.block_size(), "; a chunk must hold a block");
  }
  if (options.max_batch_tokens < options.max_sequences + pool.block_size()) {
    return InvalidArgument("scheduler: max_batch_tokens ", options.max_batch_tokens, " is less than max_sequences ",
                           options.max_sequences, " + block size ", pool.block_size(),
                           "; a step must hold a row of every sequence and a block of prefill");
  }
  return std::unique_ptr<Scheduler>(new Scheduler(std::move(options), pool));
}

Scheduler::Scheduler(SchedulerOptions options, BlockPool& pool) : options_(std::move(options)), pool_(pool) {}

Scheduler::~Scheduler() {
  for (auto& [id, sequence] : sequences_) pool_.Free(sequence->blocks);
}

absl::Status Scheduler::Validate(SequenceId id, const Request& request, SequenceKind kind) const {
  if (sequences_.contains(id)) return InvalidArgument("sequence ", id.value, " exists already; ids are used once");
  return Check(request, kind);
}

absl::Status Scheduler::Check(const Request& request, SequenceKind kind) const {
  const int64_t prompt = static_cast<int64_t>(request.prompt.size());
  const int64_t generated = static_cast<int64_t>(request.generated.size());
  const int64_t max_tokens = request.sampling.max_tokens;
  if (prompt == 0) return InvalidArgument("the prompt is empty; at least one token is needed");
  if (max_tokens < 1) return InvalidArgument("max_tokens is ", max_tokens, "; at least 1 is needed");
  if (prompt + max_tokens > options_.max_model_len) {
    return InvalidArgument("prompt of ", prompt, " tokens + max_tokens ", max_tokens, " = ", prompt + max_tokens,
                           " is more than the model's ", options_.max_model_len, "; shorten one of them");
  }
  if (generated >= max_tokens) {
    return InvalidArgument("replay with ", generated, " generated tokens of max_tokens ", max_tokens,
                           "; nothing is left to generate");
  }
  const bool prefill_only = kind == SequenceKind::kPrefillOnly;
  const int64_t needed = pool_.BlocksFor(prefill_only ? prompt + generated : prompt + max_tokens - 1);
  if (needed > pool_.num_blocks()) {
    const std::string text = Cat("prompt of ", prompt, " tokens, ", generated, " generated, max_tokens ", max_tokens,
                                 " need ", needed, " KV blocks of ", pool_.block_size(), " tokens; this worker has ",
                                 pool_.num_blocks(), "; use a larger cache (--kv-cache-gib) or ask for less");
    return prefill_only ? ResourceExhausted(text) : InvalidArgument(text);
  }
  return absl::OkStatus();
}

Sequence& Scheduler::Insert(SequenceId id, Request request, SequenceKind kind) {
  auto sequence = std::make_unique<Sequence>();
  sequence->id = id;
  sequence->kind = kind;
  sequence->tokens = std::move(request.prompt);
  sequence->prompt_length = sequence->length();
  sequence->tokens.insert(sequence->tokens.end(), request.generated.begin(), request.generated.end());
  sequence->first_position = sequence->generated();
  // With a replay, the client has them: they came with the first token.
  sequence->prompt_logprobs = request.sampling.prompt_logprobs && request.generated.empty();
  sequence->request = std::move(request);
  sequence->request.prompt.clear();
  sequence->request.generated.clear();
  sequence->arrival = next_arrival_++;
  sequence->added_us = clock_us_;
  if (options_.prefix_caching) {
    sequence->root = RootHash(options_.hash_secret, options_.fingerprint, sequence->request.cache_salt);
  }
  ExtendHashes(*sequence);
  return *(sequences_[id] = std::move(sequence));
}

absl::Status Scheduler::Add(SequenceId id, Request request, SequenceKind kind) {
  if (kind == SequenceKind::kRemote) {
    return InvalidArgument("a remote sequence is added by ReserveRemote and AddPrefilled");
  }
  BATON_RETURN_IF_ERROR(Validate(id, request, kind));
  waiting_.Push(&Insert(id, std::move(request), kind));
  return absl::OkStatus();
}

absl::StatusOr<Sequence*> Scheduler::FindInState(SequenceId id, SequenceState state, std::string_view call) {
  const auto found = sequences_.find(id);
  if (found == sequences_.end() || found->second->ended) {
    return NotFound(call, ": sequence ", id.value, " is unknown, finished or aborted");
  }
  if (found->second->state != state) {
    return FailedPrecondition(call, ": sequence ", id.value, " is in state ", static_cast<int>(found->second->state),
                              ", expected ", static_cast<int>(state));
  }
  return found->second.get();
}

absl::Status Scheduler::Abort(SequenceId id) {
  const auto found = sequences_.find(id);
  if (found == sequences_.end() || found->second->ended) {
    return NotFound("abort: sequence ", id.value, " is unknown, finished or aborted");
  }
  Sequence& sequence = *found->second;
  if (sequence.state == SequenceState::kReserved) {
    return FailedPrecondition("abort: blocks of sequence ", id.value,
                              " are reserved for a peer's writes; use AbandonRemote, which says whether to fence them");
  }
  End(sequence);
  return absl::OkStatus();
}

absl::Status Scheduler::Release(SequenceId id) {
  BATON_ASSIGN_OR_RETURN(Sequence * sequence, FindInState(id, SequenceState::kHeld, "release"));
  Erase(*sequence);
  return absl::OkStatus();
}

// Forgets a sequence, once no step in flight writes its blocks.
void Scheduler::End(Sequence& sequence) {
  sequence.ended = true;
  if (sequence.in_flight == 0) Erase(sequence);
}

// Takes a sequence out of wherever it is, frees its blocks and forgets it.
void Scheduler::Erase(Sequence& sequence) {
  switch (sequence.state) {
    case SequenceState::kWaiting:
      if (!waiting_.Remove(&sequence)) std::erase_if(parked_, [&](const Parked& p) { return p.sequence == &sequence; });
      break;
    case SequenceState::kRunning:
      std::erase(running_, &sequence);
      break;
    case SequenceState::kHeld:
      --held_;
      break;
    case SequenceState::kReserved:
      --reserved_;
      break;
  }
  FreeBlocks(sequence);
  sequences_.erase(SequenceId(sequence.id));
}

// A reservation must not take what the next waiting sequence needs, or that one might never run.
bool Scheduler::LeavesRoomForWaiting(const Request& request, int32_t blocks_needed) const {
  const Sequence* front = waiting_.Front();
  const int32_t slots = options_.max_sequences - static_cast<int32_t>(running_.size()) - reserved_;
  if (front == nullptr || request.priority < front->request.priority) {
    return slots >= 1 && pool_.Available() >= blocks_needed;
  }
  return slots >= 2 && pool_.Available() >= blocks_needed + BlocksToAdmit(*front);
}

absl::StatusOr<RemoteReservation> Scheduler::ReserveRemote(SequenceId id, Request request) {
  BATON_RETURN_IF_ERROR(Validate(id, request, SequenceKind::kRemote));
  Sequence& sequence = Insert(id, std::move(request), SequenceKind::kRemote);
  sequence.state = SequenceState::kReserved;
  ++reserved_;
  sequence.blocks = pool_.MatchPrefix(UsableHashes(sequence), sequence.tokens);
  const int32_t hits = static_cast<int32_t>(sequence.blocks.size());
  const int32_t needed = BlocksToAdmit(sequence) - hits;
  --reserved_;  // not a rival of itself
  const bool fits = LeavesRoomForWaiting(sequence.request, needed);
  ++reserved_;
  if (!fits) {
    const absl::Status status =
        ResourceExhausted("no room to reserve ", needed, " KV blocks (", pool_.Available(), " of ", pool_.num_blocks(),
                          " available) for one of at most ", options_.max_sequences, " sequences: ", running_.size(),
                          " running, ", reserved_ - 1, " reserved, ", waiting_.size(), " waiting; try again later");
    Erase(sequence);
    return status;
  }
  const std::vector<BlockId> fresh = *pool_.Allocate(needed);
  sequence.blocks.insert(sequence.blocks.end(), fresh.begin(), fresh.end());
  sequence.named_blocks = hits;
  sequence.cached_tokens = std::min(hits * pool_.block_size(), sequence.prompt_length);
  pool_.RecordLookup(sequence.length(), hits * pool_.block_size());
  return RemoteReservation{sequence.blocks, hits * pool_.block_size()};
}

absl::StatusOr<RemoteReservation> Scheduler::ReserveShared(SequenceId id, Request request,
                                                           std::span<const BlockId> blocks, int32_t cached_tokens) {
  BATON_RETURN_IF_ERROR(Validate(id, request, SequenceKind::kRemote));
  const int64_t tokens = static_cast<int64_t>(request.prompt.size() + request.generated.size());
  if (static_cast<int64_t>(blocks.size()) != pool_.BlocksFor(tokens)) {
    return InvalidArgument("reserve shared: expected ", pool_.BlocksFor(tokens), " blocks for ", tokens,
                           " tokens, found ", blocks.size());
  }
  // No claim on memory: the blocks are taken already, and what decoding adds may preempt. Only a place must be free.
  if (static_cast<int32_t>(running_.size()) + reserved_ >= options_.max_sequences) {
    return ResourceExhausted("all ", options_.max_sequences, " sequences run or are reserved; try again later");
  }
  Sequence& sequence = Insert(id, std::move(request), SequenceKind::kRemote);
  sequence.state = SequenceState::kReserved;
  ++reserved_;
  sequence.blocks.assign(blocks.begin(), blocks.end());
  sequence.named_blocks = sequence.length() / pool_.block_size();  // by the scheduler that computes them
  sequence.cached_tokens = std::min(cached_tokens, sequence.prompt_length);
  return RemoteReservation{sequence.blocks, cached_tokens};
}

absl::StatusOr<FinishReason> Scheduler::AddPrefilled(SequenceId id, std::span<const TokenId> first_tokens) {
  BATON_ASSIGN_OR_RETURN(Sequence * found, FindInState(id, SequenceState::kReserved, "add prefilled"));
  if (first_tokens.empty()) return InvalidArgument("add prefilled: at least the first token is needed, found none");
  Sequence& sequence = *found;
  sequence.computed = sequence.planned = sequence.length();
  sequence.complete_blocks = pool_.BlocksFor(sequence.computed);
  sequence.prompt_logprobs = false;  // they came with the first token
  NameFullBlocks(sequence);
  for (TokenId token : first_tokens) {
    const FinishReason finish = Append(sequence, token);
    if (finish == FinishReason::kNone) continue;
    NoteFinished(sequence);
    Erase(sequence);
    return finish;
  }
  StartArrived(sequence);
  return FinishReason::kNone;
}

// With its first tokens, of which there may be more than a reservation is for.
void Scheduler::StartArrived(Sequence& sequence) {
  --reserved_;
  StartRunning(sequence);
  const int32_t missing = pool_.BlocksFor(sequence.length()) - static_cast<int32_t>(sequence.blocks.size());
  if (missing > 0) {  // after ReserveShared, or with more than one first token
    auto more = pool_.Allocate(missing);
    if (more.ok()) {
      sequence.blocks.insert(sequence.blocks.end(), more->begin(), more->end());
    } else {
      Preempt(sequence);
    }
  }
}

absl::StatusOr<FinishReason> Scheduler::ResumeRemote(SequenceId id, std::span<const TokenId> first_tokens,
                                                     int32_t good_blocks) {
  BATON_ASSIGN_OR_RETURN(Sequence * found, FindInState(id, SequenceState::kReserved, "resume remote"));
  Sequence& sequence = *found;
  if (first_tokens.empty() || good_blocks < sequence.named_blocks ||
      good_blocks * pool_.block_size() >= sequence.length()) {
    return InvalidArgument("resume remote: expected a first token and from ", sequence.named_blocks, " to ",
                           (sequence.length() - 1) / pool_.block_size(), " good blocks, found ", first_tokens.size(),
                           " and ", good_blocks);
  }
  sequence.kind = SequenceKind::kLocal;
  sequence.computed = sequence.planned = good_blocks * pool_.block_size();
  sequence.complete_blocks = good_blocks;
  sequence.prompt_logprobs = false;  // they came with the first token
  NameFullBlocks(sequence);
  for (const TokenId token : first_tokens) {
    const FinishReason finish = Append(sequence, token);
    if (finish == FinishReason::kNone) continue;
    NoteFinished(sequence);
    Erase(sequence);
    return finish;
  }
  ExtendHashes(sequence);
  Announce(sequence);
  StartArrived(sequence);
  return FinishReason::kNone;
}

// Gives the blocks of a reservation back: its prefix hits to the cache, the others free or fenced.
std::vector<BlockId> Scheduler::DropReservation(Sequence& sequence, ReservedBlocks disposition) {
  std::vector<BlockId> fenced;
  if (disposition == ReservedBlocks::kFence) {
    fenced.assign(sequence.blocks.begin() + sequence.named_blocks, sequence.blocks.end());
    sequence.blocks.resize(sequence.named_blocks);
    for (BlockId block : fenced) pool_.Fence(block);
  }
  FreeBlocks(sequence);
  return fenced;
}

absl::StatusOr<std::vector<BlockId>> Scheduler::AbandonRemote(SequenceId id, ReservedBlocks disposition) {
  BATON_ASSIGN_OR_RETURN(Sequence * sequence, FindInState(id, SequenceState::kReserved, "abandon remote"));
  std::vector<BlockId> fenced = DropReservation(*sequence, disposition);
  Erase(*sequence);
  return fenced;
}

absl::StatusOr<std::vector<BlockId>> Scheduler::RecomputeRemote(SequenceId id, ReservedBlocks disposition) {
  BATON_ASSIGN_OR_RETURN(Sequence * sequence, FindInState(id, SequenceState::kReserved, "recompute remote"));
  std::vector<BlockId> fenced = DropReservation(*sequence, disposition);
  --reserved_;
  sequence->kind = SequenceKind::kLocal;
  sequence->state = SequenceState::kWaiting;
  sequence->cached_tokens = -1;
  waiting_.Return(sequence);
  return fenced;
}

const Sequence* Scheduler::Find(SequenceId id) const {
  const auto found = sequences_.find(id);
  return found == sequences_.end() || found->second->ended ? nullptr : found->second.get();
}

SchedulerCounts Scheduler::Counts() const {
  SchedulerCounts counts;
  counts.parked = static_cast<int32_t>(parked_.size());
  counts.waiting = waiting_.size() + counts.parked;
  counts.running = static_cast<int32_t>(running_.size());
  counts.decoding = static_cast<int32_t>(std::ranges::count_if(running_, &Sequence::decoding));
  counts.held = held_;
  counts.reserved = reserved_;
  counts.preemptions = preemptions_;
  for (const auto& [id, sequence] : sequences_) {
    const bool to_prefill = sequence->state == SequenceState::kWaiting ||
                            (sequence->state == SequenceState::kRunning && !sequence->decoding);
    if (to_prefill && !sequence->ended) counts.tokens_waiting += sequence->length() - sequence->computed;
  }
  return counts;
}

// Tokens in the KV cache when the sequence ends, as far as one can expect.
int32_t Scheduler::ExpectedLength(const Sequence& sequence) const {
  if (sequence.kind == SequenceKind::kPrefillOnly) return sequence.length();
  if (expected_generated_ < 0) return sequence.max_computed();
  // One that outlives the mean is expected to need one more block.
  const int32_t generated =
      std::max(static_cast<int32_t>(expected_generated_), sequence.generated() + pool_.block_size());
  return std::min(sequence.max_computed(), sequence.prompt_length + generated);
}

int64_t Scheduler::ExpectedFreeBlocks() const {
  int64_t result = pool_.Available();
  for (const auto& [id, sequence] : sequences_) {
    if (sequence->state == SequenceState::kHeld || sequence->ended) continue;
    const int64_t more = pool_.BlocksFor(ExpectedLength(*sequence)) - static_cast<int64_t>(sequence->blocks.size());
    result -= std::max<int64_t>(more, 0);
  }
  return result;
}

}  // namespace baton
