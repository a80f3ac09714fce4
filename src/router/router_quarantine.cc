// Sequences of which workers may die: who was there at two self-inflicted deaths runs alone, one such sequence at a
// time, prefilled where it decodes so that one worker is at risk; who kills that worker too is refused.
#include <algorithm>
#include <unordered_set>
#include <utility>

#include "base/log.h"
#include "core/step_record.h"
#include "router/router.h"
#include "router/router_metrics.h"

namespace baton {
namespace {

constexpr size_t kDeadlyMax = 64;  // prompts that are remembered

// Names a whole prompt.
BlockHash PromptHash(const Request& request) {
  return ChildHash(RootHash(0, "whole", request.cache_salt), request.prompt);
}

}  // namespace

void Router::Expose(Stream& stream, WorkerId worker) {
  const auto found = workers_.find(worker);
  if (found != workers_.end()) stream.deaths.Expose(worker, found->second.member.incarnation());
}

// One that may be to blame does not go on before it is known. The others do at once.
void Router::HoldForCause(Stream& stream, WorkerId worker) {
  if (stream.deaths.deaths() == 0) return;
  stream.held_for = worker;
  stream.held_for_incarnation = workers_.at(worker).member.incarnation();
  stream.held_until = Clock::now() + std::chrono::milliseconds(options_.wait_for_cause_ms);
}

void Router::OnDeath(const proto::Member& member, Deliveries& deliveries) {
  const WorkerId id{member.worker()};
  const std::string how = Cat(member.process(), " ", member.death());
  const std::unordered_set<uint64_t> batch(member.step_requests().begin(), member.step_requests().end());
  std::vector<Stream*> released, suspicious, deadly;
  for (auto& [handle, stream] : streams_) {
    // Who only waited there, or was in another step, has nothing to do with it.
    const bool suspect = !member.died_in_step() || batch.contains(StepRecord::NameOf(stream->request));
    const bool counted = stream->deaths.OnDeath(id, member.incarnation(), member.self_inflicted() && suspect, how);
    const bool held = stream->held_for == id && stream->held_for_incarnation == member.incarnation();
    if (held) {
      stream->held_for.reset();
      stream->held_until = {};
    }
    if (counted && stream->alone_on == id && stream->alone_on_incarnation == member.incarnation()) {
      deadly.push_back(stream.get());
    } else if (counted && stream->deaths.suspicious() && !stream->quarantined) {
      suspicious.push_back(stream.get());
    } else if (held && stream->quarantined) {
      released.push_back(stream.get());
    }
  }
  const auto by_handle = [](const Stream* a, const Stream* b) { return a->handle < b->handle; };
  std::sort(suspicious.begin(), suspicious.end(), by_handle);
  for (Stream* stream : deadly) RefuseDeadly(*stream, deliveries);
  for (Stream* stream : released) Quarantine(*stream);
  for (Stream* stream : suspicious) {
    LogWarning("request ", stream->request.id,
               " was there when workers died, and runs alone from now on: ", stream->deaths.Text());
    if (stream->placement.active) {
      SendCancel(*stream);
      Undispatch(*stream);
    }
    stream->quarantined = true;
    metrics_->quarantined.Add(1);
    Quarantine(*stream);
  }
  Sweep(deliveries);
}

// Queues it, in the order of arrival. While it waits it is in no other queue.
void Router::Quarantine(Stream& stream) {
  std::erase(parked_, stream.handle.value);
  if (stream.held_for) {
    std::erase(quarantined_, stream.handle.value);
    parked_.push_back(stream.handle.value);
  } else if (std::find(quarantined_.begin(), quarantined_.end(), stream.handle.value) == quarantined_.end()) {
    quarantined_.push_back(stream.handle.value);
  }
  ArmSweep();
}

// The first in the queue gets a worker for itself: the one with the least to finish before.
void Router::RunQuarantined(Deliveries& deliveries) {
  while (!quarantined_.empty()) {
    const auto found = streams_.find(quarantined_.front());
    if (found == streams_.end() || found->second->placement.active) return;
    Stream& stream = *found->second;
    if (Clock::now() > stream.deadline) {
      Finish(stream,
             {.finish = FinishReason::kError,
              .status = DeadlineExceeded("the request's time was up before it could be run alone (",
                                         stream.deaths.Text(), ")")},
             deliveries);
      continue;
    }
    Worker* chosen = ChooseAlone(stream.handle.value);
    if (chosen == nullptr || Sequences(*chosen) > 0) return;  // it takes nothing new, and finishes what it has
    stream.alone_on = {chosen->member.worker()};
    stream.alone_on_incarnation = chosen->member.incarnation();
    NameBlocks(stream);
    routing_.Rank(RouteFor(stream), 0);  // for what the worker has cached
    Send(stream, {{.decode = *stream.alone_on}});
    return;
  }
}

// Keeps the worker that was chosen before, while that one is well.
Router::Worker* Router::ChooseAlone(uint64_t handle) {
  Worker* chosen = nullptr;
  for (auto& [id, worker] : workers_) {
    const bool kept = std::exchange(worker.alone, 0) == handle;
    if (!worker.usable() || worker.member.role() == proto::PREFILL) continue;
    if (kept) {
      chosen = &worker;
    } else if (chosen == nullptr || (chosen->alone == 0 && Sequences(worker) < Sequences(*chosen))) {
      chosen = &worker;
    }
    if (kept) chosen->alone = handle;
  }
  if (chosen != nullptr) chosen->alone = handle;
  for (const auto& [id, worker] : workers_) SyncView(worker);
  return chosen;
}

void Router::LeaveQuarantine(const Stream& stream) {
  std::erase(quarantined_, stream.handle.value);
  for (auto& [id, worker] : workers_) {
    if (std::exchange(worker.alone, worker.alone == stream.handle.value ? 0 : worker.alone) != worker.alone) {
      SyncView(worker);
    }
  }
  if (!parked_.empty() || !quarantined_.empty()) ArmSweep();
}

void Router::RefuseDeadly(Stream& stream, Deliveries& deliveries) {
  const std::string deeds =
      Cat("workers died while they computed request ", stream.request.id, ", the last time alone (",
          stream.deaths.Text(), "): it is refused. This is a fault of the server; its log has their stack traces");
  LogError(deeds);
  metrics_->refused_deadly.Add(1);
  deadly_.emplace_back(PromptHash(stream.request), deeds);
  if (deadly_.size() > kDeadlyMax) deadly_.pop_front();
  if (stream.placement.active) SendCancel(stream);
  std::erase(parked_, stream.handle.value);
  Finish(stream, {.finish = FinishReason::kError, .status = Internal(deeds)}, deliveries);
}

// Clients try again after such an error; the same prompt does not get more workers.
absl::Status Router::CheckDeadly(const Request& request) const {
  if (deadly_.empty()) return absl::OkStatus();
  const BlockHash hash = PromptHash(request);
  for (const auto& [known, deeds] : deadly_) {
    if (known == hash) return Internal("an equal prompt was refused before: ", deeds);
  }
  return absl::OkStatus();
}

}  // namespace baton
