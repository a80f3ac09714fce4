// A Generator over remote workers: picks a decode worker, and a prefill worker where that pays, for each sequence;
// passes tokens on; and replays a sequence elsewhere when its worker dies, so that the client sees a pause and not an
// error.
//
// Threading: public methods from any thread, OnMembers from the network's. Sinks are called from the network's thread.
// Ownership: the metrics must outlive it. To end: Disconnect, then the network goes, whose callbacks use the router,
// then the
//   router.
// Errors: a sequence ends with kError and Unavailable after `max_attempts`, or when no worker comes back in time.
#pragma once

#include <chrono>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/metrics.h"
#include "base/mutex.h"
#include "core/generator.h"
#include "proto/baton.pb.h"
#include "router/routing_state.h"
#include "rpc/envelope.h"

namespace baton {

struct RouterOptions {
  std::string model_name;
  int32_t max_attempts = 4;               // of one sequence, the first included
  int64_t wait_for_worker_ms = 60000;     // with nobody to decode, before giving up
  int64_t max_local_prefill_tokens = -1;  // of a decode worker; -1: as the dial says
  LatencyTargets targets;
  uint64_t hash_secret = 0;    // of the deployment: block names
  size_t max_decisions = 128;  // kept for GET /cluster/decisions
};

struct WorkerSnapshot {
  WorkerId id;
  uint64_t incarnation = 0;
  WorkerRole role = WorkerRole::kHybrid;
  std::string process;
  std::string state;  // "starting", "ready", "dead"
  std::string device;
  proto::WorkerStatus status;
  int64_t dispatched_prefill_tokens = 0;
  int32_t dispatched_sequences = 0;
  proto::WorkerProfile profile;
  KvIndex::WorkerStats index;  // what the router knows of its prefix cache
};

struct RouteDecision {
  std::string request;  // x-request-id
  int64_t prompt_tokens = 0;
  int32_t attempt = 1;
  std::string reason;  // "new", or why an earlier attempt ended
  Selection chosen;
  std::vector<Selection> alternatives;  // the best others, at most 3
};

class Router : public Generator {
 public:
  Router(Network& network, MetricRegistry& metrics, RouterOptions options);
  ~Router() override;

  void OnMembers(const proto::Members& members) BATON_EXCLUDES(mutex_);
  // Connects no more, and ends every sequence with Unavailable. Not from the network's thread.
  void Disconnect() BATON_EXCLUDES(mutex_);

  SequenceId Generate(Request request, TokenSink sink) override BATON_EXCLUDES(mutex_);
  void Cancel(SequenceId sequence) override BATON_EXCLUDES(mutex_);
  absl::Status Health() const override BATON_EXCLUDES(mutex_);

  std::vector<WorkerSnapshot> Workers() const BATON_EXCLUDES(mutex_);
  std::vector<RouteDecision> Decisions() const BATON_EXCLUDES(mutex_);
  // Names of the KV blocks that the index says this worker has, sorted.
  std::vector<BlockHash> IndexedBlocks(WorkerId worker) const BATON_EXCLUDES(mutex_);
  void ResetPrefixCaches() BATON_EXCLUDES(mutex_);

 private:
  using Clock = std::chrono::steady_clock;

  struct Worker {
    proto::Member member;
    std::shared_ptr<Session> session;  // null while connecting
    bool connecting = false;
    proto::WorkerStatus status;
    proto::WorkerProfile profile;
    std::unique_ptr<Timer> retry;  // of a connection that failed or broke
    bool usable() const { return session != nullptr && member.state() == proto::Member::READY; }
  };

  // One sequence, from Generate to its last event. `attempt` names it on the wire and changes with each replay.
  struct Stream {
    SequenceId handle;
    uint64_t attempt = 0;
    Request request;  // generated grows with what the client has been given
    TokenSink sink;
    std::vector<BlockHash> blocks;  // of the prompt; empty while no worker has said how it names them
    int32_t block_size = 0;         // of them, tokens
    Placement placement;            // of this attempt
    bool cancelled = false;
    int32_t attempts = 0;
    std::string reason = "new";
    Clock::time_point deadline = Clock::time_point::max();
    Clock::time_point parked_since;
  };

