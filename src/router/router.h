// A Generator over remote workers: picks a decode worker, and a prefill worker where that pays, for each sequence;
// passes tokens on; and replays a sequence elsewhere when its worker dies, so that the client sees a pause and not an
// error.
//
// Workers are watched by heart-beats (rpc/peer_watch.h), and say themselves when their step loop hangs. One that is
// suspected or wedged gets nothing new, and its sequences move at once; it comes back when it is heard again. One that
// is lost is reported, to be killed. A sequence that was there when two workers died by their own doing runs alone, and
// is refused when a third one dies of it.
//
// Threading: public methods from any thread, OnMembers from the network's. Sinks are called from the network's thread.
// Ownership: the metrics must outlive it. To end: Disconnect, then the network goes, whose callbacks use the router,
// then the
//   router.
// Errors: a sequence ends with kError and Unavailable after `max_attempts` that workers gave up, or when no worker
// comes
//   back in time; with Internal when workers die of it; with DeadlineExceeded when its time is up before any took it.
#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/metrics.h"
#include "base/mutex.h"
#include "core/generator.h"
#include "proto/baton.pb.h"
#include "router/death_record.h"
#include "router/routing_state.h"
#include "rpc/envelope.h"

namespace baton {

struct RouterOptions {
  std::string model_name;
  int32_t max_attempts = 4;               // of one sequence that workers give up; deaths do not count
  int64_t wait_for_worker_ms = 60000;     // with nobody to decode, before giving up
  int64_t max_local_prefill_tokens = -1;  // of a decode worker; -1: as the dial says
  LatencyTargets targets;
  uint64_t hash_secret = 0;            // of the deployment: block names
  size_t max_decisions = 128;          // kept for GET /cluster/decisions
  int64_t outage_patience_ms = 10000;  // with nobody to decode, new requests wait so long instead of being refused
  int64_t wait_for_cause_ms = 2000;    // of a death, before a sequence that may have caused it goes on
  // A worker is lost: whoever can, ends its process. From the network's thread.
  std::function<void(const proto::WorkerLost&)> report_lost;
};

struct WorkerSnapshot {
  WorkerId id;
  uint64_t incarnation = 0;
  WorkerRole role = WorkerRole::kHybrid;
  std::string process;
  std::string state;   // "starting", "ready", "suspected", "wedged", "dead"
  std::string reason;  // of "suspected" and "wedged"
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
  // Not OK when nobody can decode, or when some worker is wedged.
  absl::Status Health() const override BATON_EXCLUDES(mutex_);
  absl::Status Admits() const override BATON_EXCLUDES(mutex_);

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
    bool closed_early = false;  // before it was known to be open
    proto::WorkerStatus status;
    proto::WorkerProfile profile;
    std::unique_ptr<Timer> retry;  // of a connection that failed or broke
    std::string suspected;         // why; empty: it is not
    std::string wedged;            // likewise, in its own words
    uint64_t alone = 0;            // handle of the only sequence that it may take; 0: any
    bool well() const { return suspected.empty() && wedged.empty(); }
    bool usable() const { return session != nullptr && member.state() == proto::Member::READY && well(); }
  };

  // One sequence, from Generate to its last event. `attempt` names it on the wire and changes with each replay.
  struct Stream {
    SequenceId handle;
    uint64_t attempt = 0;
    Request request;                        // generated grows with what the client has been given
    std::shared_ptr<const TokenSink> sink;  // shared with its deliveries
    std::vector<BlockHash> blocks;          // of the prompt; empty while no worker has said how it names them
    int32_t block_size = 0;                 // of them, tokens
    Placement placement;                    // of this attempt
    int64_t attempt_tokens = 0;             // of this attempt; the second one shows that the hand-off is over
    bool cancelled = false;
    int32_t attempts = 0;
    int32_t given_up = 0;  // attempts that a worker gave up
    DeathRecord deaths;
    bool quarantined = false;          // to be run alone
    std::optional<WorkerId> alone_on;  // where that was tried last
    uint64_t alone_on_incarnation = 0;
    Clock::time_point held_until;  // not dispatched before
    // Held back until it is known how this worker ended, at the latest then.
    std::optional<WorkerId> held_for;
    uint64_t held_for_incarnation = 0;
    std::string reason = "new";
    Clock::time_point deadline = Clock::time_point::max();
    Clock::time_point parked_since;
  };

  struct Metrics;

  // Events are delivered after the mutex has been released.
  struct Delivery {
    std::shared_ptr<const TokenSink> sink;
    TokenEvent event;
  };
  using Deliveries = std::vector<Delivery>;

  void Connect(Worker& worker) BATON_REQUIRES(mutex_);
  void OnConnected(WorkerId id, uint64_t incarnation, absl::StatusOr<std::shared_ptr<Session>> session);
  void OnFrame(WorkerId id, uint64_t incarnation, std::string_view frame);
  void ConnectLater(WorkerId id, uint64_t incarnation) BATON_REQUIRES(mutex_);
  void OnWorkerGone(WorkerId id, uint64_t incarnation, const std::string& reason);
  void ReportLost(WorkerId id, uint64_t incarnation, const absl::Status& why);
  absl::Status CanServe() const BATON_REQUIRES(mutex_);
  static std::string StateOf(const Worker& worker);
  void LoseWorker(Worker& worker, const std::string& reason, Deliveries& deliveries) BATON_REQUIRES(mutex_);

