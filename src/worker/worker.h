// One worker: an engine with its block pool, scheduler and step loop, the sessions to front ends, and both sides of the
// hand-off. Its role (prefill, decode, hybrid) is data: any worker can do either side; the router decides.
//
// Threading: Run owns the step loop and everything under it; messages reach it through the inbox, except reservations
// and
//   cancellations of the hand-off, which take effect in the middle of a step. Stop and OnMembers from any thread.
// Ownership: network and engine must outlive it.
// Errors: an engine that fails a step with Internal is poisoned: Run returns that status, and the process should end.
// Limits: max_waiting sequences wait; more are refused with ResourceExhausted.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/engine.h"
#include "kv/block_pool.h"
#include "proto/baton.pb.h"
#include "rpc/envelope.h"
#include "scheduler/scheduler.h"
#include "transfer/transport.h"
#include "worker/decode_handoff.h"
#include "worker/inbox.h"
#include "worker/prefill_handoff.h"
#include "worker/rates.h"
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
  int32_t max_waiting = 4096;  // sequences
  WatchdogOptions watchdog;
  // The step loop or the transfer plane hangs for too long: end the process. From the network's thread.
  std::function<void(const std::string& reason)> on_stuck;
  bool abort_on_leak = false;            // tests: end the process when blocks do not add up
  int32_t cache_event_capacity = 65536;  // changes of the prefix cache that wait for a step's end
  int32_t lose_cache_changes_every = 0;  // tests: so many-th message of changes is not sent
  std::function<void(const proto::WorkerLost&)> report_lost;
};

class Worker : private LayerGroupSink {
 public:
  static absl::StatusOr<std::unique_ptr<Worker>> Create(Network& network, Engine& engine, Transport& transport,
                                                        WorkerOptions options);
  ~Worker() override;

  // Serves until Stop, or until the engine is broken.
  absl::Status Run();
  void Stop();
  // After Run: stops listening and connecting. The network may go then, and after it the worker, whom callbacks use.
  void Disconnect();
  void OnMembers(const proto::Members& members);
  // Names of the blocks that the prefix cache has, sorted. Waits for the step loop: while Run runs, from other threads.
  std::vector<BlockHash> PublishedBlocks();

 private:
  using Clock = std::chrono::steady_clock;

  Worker(Network& network, Engine& engine, Transport& transport, WorkerOptions options);
  absl::Status Init(Transport& transport);
  proto::Hello Self() const;

  SessionEvents Accept(const std::shared_ptr<Session>& session);
  void OnFrame(const std::shared_ptr<Session>& session, std::string_view frame, UniqueFd fd);
  void OnMessage(const std::shared_ptr<Session>& session, const proto::Envelope& envelope, UniqueFd fd);
  void OnClosed(const std::shared_ptr<Session>& session);

  void OnGenerate(const std::shared_ptr<Session>& session, const proto::Generate& generate);
  void OnPrefill(const std::shared_ptr<Session>& session, const proto::Prefill& prefill);
  void CancelSequence(SequenceId sequence, FinishReason finish, const absl::Status& why);
  absl::Status Admit(SequenceId sequence, Request request, SequenceKind kind);
  absl::Status CheckTokens(const Request& request) const;
  void ExpireDeadlines();

  void OnLayersDone(const Batch& batch, int32_t layer_begin, int32_t layer_end, void* event) override;
  absl::StatusOr<bool> Step();  // false: there was nothing to do
  void NoteScheduled(const StepPlan& plan);
  void Deliver(SequenceEvent event, const absl::Status& failure);
  void WhenIdle();
  void OnHello(const std::shared_ptr<Session>& session);
  void PublishCacheChanges();
  void SendCacheSnapshot(const std::vector<std::shared_ptr<Session>>& sessions);
  void ReportStatus(bool force);
  proto::WorkerStatus Status() const;

  Network& network_;
  Engine& engine_;
  WorkerOptions options_;
  BlockPool pool_;
  std::unique_ptr<Scheduler> scheduler_;
  StreamTable streams_;
  Inbox inbox_;
  Watchdog watchdog_;
  std::unique_ptr<Connector> connector_;
  ExportedMemory exported_;
  std::unique_ptr<PrefillHandoff> prefill_;
  std::unique_ptr<DecodeHandoff> decode_;
  std::unique_ptr<Listener> listener_;
  std::vector<std::shared_ptr<Session>> front_ends_;
  std::map<Clock::time_point, std::vector<SequenceId>> prefill_deadlines_;  // of prompts for other workers
  StepRates rates_;
  uint64_t next_sequence_ = 0;
  uint64_t steps_ = 0;
  bool after_step_ = false;  // the last turn of the loop ran a step
  uint64_t step_gaps_ = 0;   // between such steps, as the device saw them
  double step_gap_seconds_ = 0;
  uint64_t cache_messages_ = 0;  // of changes
  uint64_t cache_sequence_ = 0;  // number of the last change that was sent
  std::string integrity_error_;
  bool checked_when_idle_ = false;
  std::string last_status_;
  Clock::time_point last_status_at_;
  std::atomic<bool> stopping_ = false;
};

}  // namespace baton
