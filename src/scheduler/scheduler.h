// Continuous batching with chunked prefill under a token budget: which tokens of which sequences the next step
// computes.
//
//   while (scheduler.HasWork()) {
//     StepPlan plan = scheduler.Schedule();
//     if (plan.batch.items.empty()) { wait for something to change; continue; }
//     auto output = engine.Run(plan.batch, sink);
//     auto events = output.ok() ? scheduler.Commit(plan, *output) : scheduler.Fail(plan);
//   }
//
// With run_ahead, Schedule may be called again before the step is committed, and plans decode rows whose newest tokens
// nobody knows yet: the engine has them from the step in flight (BatchItem::sampled_by). Steps are committed in order.
//
// The rules:
//   * Decode rows first, then prefill chunks: running sequences by (priority, arrival), then waiting ones.
//   * Waiting sequences: lower priority value first; within it preempted ones by arrival; then round robin over users,
//     each user's oldest. One that does not fit stops admission, so that nothing overtakes it for ever.
//   * Admission takes all blocks of the known tokens, so only decoding grows. Growth that finds no block preempts the
//     youngest running sequence of the lowest priority: its blocks are freed and it recomputes, keeping its tokens.
//   * A step with decode rows carries at most prefill_budget prompt tokens; by default what the dial says, from latency
//     targets and step times (core/prefill_dial.h). When that starves the first prefill for prefill_patience_steps
//     steps, one step carries a whole chunk, or with the dial a block.
//   * One prefill for identical prefixes: a sequence whose next block is being computed by another waits for it, until
//     it is there or the other is gone.
//   * A prefix hit never covers the last known token: when the cache has every block of a prompt, the last block is
//     computed again into a block of its own. Shared blocks are never written. With prompt_logprobs nothing is shared.
//   * Chunks of a prefill-only sequence end at multiples of the block size, or at the prompt's end.
//   * Ahead of the step in flight go decode rows only, and only when the same step could be planned after it: not when
//   a
//     prompt could be computed, when a row needs a block that only preemption gives, or when a row's penalties count
//     the token that nobody knows. The plan is empty then, until the step in flight is committed.
//   * Whoever ends while a later step computes a row of it (an end token, a stop, an abort) keeps its blocks until that
//     step is committed; what the row samples is dropped. So no block is given away that a step in flight writes.
//   * Limits (max_tokens, max_model_len) are foreseen: no row goes beyond them.
//
// Pure: no I/O, clock, device or threads; the same calls give the same plans.
//
// Threading: none of its own: the thread of the step loop makes all calls. Between Schedule and Commit (or Fail) every
//   call is allowed; blocks of an aborted sequence that is part of the plan stay until Commit.
// Ownership: the pool must outlive the scheduler. Blocks belong to sequences: whoever reads or writes their bytes in
// the
//   background, beyond the step, takes a reference of its own (BlockPool::Ref), because preemption and Abort free them.
// Errors: InvalidArgument with all numbers for requests that can never be served; NotFound for unknown sequences;
// FailedPrecondition for calls that the sequence's state does not allow. Limits: max_sequences running or reserved at a
// time; waiting ones are bounded by the caller.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "core/batch.h"
#include "core/prefill_dial.h"
#include "core/request.h"
#include "core/step_time_factor.h"
#include "core/step_time_table.h"
#include "kv/block_pool.h"
#include "scheduler/finish.h"
#include "scheduler/sequence.h"
#include "scheduler/waiting_queue.h"