  // router_health.cc: workers that live and do not work.
  void OnHealth(WorkerId id, uint64_t incarnation, PeerHealth health, const std::string& why);
  void OnWedged(Worker& worker, const std::string& reason, Deliveries& deliveries) BATON_REQUIRES(mutex_);
  void OnFitness(Worker& worker, bool was_well, const std::string& why, Deliveries& deliveries) BATON_REQUIRES(mutex_);
  void MoveStreams(Worker& worker, const std::string& why, Deliveries& deliveries) BATON_REQUIRES(mutex_);
  void SendCancel(const Stream& stream) BATON_REQUIRES(mutex_);

  // router_quarantine.cc: sequences of which workers may die.
  void OnDeath(const proto::Member& member, Deliveries& deliveries) BATON_REQUIRES(mutex_);
  void Expose(Stream& stream, WorkerId worker) BATON_REQUIRES(mutex_);
  void HoldForCause(Stream& stream, WorkerId worker) BATON_REQUIRES(mutex_);
  void Quarantine(Stream& stream) BATON_REQUIRES(mutex_);
  void RunQuarantined(Deliveries& deliveries) BATON_REQUIRES(mutex_);
  Worker* ChooseAlone(uint64_t handle) BATON_REQUIRES(mutex_);
  void LeaveQuarantine(const Stream& stream) BATON_REQUIRES(mutex_);
  void RefuseDeadly(Stream& stream, Deliveries& deliveries) BATON_REQUIRES(mutex_);
  absl::Status CheckDeadly(const Request& request) const BATON_REQUIRES(mutex_);
  void OnTokens(const proto::Tokens& tokens, Deliveries& deliveries) BATON_REQUIRES(mutex_);
  void OnUpdate(Stream& stream, TokenEvent event, Deliveries& deliveries) BATON_REQUIRES(mutex_);
  void OnStatus(Worker& worker, const proto::WorkerStatus& status) BATON_REQUIRES(mutex_);
  void OnProfile(Worker& worker, const proto::WorkerProfile& profile) BATON_REQUIRES(mutex_);
  void OnCacheChanges(Worker& worker, const proto::CacheChanges& message) BATON_REQUIRES(mutex_);
  void OnCacheSnapshot(Worker& worker, const proto::CacheSnapshot& message) BATON_REQUIRES(mutex_);
  void AskForSnapshot(const Worker& worker) BATON_REQUIRES(mutex_);
  // After any change of a worker: it is a candidate with its newest figures, or none.
  void SyncView(const Worker& worker) BATON_REQUIRES(mutex_);
  int32_t Sequences(const Worker& worker) const BATON_REQUIRES(mutex_);  // dispatched for decoding, not finished

  void Dispatch(Stream& stream, Deliveries& deliveries) BATON_REQUIRES(mutex_);
  bool TryDispatch(Stream& stream) BATON_REQUIRES(mutex_);
  void NameBlocks(Stream& stream) BATON_REQUIRES(mutex_);
  void Send(Stream& stream, std::vector<Selection> ranked) BATON_REQUIRES(mutex_);
  RouteRequest RouteFor(const Stream& stream) const;
  void Record(const Stream& stream, std::vector<Selection> ranked) BATON_REQUIRES(mutex_);
  void RetryOrFail(Stream& stream, const absl::Status& why, Deliveries& deliveries) BATON_REQUIRES(mutex_);
  void Replay(Stream& stream, const std::string& why, Deliveries& deliveries) BATON_REQUIRES(mutex_);
  void DispatchParked(Deliveries& deliveries) BATON_REQUIRES(mutex_);
  void Undispatch(Stream& stream) BATON_REQUIRES(mutex_);
  void Finish(Stream& stream, TokenEvent event, Deliveries& deliveries) BATON_REQUIRES(mutex_);
  void ArmSweep() BATON_REQUIRES(mutex_);
  void Sweep(Deliveries& deliveries) BATON_REQUIRES(mutex_);
  static void Deliver(Deliveries deliveries);

  Network& network_;
  const RouterOptions options_;
  std::unique_ptr<Metrics> metrics_;
  std::unique_ptr<Connector> connector_;

  mutable Mutex mutex_;
  std::map<WorkerId, Worker> workers_ BATON_GUARDED_BY(mutex_);
  std::unordered_map<uint64_t, std::unique_ptr<Stream>> streams_ BATON_GUARDED_BY(mutex_);  // by handle
  std::unordered_map<uint64_t, Stream*> attempts_ BATON_GUARDED_BY(mutex_);                 // by attempt
  std::deque<uint64_t> parked_ BATON_GUARDED_BY(mutex_);                           // handles that wait for a worker
  std::deque<uint64_t> quarantined_ BATON_GUARDED_BY(mutex_);                      // handles; the first may be running
  std::deque<std::pair<BlockHash, std::string>> deadly_ BATON_GUARDED_BY(mutex_);  // prompts, and what they did
  std::deque<RouteDecision> decisions_ BATON_GUARDED_BY(mutex_);
  RoutingState routing_ BATON_GUARDED_BY(mutex_);
  uint64_t next_name_ BATON_GUARDED_BY(mutex_) = 1;
  mutable Clock::time_point last_able_ BATON_GUARDED_BY(mutex_);  // to serve, when that was asked
  std::unique_ptr<Timer> sweep_ BATON_GUARDED_BY(mutex_);
  bool sweep_armed_ BATON_GUARDED_BY(mutex_) = false;
};

}  // namespace baton
