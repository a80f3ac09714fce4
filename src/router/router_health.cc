// Workers that live and do not work: suspected by their silence, or wedged by their own report.
#include <algorithm>
#include <utility>

#include "base/log.h"
#include "router/router.h"
#include "router/router_metrics.h"

namespace baton {

void Router::OnHealth(WorkerId id, uint64_t incarnation, PeerHealth health, const std::string& why) {
  Deliveries deliveries;
  {
    MutexLock lock(mutex_);
    Worker& worker = workers_[id];
    if (worker.member.incarnation() != incarnation) return;
    const bool was_well = worker.well();
    worker.suspected = health == PeerHealth::kWell ? "" : why;
    if (!worker.suspected.empty()) metrics_->workers_suspected.Add(1);
    OnFitness(worker, was_well, why, deliveries);
  }
  Deliver(std::move(deliveries));
}

void Router::OnWedged(Worker& worker, const std::string& reason, Deliveries& deliveries) {
  const bool was_well = worker.well();
  worker.wedged = reason;
  metrics_->SetWedged(std::to_string(worker.member.worker()), !reason.empty());
  OnFitness(worker, was_well, reason, deliveries);
}

void Router::OnFitness(Worker& worker, bool was_well, const std::string& why, Deliveries& deliveries) {
  if (worker.well() == was_well) return;
  SyncView(worker);
  if (worker.well()) {
    LogInfo(worker.member.process(), " works again");
    return Sweep(deliveries);
  }
  if (worker.member.role() != proto::PREFILL) last_able_ = Clock::now();
  LogWarning(worker.member.process(), " gets no new work, and what it has goes elsewhere: ", why);
  MoveStreams(worker, Cat(worker.member.process(), ": ", why), deliveries);
}

// Everything that waits for this worker starts anew elsewhere. Should it send tokens of the old attempts after all,
// they are no attempt's. What its pools hold for them it frees when it reads that they are cancelled.
void Router::MoveStreams(Worker& worker, const std::string& why, Deliveries& deliveries) {
  const WorkerId id{worker.member.worker()};
  std::vector<Stream*> moved;
  for (auto& [attempt, stream] : attempts_) {
    const bool prefilling = stream->placement.prefill == id && stream->attempt_tokens < 2;
    if (stream->placement.decode == id || prefilling) moved.push_back(stream);
  }
  std::sort(moved.begin(), moved.end(), [](const Stream* a, const Stream* b) { return a->handle < b->handle; });
  for (Stream* stream : moved) {
    SendCancel(*stream);
    Expose(*stream, id);
    Undispatch(*stream);
    Replay(*stream, why, deliveries);
  }
}

void Router::SendCancel(const Stream& stream) {
  const auto worker = workers_.find(stream.placement.decode);
  if (worker == workers_.end() || worker->second.session == nullptr) return;
  proto::Envelope envelope;
  envelope.mutable_cancel()->set_stream(stream.attempt);
  SendEnvelope(*worker->second.session, envelope);
}

}  // namespace baton
