// One worker: a scheduler on the engine and the block pool of its step loop, the sessions to front ends, and both sides
// of the hand-off. Its role (prefill, decode, hybrid) is data: any worker can do either side; the router decides.
//
// Threading: the step loop's thread owns it and everything under it; messages reach it through the inbox, except
//   reservations and cancellations of the hand-off, which take effect in the middle of a step. OnMembers from any
//   thread.
// Ownership: network, step loop and transport must outlive it.
// Errors: an engine that fails a step with Internal is poisoned: the step loop ends with that status.
// Limits: max_waiting sequences wait; more are refused with ResourceExhausted.
#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/engine.h"
#include "core/step_record.h"
#include "kv/block_pool.h"
#include "proto/baton.pb.h"
#include "rpc/envelope.h"
#include "scheduler/scheduler.h"
#include "transfer/transport.h"
#include "worker/decode_handoff.h"
#include "worker/inbox.h"
#include "worker/prefill_handoff.h"
#include "worker/rates.h"
#include "worker/recorded_steps.h"
#include "worker/step_loop.h"
#include "worker/stream_table.h"
#include "worker/watchdog.h"

namespace baton {

struct WorkerOptions {
  WorkerId id;
  uint64_t incarnation = 1;
  proto::Role role = proto::HYBRID;
  std::string process;  // "decode-0"
  std::string address;  // where it listens
  SchedulerOptions scheduler;
  double prefill_tokens_per_second = 0;  // measured at start; 0: not
  double min_path_gbps = 0;
  StepRecord* step_record = nullptr;  // says which requests a step computes, for whoever reaps this process
  size_t step_record_part = 0;        // this worker's
  int64_t last_word_ms = 30000;       // for a prefill worker to end what was cancelled, before it is reported lost
  bool verify_kv = false;      // blocks that were handed over are compared with what was sent; memory of the host only
  int32_t max_waiting = 4096;  // sequences
  WatchdogOptions watchdog;
  // The step loop or the transfer plane hangs for too long: end the process. From the network's thread.
  std::function<void(const std::string& reason)> on_stuck;
  bool mute_handoff = false;             // tests: the first process here takes prompts and never answers
  bool abort_on_leak = false;            // tests: end the process when blocks do not add up
  int32_t lose_cache_changes_every = 0;  // tests: so many-th message of changes is not sent
  std::function<void(const proto::WorkerLost&)> report_lost;
  std::function<std::optional<proto::GpuGauges>()> gpu_gauges;  // at every report; must not wait
};

class Worker : private LayerGroupSink {
 public:
  static absl::StatusOr<std::unique_ptr<Worker>> Create(Network& network, StepLoop& loop, Transport& transport,
                                                        WorkerOptions options);
  ~Worker() override;

  // After the loop has ended: stops listening and connecting. The network may go then, and after it the worker, whom
  // callbacks use.
  void Disconnect();
  void OnMembers(const proto::Members& members);
  // Names of the blocks that the prefix cache has, sorted. Waits for the step loop: while Run runs, from other threads.
  std::vector<BlockHash> PublishedBlocks();

  // ---- for the step loop ----
  const std::string& address() const { return options_.address; }
  WorkerId id() const { return options_.id; }
  // Another worker of the loop made a step.
  void NoteOthersStep(double took_us) { scheduler_->NoteOthersStep(took_us); }
  SessionEvents Accept(const std::shared_ptr<Session>& session);
  void StartWatchdog() { watchdog_.Start(); }
  void NoteProgress() { watchdog_.Progress(); }
  // Plans and submits a step. False: there is nothing to compute now, or not before the step in flight has ended.
  absl::StatusOr<bool> SubmitStep();
  // Its oldest step in flight was collected. `follows`: the device had no more to do than to wait for it.
  absl::Status FinishStep(absl::StatusOr<StepOutput> output, bool follows);
  // At the end of a turn, and after a step: what waited for room goes on, and others hear the news.
  void EndTurn();
  // How long a decode step takes at least, as recent ones show; 0 when the last step in flight is none.
  double FewestMicroseconds() const;
  bool IsIdle() const { return !scheduler_->HasWork() && decode_->size() == 0 && prefill_->size() == 0; }
  bool HoldsNothing() const;  // no stream, and no block but lent ones
  int32_t probe_blocks() const { return decode_->probe_blocks(); }
  absl::Status CheckIntegrity() const { return scheduler_->CheckIntegrity(); }
  // Something has happened since the last OnChecked.
  bool unchecked() const { return unchecked_; }
  void OnChecked(const absl::Status& status);
  // What routers must know of the pool's prefix cache. Each worker has routers of its own.
  void OnCacheChanges(const CacheEventBatch& batch);