namespace baton {

struct SchedulerOptions {
  int32_t max_batch_tokens = 2048;     // of one step; at least max_sequences + block_size
  int32_t max_sequences = 64;          // of one step; running and reserved together
  int32_t prefill_chunk_tokens = 512;  // most prompt tokens of one sequence in one step; at least block_size
  int32_t prefill_budget = -1;         // prompt tokens beside decode rows; 0: none; -1: the dial
  int32_t prefill_patience_steps = 32;
  int32_t max_model_len = 2048;  // tokens, prompt included
  bool prefix_caching = true;
  bool run_ahead = false;    // plan a step while one is in flight; the engine must take it (steps_in_flight)
  uint64_t hash_secret = 0;  // of the deployment
  std::string fingerprint;   // of the engine
  std::vector<TokenId> eos;
  LatencyTargets targets;    // for the dial
  StepTimeTable step_times;  // of this worker; empty: the dial allows prefill_chunk_tokens
};

// What the hand-off needs to know about batch.items[i].
struct PlannedItem {
  SequenceKind kind = SequenceKind::kLocal;
  // Indices into the block table: blocks [complete_begin, complete_end) are final when this step is done, and were not
  // before. The first item after an admission begins at 0: those below start / block_size came from the prefix cache
  // and are final already. For a prefill the prompt's last, partial block counts as complete with the last chunk.
  int32_t complete_begin = 0;
  int32_t complete_end = 0;
};

struct StepPlan {
  uint64_t step = 0;               // number of the step; 0 for an empty plan
  Batch batch;                     // decode rows first
  std::vector<PlannedItem> items;  // [batch.items]
  int32_t decode_rows = 0;
  int32_t prefill_tokens = 0;
};
// What of a step decides how long it takes.
StepShape ShapeOf(const StepPlan& plan);

// One sampled token of one sequence.
struct SequenceEvent {
  SequenceId sequence;
  SampledToken sampled;  // unset when finish is kError
  int32_t position = 0;  // index among the generated tokens
  FinishReason finish = FinishReason::kNone;
  bool first = false;                         // the first token that was sampled here
  bool last = false;                          // no more events: finished (and forgotten), or held
  bool held = false;                          // prefill-only: its blocks wait for Release
  int32_t cached_tokens = 0;                  // prompt tokens that came from this worker's prefix cache
  std::vector<SampledToken> prompt_logprobs;  // [prompt - 1], with the first token, when asked for
};

// Blocks reserved for a prefill by another worker.
struct RemoteReservation {
  std::vector<BlockId> blocks;  // [BlocksFor(tokens + 1)]; of tokens only, when max_tokens leaves nothing to decode
  int32_t cached_tokens = 0;    // held already: the first cached_tokens / block_size blocks must not be written
};

// What becomes of reserved blocks when a remote prefill did not end well.
enum class ReservedBlocks : uint8_t {
  kFree,   // nobody writes them any more
  kFence,  // a peer could still write: fenced until BlockPool::Unfence
};

struct SchedulerCounts {
  int32_t waiting = 0;         // sequences, parked ones included
  int32_t parked = 0;          // waiting for another sequence's prefix
  int32_t running = 0;         // with blocks
  int32_t decoding = 0;        // of them
  int32_t held = 0;            // sequences
  int32_t reserved = 0;        // sequences
  int64_t tokens_waiting = 0;  // to be computed by prefill, of waiting and running sequences; cache hits not foreseen
  int64_t preemptions = 0;     // since the start
};

class Scheduler {
 public:
  static absl::StatusOr<std::unique_ptr<Scheduler>> Create(SchedulerOptions options, BlockPool& pool);
  ~Scheduler();  // frees the blocks of all sequences; abandon reserved ones before

  // Takes a new sequence (kLocal or kPrefillOnly). One with generated tokens is a replay: they are computed with the
  // prompt, and counting goes on from there. Ids are chosen by the caller and never used again.
  absl::Status Add(SequenceId id, Request request, SequenceKind kind);
  // Whether this worker could ever serve it: InvalidArgument with the numbers when not. ResourceExhausted when it is
  // only this pool that is too small to prefill it for another worker, which may have a larger one.
  absl::Status Check(const Request& request, SequenceKind kind) const;
  // Forgets a sequence, and says nothing more about it. FailedPrecondition for a reserved one: only the caller knows
  // whether a peer could still write its blocks, so that AbandonRemote must be told.
  absl::Status Abort(SequenceId id);
  // A held sequence's blocks are no longer needed.
  absl::Status Release(SequenceId id);

