// Workers: connecting, losing, their status.
#include <algorithm>
#include <utility>

#include "base/log.h"
#include "router/router.h"
#include "router/router_metrics.h"

namespace baton {
namespace {

constexpr int64_t kConnectTimeoutMs = 2000;
constexpr int64_t kConnectAgainMs = 200;

const char* StateName(proto::Member::State state) {
  switch (state) {
    case proto::Member::READY:
      return "ready";
    case proto::Member::DEAD:
      return "dead";
    default:
      return "starting";
  }
}

}  // namespace

std::string Router::StateOf(const Worker& worker) {
  if (worker.member.state() != proto::Member::READY) return StateName(worker.member.state());
  if (worker.session == nullptr) return "connecting";
  if (!worker.suspected.empty()) return "suspected";
  return worker.wedged.empty() ? "ready" : "wedged";
}

void Router::OnMembers(const proto::Members& members) {
  Deliveries deliveries;
  {
    MutexLock lock(mutex_);
    for (const proto::Member& member : members.members()) {
      Worker& worker = workers_[{member.worker()}];
      if (worker.member.incarnation() != member.incarnation() || member.state() == proto::Member::DEAD) {
        LoseWorker(worker, Cat(member.process(), " died"), deliveries);
        worker.status.Clear();
        worker.connecting = worker.closed_early = false;  // that was another incarnation
        worker.suspected.clear();
        worker.wedged.clear();
      }
      worker.member = member;
      if (member.state() == proto::Member::DEAD) OnDeath(member, deliveries);
      if (member.state() == proto::Member::READY && worker.session == nullptr && !worker.connecting) Connect(worker);
    }
  }
  Deliver(std::move(deliveries));
}

void Router::Connect(Worker& worker) {
  if (connector_ == nullptr) return;  // stopping
  worker.connecting = true;
  const WorkerId id{worker.member.worker()};
  const uint64_t incarnation = worker.member.incarnation();
  SessionEvents events{
      .on_frame = [this, id, incarnation](std::string_view frame, UniqueFd) { OnFrame(id, incarnation, frame); },
      .on_closed =
          [this, id, incarnation](absl::Status why) {
            if (absl::IsDeadlineExceeded(why)) ReportLost(id, incarnation, why);
            OnWorkerGone(id, incarnation, std::string(Message(why)));
          },
      .watched = true,
      .on_health = [this, id, incarnation](PeerHealth health,
                                           const std::string& why) { OnHealth(id, incarnation, health, why); }};
  connector_->Connect(worker.member.address(), std::move(events), kConnectTimeoutMs,
                      [this, id, incarnation](auto session) { OnConnected(id, incarnation, std::move(session)); });
}

void Router::OnConnected(WorkerId id, uint64_t incarnation, absl::StatusOr<std::shared_ptr<Session>> session) {
  Deliveries deliveries;
  {
    MutexLock lock(mutex_);
    Worker& worker = workers_[id];
    if (worker.member.incarnation() != incarnation) return;
    worker.connecting = false;
    const bool closed = std::exchange(worker.closed_early, false);
    if (closed && session.ok()) return ConnectLater(id, incarnation);
    if (!session.ok()) {
      LogWarning("cannot reach ", worker.member.process(), ": ", Message(session.status()));
      return ConnectLater(id, incarnation);
    }
    worker.session = *std::move(session);
    proto::Envelope hello;
    hello.mutable_hello()->set_process("frontend");
    SendEnvelope(*worker.session, hello);
  }
  Deliver(std::move(deliveries));
}

// For a worker that lives but cannot be reached; one that has died comes back as another incarnation.
void Router::ConnectLater(WorkerId id, uint64_t incarnation) {
  workers_[id].retry = network_.RunAfter(kConnectAgainMs, [this, id, incarnation] {
    MutexLock lock(mutex_);
    Worker& worker = workers_[id];
    const bool same = worker.member.incarnation() == incarnation && worker.member.state() == proto::Member::READY;
    if (same && worker.session == nullptr && !worker.connecting) Connect(worker);
  });
}

void Router::OnFrame(WorkerId id, uint64_t incarnation, std::string_view frame) {
  proto::Envelope envelope;
  if (const absl::Status parsed = ParseEnvelope(frame, envelope); !parsed.ok()) {
    LogError("worker ", id.value, ": ", Message(parsed));
    return;
  }
  Deliveries deliveries;
  {
    MutexLock lock(mutex_);
    Worker& worker = workers_[id];
    if (worker.member.incarnation() != incarnation) return;
    if (envelope.has_tokens()) OnTokens(envelope.tokens(), deliveries);
    if (envelope.has_wedged()) OnWedged(worker, envelope.wedged().reason(), deliveries);
    if (envelope.has_status()) {
      OnStatus(worker, envelope.status());
      if (!parked_.empty() || !quarantined_.empty()) Sweep(deliveries);
    }
  }
  Deliver(std::move(deliveries));
}

void Router::OnStatus(Worker& worker, const proto::WorkerStatus& status) {
  metrics_->Update(std::to_string(worker.member.worker()), worker.status, status);
  worker.status = status;
}

void Router::OnWorkerGone(WorkerId id, uint64_t incarnation, const std::string& reason) {
  Deliveries deliveries;
  {
    MutexLock lock(mutex_);
    Worker& worker = workers_[id];
    if (worker.member.incarnation() != incarnation) return;
    worker.closed_early = worker.connecting;
    LoseWorker(worker, Cat("lost ", worker.member.process(), " (", reason, ")"), deliveries);
    ConnectLater(id, incarnation);
  }
  Deliver(std::move(deliveries));
}

// A lost session ends every request on it; the members' next change says whether the worker is really gone.
void Router::LoseWorker(Worker& worker, const std::string& reason, Deliveries& deliveries) {
  if (worker.session == nullptr) return;
  if (worker.usable() && worker.member.role() != proto::PREFILL) last_able_ = Clock::now();
  worker.session->Close();
  worker.session.reset();
  worker.suspected.clear();
  worker.wedged.clear();
  worker.alone = 0;
  const WorkerId id{worker.member.worker()};
  index_.Forget(id);
  metrics_->workers_lost.Add(1);
  std::vector<Stream*> lost;
  for (auto& [attempt, stream] : attempts_) {
    if (stream->decode == id) {
      lost.push_back(stream);
    } else if (stream->prefill == id && !stream->has_first_token) {
      Expose(*stream, id);  // its decode worker goes on with it
    }
  }
  std::sort(lost.begin(), lost.end(), [](const Stream* a, const Stream* b) { return a->handle < b->handle; });
  for (Stream* stream : lost) {
    Expose(*stream, id);
    Undispatch(*stream);
    HoldForCause(*stream, id);
    Replay(*stream, reason, deliveries);
  }
  worker.prefill_tokens = 0;
  worker.sequences = 0;
}

void Router::ReportLost(WorkerId id, uint64_t incarnation, const absl::Status& why) {
  if (!options_.report_lost) return;
  proto::WorkerLost lost;
  lost.set_worker(id.value);
  lost.set_incarnation(incarnation);
  lost.set_reason(std::string(Message(why)));
  options_.report_lost(lost);
}

absl::Status Router::Health() const {
  MutexLock lock(mutex_);
  std::string wedged;
  for (const auto& [id, worker] : workers_) {
    if (!worker.wedged.empty()) wedged += Cat(wedged.empty() ? "" : ", ", worker.member.process(), ": ", worker.wedged);
  }
  return wedged.empty() ? CanServe() : Unavailable(wedged);
}

absl::Status Router::Admits() const {
  MutexLock lock(mutex_);
  const absl::Status status = CanServe();
  const auto now = Clock::now();
  if (status.ok()) last_able_ = now;
  return now - last_able_ < std::chrono::milliseconds(options_.outage_patience_ms) ? absl::OkStatus() : status;
}

absl::Status Router::CanServe() const {
  std::string reasons;
  for (const auto& [id, worker] : workers_) {
    if (worker.member.role() == proto::PREFILL) continue;
    if (worker.usable()) return absl::OkStatus();
    reasons += Cat(reasons.empty() ? "" : ", ", worker.member.process(), " is ", StateOf(worker));
    if (!worker.suspected.empty()) reasons += Cat(" (", worker.suspected, ")");
  }
  return Unavailable(reasons.empty() ? "no worker has been started yet" : reasons);
}

std::vector<WorkerSnapshot> Router::Workers() const {
  MutexLock lock(mutex_);
  std::vector<WorkerSnapshot> snapshots;
  for (const auto& [id, worker] : workers_) {
    snapshots.push_back({.id = id,
                         .incarnation = worker.member.incarnation(),
                         .role = static_cast<WorkerRole>(worker.member.role()),
                         .process = worker.member.process(),
                         .state = StateOf(worker),
                         .reason = worker.suspected.empty() ? worker.wedged : worker.suspected,
                         .device = worker.member.device(),
                         .status = worker.status,
                         .dispatched_prefill_tokens = worker.prefill_tokens,
                         .dispatched_sequences = worker.sequences});
  }
  return snapshots;
}

std::vector<RouteDecision> Router::Decisions() const {
  MutexLock lock(mutex_);
  return {decisions_.begin(), decisions_.end()};
}

void Router::ResetPrefixCaches() {
  MutexLock lock(mutex_);
  index_.Clear();
  proto::Envelope envelope;
  envelope.mutable_reset_prefix_cache();
  for (auto& [id, worker] : workers_) {
    if (worker.session != nullptr) SendEnvelope(*worker.session, envelope);
  }
}

}  // namespace baton