 private:
  using Clock = std::chrono::steady_clock;

  Worker(Network& network, StepLoop& loop, const Transport& transport, WorkerOptions options);
  absl::Status Init(Transport& transport);
  proto::Hello Self() const;

  void OnFrame(const std::shared_ptr<Session>& session, std::string_view frame, UniqueFd fd);
  void OnMessage(const std::shared_ptr<Session>& session, const proto::Envelope& envelope, UniqueFd fd);
  void OnClosed(const std::shared_ptr<Session>& session);

  void OnGenerate(const std::shared_ptr<Session>& session, const proto::Generate& generate);
  void OnPrefill(const std::shared_ptr<Session>& session, const proto::Prefill& prefill);
  void CancelSequence(SequenceId sequence, FinishReason finish, const absl::Status& why);
  absl::Status Admit(SequenceId sequence, Request request, SequenceKind kind);
  absl::Status CheckTokens(const Request& request) const;
  void ExpireDeadlines();
  std::vector<BlockId> ShareBlocks(SequenceId sequence);  // all of a running one, with a reference more each

  void OnLayersDone(const Batch& batch, int32_t layer_begin, int32_t layer_end, void* event) override;
  absl::Status Finish(const StepPlan& plan, absl::StatusOr<StepOutput> output);
  void NoteScheduled(const StepPlan& plan);
  void NotePreemptions();
  void Deliver(SequenceEvent event, const absl::Status& failure);
  void OnHello(const std::shared_ptr<Session>& session);
  void SendCacheSnapshot(const std::vector<std::shared_ptr<Session>>& sessions);
  void ReportStatus(bool force);
  proto::WorkerStatus Status() const;

  Network& network_;
  StepLoop& loop_;
  Engine& engine_;
  BlockPool& pool_;
  Inbox& inbox_;
  WorkerOptions options_;
  std::unique_ptr<Scheduler> scheduler_;
  StreamTable streams_;
  Watchdog watchdog_;
  std::unique_ptr<Connector> connector_;
  ExportedMemory exported_;
  std::unique_ptr<PrefillHandoff> prefill_;
  std::unique_ptr<DecodeHandoff> decode_;
  std::unique_ptr<Listener> listener_;
  std::vector<std::shared_ptr<Session>> front_ends_;
  std::map<Clock::time_point, std::vector<SequenceId>> prefill_deadlines_;  // of prompts for other workers
  StepRates rates_;
  RecordedSteps recorded_steps_;
  uint64_t next_sequence_ = 0;
  std::deque<StepPlan> plans_;  // in flight; the engine and the sink refer to them
  uint64_t steps_ = 0;
  int64_t seen_preemptions_ = 0;
  uint64_t step_gaps_ = 0;  // between steps that followed one another, as the device saw them
  double step_gap_seconds_ = 0;
  uint64_t cache_messages_ = 0;  // of changes
  uint64_t cache_sequence_ = 0;  // number of the last change that was sent
  std::string integrity_error_;
  bool unchecked_ = true;
  std::string last_status_;
  Clock::time_point last_status_at_;
};

}  // namespace baton
