// Workers: connecting, losing, their status.
#include <algorithm>
#include <limits>
#include <utility>

#include "base/log.h"
#include "router/router.h"
#include "router/router_metrics.h"
#include "rpc/cache_messages.h"

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
        worker.profile.Clear();
        worker.connecting = worker.closed_early = false;  // that was another incarnation
        worker.suspected.clear();
        worker.wedged.clear();
      }
      worker.member = member;
      SyncView(worker);
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
    SyncView(worker);
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
  MessageArena arena;
  proto::Envelope& envelope = arena.Envelope();
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
    if (envelope.has_profile()) OnProfile(worker, envelope.profile());
    if (envelope.has_cache_changes()) OnCacheChanges(worker, envelope.cache_changes());
    if (envelope.has_cache_snapshot()) OnCacheSnapshot(worker, envelope.cache_snapshot());
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
  SyncView(worker);
  // The last changes may be among the lost, and none come after them.
  const WorkerId id{worker.member.worker()};
  const KvIndex::WorkerStats index = routing_.index().Stats(id);
  const bool behind = index.state == KvIndex::State::kExact && index.sequence != status.cache_sequence();
  if (behind && routing_.index().Lost(id)) AskForSnapshot(worker);
}

void Router::OnProfile(Worker& worker, const proto::WorkerProfile& profile) {
  worker.profile = profile;
  SyncView(worker);
}

void Router::OnCacheChanges(Worker& worker, const proto::CacheChanges& message) {
  const absl::StatusOr<std::vector<CacheChange>> changes = FromProto(message);
  if (!changes.ok()) LogError("from ", worker.member.process(), ": ", Message(changes.status()));
  // What cannot be read is lost like what never came.
  const WorkerId id{worker.member.worker()};
  if (changes.ok() ? routing_.index().Apply(id, message.first(), *changes) : routing_.index().Lost(id)) {
    AskForSnapshot(worker);
  }
}

void Router::AskForSnapshot(const Worker& worker) {
  if (worker.session == nullptr) return;
  LogInfo("changes of ", worker.member.process(), "'s prefix cache were lost; asking for all of it");
  proto::Envelope envelope;
  envelope.mutable_cache_snapshot_request();
  SendEnvelope(*worker.session, envelope);
}

void Router::OnCacheSnapshot(Worker& worker, const proto::CacheSnapshot& message) {
  const absl::StatusOr<std::vector<BlockHash>> blocks = DecodeHashes(message.hashes());
  if (!blocks.ok()) return LogError("from ", worker.member.process(), ": ", Message(blocks.status()));
  routing_.index().ApplySnapshot({worker.member.worker()}, message.sequence(), *blocks, message.begin(), message.end());
}

int32_t Router::Sequences(const Worker& worker) const {
  const WorkerView* view = routing_.Find({worker.member.worker()});
  return view == nullptr ? 0 : view->sequences;
}

void Router::SyncView(const Worker& worker) {
  const WorkerId id{worker.member.worker()};
  if (worker.session == nullptr) return routing_.Remove(id);
  const proto::WorkerStatus& status = worker.status;
  const proto::WorkerProfile& profile = worker.profile;
  WorkerView& view = routing_.Add(id, static_cast<WorkerRole>(worker.member.role()));
  view.available = worker.usable() && worker.alone == 0;
  view.prefill_tokens_per_second = status.prefill_tokens_per_second();
  view.decode_step_ms = status.decode_step_us() / 1000;
  view.context_tokens = status.context_tokens();
  view.free_kv_tokens = (status.blocks_free() + status.blocks_cached()) * int64_t{std::max(1, status.block_size())};
  view.kv_bytes_per_token = status.kv_bytes_per_token();
  view.paths.clear();
  for (const proto::Path& path : status.paths()) {
    view.paths.push_back({.prefill = {path.prefill_worker()},
                          .gigabytes_per_second = path.shared_pool() ? std::numeric_limits<double>::infinity()
                                                                     : path.gigabytes_per_second(),
                          .usable = path.gigabytes_per_second() >= 0});
  }
  std::ranges::sort(view.paths, {}, &PathView::prefill);
  if (profile.block_size() == 0) return;
  view.prefill_chunk_tokens = std::max(1, profile.prefill_chunk_tokens());
  view.prefill_budget = profile.prefill_budget();
  view.engine = profile.engine();
  if (!profile.has_step_times()) return;
  absl::StatusOr<StepTimeTable> times = FromProto(profile.step_times());
  if (!times.ok()) return;
  view.step_times = *std::move(times);
  if (status.step_time_factor() > 0) view.step_times.factor = status.step_time_factor();
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
  routing_.index().Forget(id);
  SyncView(worker);
  metrics_->workers_lost.Add(1);
  std::vector<Stream*> lost;
  for (auto& [attempt, stream] : attempts_) {
    if (stream->placement.decode == id) {
      lost.push_back(stream);
    } else if (stream->placement.prefill == id && !stream->placement.has_first_token) {
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
                         .profile = worker.profile,
                         .index = routing_.index().Stats(id)});
    if (const WorkerView* view = routing_.Find(id)) {
      snapshots.back().dispatched_prefill_tokens = view->queued_prefill_tokens;
      snapshots.back().dispatched_sequences = view->sequences;
    }
  }
  return snapshots;
}

std::vector<RouteDecision> Router::Decisions() const {
  MutexLock lock(mutex_);
  return {decisions_.begin(), decisions_.end()};
}

std::vector<BlockHash> Router::IndexedBlocks(WorkerId worker) const {
  MutexLock lock(mutex_);
  return routing_.index().Blocks(worker);
}

// What workers reported stays until they say that it is gone.
void Router::ResetPrefixCaches() {
  MutexLock lock(mutex_);
  routing_.index().ForgetDispatched();
  proto::Envelope envelope;
  envelope.mutable_reset_prefix_cache();
  for (auto& [id, worker] : workers_) {
    if (worker.session != nullptr) SendEnvelope(*worker.session, envelope);
  }
}

}  // namespace baton