  // Takes blocks for a sequence that another worker prefills. ResourceExhausted when there is no room now, or when the
  // room belongs to a sequence that waits.
  absl::StatusOr<RemoteReservation> ReserveRemote(SequenceId id, Request request);
  // The same for a worker that shares this pool and computes the prompt into `blocks`, of which the caller has a
  // reference each: they become the sequence's. ResourceExhausted, when no more sequences may run now, and other errors
  // leave them with the caller. `cached_tokens`: that worker found in the prefix cache.
  absl::StatusOr<RemoteReservation> ReserveShared(SequenceId id, Request request, std::span<const BlockId> blocks,
                                                  int32_t cached_tokens);
  // All blocks have been written, and `first_tokens` (one or more) sampled: decode from here. Returns kNone, or why the
  // sequence is finished (and forgotten) already.
  absl::StatusOr<FinishReason> AddPrefilled(SequenceId id, std::span<const TokenId> first_tokens);
  // The prefill will not come. Returns the blocks that were fenced.
  absl::StatusOr<std::vector<BlockId>> AbandonRemote(SequenceId id, ReservedBlocks disposition);
  // All blocks have been written, and those from `good_blocks` on are not what was sent. The sequence keeps its blocks
  // and is computed here from there on, `first_tokens` included. Returns as AddPrefilled.
  absl::StatusOr<FinishReason> ResumeRemote(SequenceId id, std::span<const TokenId> first_tokens, int32_t good_blocks);
  // The same, and the sequence is computed here instead, in fresh blocks, ahead of younger ones.
  absl::StatusOr<std::vector<BlockId>> RecomputeRemote(SequenceId id, ReservedBlocks disposition);

  // The next step. Empty when nothing can run now, or before the step in flight is committed. Every plan that is not
  // empty must be committed or failed.
  StepPlan Schedule();
  // The results of the oldest step in flight, in the order of the batch: tokens are appended, full blocks published,
  // finish rules applied. An output of another size than the batch fails the step; any other plan does nothing.
  std::vector<SequenceEvent> Commit(const StepPlan& plan, StepOutput output);
  // A step in flight failed: its sequences end with kError and their blocks are freed, none published.
  std::vector<SequenceEvent> Fail(const StepPlan& plan);

  // So long another worker's step took on the same engine: its sequences have waited.
  void NoteOthersStep(double took_us) { clock_us_ += took_us; }

  // See SchedulerOptions; from the next step on.
  void SetPrefillBudget(int32_t tokens) { options_.prefill_budget = tokens; }

  bool HasWork() const { return !running_.empty() || waiting_.size() + static_cast<int32_t>(parked_.size()) > 0; }
  SchedulerCounts Counts() const;
  int64_t preemptions() const { return preemptions_; }  // since the start
  // Available blocks, less what running, reserved and waiting sequences are still expected to take. A sequence is
  // expected to generate as much as recent ones did, or up to its limit when none is known. May be negative.
  int64_t ExpectedFreeBlocks() const;
  // Null when unknown or aborted.
  const Sequence* Find(SequenceId id) const;
  const SchedulerOptions& options() const { return options_; }
  // As measured at the start, with what recent steps took as its factor.
  const StepTimeTable& step_times() const { return options_.step_times; }
  // Internal when sequences, queues and the pool disagree. O(sequences + blocks).
  absl::Status CheckIntegrity() const;

 private:
  enum class Admission { kAdmitted, kParked, kNoRoom };

  Scheduler(SchedulerOptions options, BlockPool& pool);

