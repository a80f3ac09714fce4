// The prefill worker's side of the hand-off: prompts that decode workers asked for, and the pushing of their KV blocks
// into those workers' pools, layer group by layer group, while the step that computes them is running.
//
// PrefillSide (prefill_side.h) decides; this class feeds it events and carries its decisions out: messages, copies, and
// what the step loop must do.
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
#include <optional>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "core/batch.h"
#include "core/engine.h"
#include "proto/baton.pb.h"
#include "rpc/session.h"
#include "scheduler/scheduler.h"
#include "transfer/path_probe.h"
#include "transfer/transport.h"
#include "worker/prefill_side.h"

namespace baton {

struct PrefillHandoffOptions {
  std::string fingerprint;
  KvLayout layout;
  KvMemory memory;
  double min_path_gbps = 0;       // slower paths are refused; 0: only warned about
  int64_t hold_lease_ms = 30000;  // a prefilled prompt waits so long for its reservation
  uint64_t worker = 0;
  uint64_t incarnation = 1;
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

  // The scheduler has preempted something. A prompt that shares its blocks with its decode worker ends if it is one of
  // them, which `waits` says: the blocks are kept by the other side's references, so it might never begin again.
  void OnPreemptions(const std::function<bool(SequenceId)>& waits) BATON_EXCLUDES(mutex_);
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
    bool verify = false;  // it wants digests
    absl::Status refused;
  };
  // What goes with a prompt of side_.
  struct Prompt {
    std::shared_ptr<Session> session;
    std::shared_ptr<RemoteMemory> pool;
    bool shared_pool = false;
    bool verify = false;
    std::map<BlockId, uint64_t> digests;  // by the block there; with verify
    void* ready = nullptr;                // the event after which what is computed is there; null: it is
    uint64_t epoch = 0;
    SequenceId sequence;
    Clock::time_point received;
    Clock::time_point started;
    Clock::time_point first_token_at;
    std::optional<absl::Status> end_reason;
    int64_t bytes = 0;
    int64_t copy_us = 0;
  };
  // What a decision came from.
  struct Cause {
    absl::Status why;                      // the reason that Quiesced gives
    const SequenceEvent* event = nullptr;  // of a first token
    int32_t cached_tokens = 0;             // of a start
  };

  absl::StatusOr<PathReport> Accept(const proto::PoolOffer& offer, UniqueFd fd, std::shared_ptr<RemoteMemory>& pool);
  void EndPreempted(SequenceId sequence) BATON_REQUIRES(mutex_);
  Prompt* Find(SequenceId sequence) BATON_REQUIRES(mutex_);  // null: not one of these
  void Execute(const std::optional<PrefillDecision>& decision, const Cause& cause) BATON_REQUIRES(mutex_);
  void Act(PrefillAction action, Prompt& prompt, const PrefillDecision& decision, const Cause& cause)
      BATON_REQUIRES(mutex_);
  void Push(uint64_t tag, Prompt& prompt, const std::vector<PushPiece>& pieces) BATON_REQUIRES(mutex_);
  std::vector<CopyRange> Ranges(const std::vector<PushPiece>& pieces) const;
  // `whole`: blocks here and there whose last layers these were; their digests are wanted.
  void OnPushed(uint64_t tag, const TransferResult& result, const std::vector<PushPiece>& whole) BATON_EXCLUDES(mutex_);
  PrefillSide::Session NameOf(const std::shared_ptr<Session>& session) BATON_REQUIRES(mutex_);

  Transport& transport_;
  const PrefillHandoffOptions options_;
  const PrefillHandoffActions actions_;

  mutable Mutex mutex_;
  PrefillSide side_ BATON_GUARDED_BY(mutex_);
  std::map<const Session*, PrefillSide::Session> names_ BATON_GUARDED_BY(mutex_);  // of open sessions
  std::map<PrefillSide::Session, Peer> peers_ BATON_GUARDED_BY(mutex_);
  std::map<uint64_t, Prompt> prompts_ BATON_GUARDED_BY(mutex_);  // by tag
  PrefillSide::Session next_name_ BATON_GUARDED_BY(mutex_) = 1;
};

}  // namespace baton
