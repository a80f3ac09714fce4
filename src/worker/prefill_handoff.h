// The prefill worker's side of the hand-off: prompts that decode workers asked for, and the pushing of their KV blocks
// into those workers' pools, layer group by layer group, while the step that computes them is running.
//
// For each prompt it knows how many layers of each block have been computed and how many were pushed; whatever is
// computed, missing on the other side and not yet pushed goes as soon as there is a reservation. Pushes of one prompt
// end in the order in which they began, so that blocks which are computed again after a preemption overwrite what was
// pushed before.
//
// A decode worker of the same step loop shares the pool: it gets references to the blocks with Started, reserves them,
// and nothing is pushed.
//
// Threading: thread-safe. Reservations and cancellations take effect from the network's thread, in the middle of a
// step;
//   completions come from the transport's thread; the rest is called by the step loop.
// Ownership: engine memory and transports must outlive it. It never touches the block pool: what the step loop must do
//   (abort, release) it asks for through PrefillHandoffActions.
// Errors: a prompt that cannot be handed over ends with Quiesced and the reason; the decode worker then computes it
// itself.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/mutex.h"
#include "core/batch.h"
#include "core/engine.h"
#include "proto/baton.pb.h"
#include "rpc/session.h"
#include "scheduler/scheduler.h"
#include "transfer/path_probe.h"
#include "transfer/transport.h"

namespace baton {

struct PrefillHandoffOptions {
  std::string fingerprint;
  KvLayout layout;
  KvMemory memory;
  double min_path_gbps = 0;       // slower paths are refused; 0: only warned about
  int64_t hold_lease_ms = 30000;  // a prefilled prompt waits so long for its reservation
  uint64_t worker = 0;
};

// Called from any thread: they post to the step loop.
struct PrefillHandoffActions {
  std::function<void(SequenceId)> abort;    // not finished: stop computing and free
  std::function<void(SequenceId)> release;  // finished: the blocks are no longer needed
  // From the step loop's thread only: all blocks of a sequence that runs, with one more reference each.
  std::function<std::vector<BlockId>(SequenceId)> share;
};

class PrefillHandoff : public LayerGroupSink {
 public:
  using Clock = std::chrono::steady_clock;

  PrefillHandoff(Transport& transport, PrefillHandoffOptions options, PrefillHandoffActions actions);
  ~PrefillHandoff() override;

  // A decode worker introduces itself and its pool; answers with PathMeasured. Takes the time of a path measurement.
  void OnPoolOffer(const std::shared_ptr<Session>& session, const proto::PoolOffer& offer, UniqueFd fd)
      BATON_EXCLUDES(mutex_);
  // A prompt is asked for. Not OK: the decode worker has been told, and nothing is to be scheduled.
  absl::Status OnPrefill(const std::shared_ptr<Session>& session, uint64_t epoch, SequenceId sequence)
      BATON_EXCLUDES(mutex_);
  // The scheduler refused it.
  void OnRefused(SequenceId sequence, const absl::Status& why) BATON_EXCLUDES(mutex_);
  void OnReservation(const std::shared_ptr<Session>& session, const proto::Reservation& reservation)
      BATON_EXCLUDES(mutex_);
  void OnCancel(const std::shared_ptr<Session>& session, uint64_t epoch) BATON_EXCLUDES(mutex_);
  void OnSessionClosed(const std::shared_ptr<Session>& session) BATON_EXCLUDES(mutex_);

  // Before a step: tells decode workers which prompts have started. After it: first tokens.
  void OnPlan(const StepPlan& plan) BATON_EXCLUDES(mutex_);
  void OnLayersDone(const Batch& batch, int32_t layer_begin, int32_t layer_end, void* event) override
      BATON_EXCLUDES(mutex_);
  void OnFirstToken(const SequenceEvent& event) BATON_EXCLUDES(mutex_);
  void OnStepFailed(SequenceId sequence, const absl::Status& why) BATON_EXCLUDES(mutex_);
  // Gives up prompts whose reservation does not come.
  void ExpireHolds(Clock::time_point now) BATON_EXCLUDES(mutex_);

  int32_t size() const BATON_EXCLUDES(mutex_);

 private:
  struct Peer {
    std::shared_ptr<RemoteMemory> pool;  // null where the pool is shared
    bool shared_pool = false;
    absl::Status refused;
  };
  struct Prompt {
    std::shared_ptr<Session> session;
    std::shared_ptr<RemoteMemory> pool;
    bool shared_pool = false;
    uint64_t epoch = 0;
    uint64_t tag = 0;  // of its copies; unique in this process
    SequenceId sequence;
    Clock::time_point received;
    Clock::time_point started;
    bool scheduled = false;
    std::vector<BlockId> source;  // blocks here, as far as they were planned
    std::vector<BlockId> target;  // blocks there; empty until reserved
    int32_t first_missing = 0;
    int32_t complete_blocks = 0;         // computed in all layers
    int32_t chunk_end = 0;               // blocks [complete_blocks, chunk_end) are being computed,
    int32_t chunk_layers = 0;            // in so many layers so far
    std::vector<int32_t> pushed_layers;  // of each block
    bool first_token_sent = false;
    bool ending = false;  // pushes no more; Quiesced when nothing is in flight
    absl::Status end_reason;
    Clock::time_point first_token_at;
    int32_t in_flight = 0;
    void* ready = nullptr;  // the event after which what is computed is there; null: it is
    int64_t bytes = 0;
    int64_t copy_us = 0;
  };
  using PromptKey = std::pair<const Session*, uint64_t>;

  absl::StatusOr<PathReport> Accept(const proto::PoolOffer& offer, UniqueFd fd, std::shared_ptr<RemoteMemory>& pool);
  Prompt* FindLocked(const Session* session, uint64_t epoch) BATON_REQUIRES(mutex_);
  absl::Status Push(Prompt& prompt) BATON_REQUIRES(mutex_);
  std::vector<CopyRange> MissingRanges(Prompt& prompt) const BATON_REQUIRES(mutex_);
  void OnPushed(uint64_t tag, const TransferResult& result) BATON_EXCLUDES(mutex_);
  bool FullyPushed(const Prompt& prompt) const BATON_REQUIRES(mutex_);
  void MaybeFinish(Prompt& prompt) BATON_REQUIRES(mutex_);
  void End(Prompt& prompt, absl::Status reason) BATON_REQUIRES(mutex_);
  void Forget(Prompt& prompt) BATON_REQUIRES(mutex_);

  Transport& transport_;
  const PrefillHandoffOptions options_;
  const PrefillHandoffActions actions_;

  mutable Mutex mutex_;
  std::map<const Session*, Peer> peers_ BATON_GUARDED_BY(mutex_);
  std::map<uint64_t, Prompt> prompts_ BATON_GUARDED_BY(mutex_);  // by tag
  std::map<PromptKey, uint64_t> by_epoch_ BATON_GUARDED_BY(mutex_);
  std::unordered_map<SequenceId, uint64_t> by_sequence_ BATON_GUARDED_BY(mutex_);
  uint64_t next_tag_ BATON_GUARDED_BY(mutex_) = 1;
};

}  // namespace baton