  // scheduler.cc: sequences come and go.
  absl::Status Validate(SequenceId id, const Request& request, SequenceKind kind) const;
  Sequence& Insert(SequenceId id, Request request, SequenceKind kind);
  absl::StatusOr<Sequence*> FindInState(SequenceId id, SequenceState state, std::string_view call);
  bool LeavesRoomForWaiting(const Request& request, int32_t blocks_needed) const;
  std::vector<BlockId> DropReservation(Sequence& sequence, ReservedBlocks disposition);
  void StartArrived(Sequence& sequence);
  int32_t ExpectedLength(const Sequence& sequence) const;
  void End(Sequence& sequence);
  void Erase(Sequence& sequence);

  // sequence_blocks.cc: what a sequence has in the pool.
  int32_t BlocksToAdmit(const Sequence& sequence) const;
  std::span<const BlockHash> UsableHashes(const Sequence& sequence) const;
  void ExtendHashes(Sequence& sequence) const;
  void NameFullBlocks(Sequence& sequence);
  void Announce(Sequence& sequence);
  void Unannounce(Sequence& sequence, int32_t end);
  void FreeBlocks(Sequence& sequence);
  absl::Status CheckSequence(const Sequence& sequence) const;

  // schedule.cc: what the next step computes.
  struct Chunk {
    Sequence* sequence;
    int32_t tokens;
  };
  struct Chunks {
    std::vector<Chunk> items;
    bool starved = false;  // the first prefill got nothing
  };
  bool PlansAhead() const { return !in_flight_.empty(); }
  bool EndsAtLimit(const Sequence& sequence) const;
  std::optional<std::vector<Sequence*>> ChooseDecodeRows();
  enum class Growth { kGrown, kPreempted, kWaits };
  Growth GrowForDecode(Sequence& sequence);
  void Preempt(Sequence& sequence);
  Chunks ChoosePrefills(int32_t decode_rows);
  int32_t PrefillBudget(int32_t decode_rows, std::span<Sequence* const> prefills) const;
  DialState StateForDial(int32_t decode_rows, std::span<Sequence* const> prefills) const;
  void WakeParked();
  Admission Admit(Sequence& sequence);
  const BlockHash* FindComputing(const Sequence& sequence, int32_t first_block) const;
  int32_t ChunkTokens(const Sequence& sequence, int32_t budget) const;
  void PlanItem(Sequence& sequence, int32_t count, StepPlan& plan);
  void StartRunning(Sequence& sequence);

  // commit.cc: what came of it.
  FinishReason Append(Sequence& sequence, TokenId token);
  void NoteStepTime(const StepPlan& plan, double took_us);
  void CommitItem(Sequence& sequence, const BatchItem& item, StepOutput::Item& output,
                  std::vector<SequenceEvent>& events);
  void NoteFinished(const Sequence& sequence);

  struct Parked {
    Sequence* sequence;
    BlockHash waits_for;
  };
  struct Flight {
    uint64_t step = 0;
    std::vector<Sequence*> sequences;  // [batch.items]
  };

  SchedulerOptions options_;
  StepTimeFactor step_time_factor_;
  BlockPool& pool_;
  std::unordered_map<SequenceId, std::unique_ptr<Sequence>> sequences_;
  WaitingQueue waiting_;
  std::vector<Parked> parked_;                          // taken from waiting_, in order
  std::vector<Sequence*> running_;                      // by (priority, arrival): victims of preemption are at the back
  std::deque<Flight> in_flight_;                        // plans that are not committed yet, the oldest first
  std::unordered_map<BlockHash, Sequence*> computing_;  // blocks that running prefills will publish
  uint64_t step_ = 0;
  uint64_t next_arrival_ = 0;
  int32_t held_ = 0;
  int32_t reserved_ = 0;
  int64_t preemptions_ = 0;
  double clock_us_ = 0;               // time that steps took, all together, on this engine
  int32_t starved_steps_ = 0;         // in a row in which the first prefill got no token
  double expected_generated_ = -1.0;  // moving mean of finished sequences; -1: none yet
};

}  // namespace baton