  struct Metrics;

  // Events are delivered after the mutex has been released.
  struct Delivery {
    TokenSink sink;
    TokenEvent event;
  };
  using Deliveries = std::vector<Delivery>;

  void Connect(Worker& worker) BATON_REQUIRES(mutex_);
  void OnConnected(WorkerId id, uint64_t incarnation, absl::StatusOr<std::shared_ptr<Session>> session);
  void OnFrame(WorkerId id, uint64_t incarnation, std::string_view frame);
  void ConnectLater(WorkerId id, uint64_t incarnation) BATON_REQUIRES(mutex_);
  void OnWorkerGone(WorkerId id, uint64_t incarnation, const std::string& reason);
  void LoseWorker(Worker& worker, const std::string& reason, Deliveries& deliveries) BATON_REQUIRES(mutex_);
  void OnTokens(const proto::Tokens& tokens, Deliveries& deliveries) BATON_REQUIRES(mutex_);
  void OnUpdate(Stream& stream, TokenEvent event, Deliveries& deliveries) BATON_REQUIRES(mutex_);
  void OnStatus(Worker& worker, const proto::WorkerStatus& status) BATON_REQUIRES(mutex_);
  void OnProfile(Worker& worker, const proto::WorkerProfile& profile) BATON_REQUIRES(mutex_);
  void OnCacheChanges(Worker& worker, const proto::CacheChanges& message) BATON_REQUIRES(mutex_);
  void OnCacheSnapshot(Worker& worker, const proto::CacheSnapshot& message) BATON_REQUIRES(mutex_);
  void AskForSnapshot(const Worker& worker) BATON_REQUIRES(mutex_);
  // After any change of a worker: it is a candidate with its newest figures, or none.
  void SyncView(const Worker& worker) BATON_REQUIRES(mutex_);

  void Dispatch(Stream& stream, Deliveries& deliveries) BATON_REQUIRES(mutex_);
  bool TryDispatch(Stream& stream) BATON_REQUIRES(mutex_);
  void NameBlocks(Stream& stream) BATON_REQUIRES(mutex_);
  RouteRequest RouteFor(const Stream& stream) const;
  void Record(const Stream& stream, std::vector<Selection> ranked) BATON_REQUIRES(mutex_);
  void RetryOrFail(Stream& stream, const absl::Status& why, Deliveries& deliveries) BATON_REQUIRES(mutex_);
  void DispatchParked(Deliveries& deliveries) BATON_REQUIRES(mutex_);
  void Undispatch(Stream& stream) BATON_REQUIRES(mutex_);
  void Finish(Stream& stream, TokenEvent event, Deliveries& deliveries) BATON_REQUIRES(mutex_);
  void ArmSweep() BATON_REQUIRES(mutex_);
  static void Deliver(Deliveries deliveries);

  Network& network_;
  const RouterOptions options_;
  std::unique_ptr<Metrics> metrics_;
  std::unique_ptr<Connector> connector_;

  mutable Mutex mutex_;
  std::map<WorkerId, Worker> workers_ BATON_GUARDED_BY(mutex_);
  std::unordered_map<uint64_t, std::unique_ptr<Stream>> streams_ BATON_GUARDED_BY(mutex_);  // by handle
  std::unordered_map<uint64_t, Stream*> attempts_ BATON_GUARDED_BY(mutex_);                 // by attempt
  std::deque<uint64_t> parked_ BATON_GUARDED_BY(mutex_);  // handles that wait for a worker
  std::deque<RouteDecision> decisions_ BATON_GUARDED_BY(mutex_);
  RoutingState routing_ BATON_GUARDED_BY(mutex_);
  uint64_t next_name_ BATON_GUARDED_BY(mutex_) = 1;
  std::unique_ptr<Timer> sweep_ BATON_GUARDED_BY(mutex_);
};

}  // namespace baton
