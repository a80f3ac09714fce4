#include "worker/step_loop.h"

#include <algorithm>
#include <utility>

#include "base/mutex.h"
#include "rpc/local_session.h"
#include "worker/worker.h"

namespace baton {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kIdleWait = std::chrono::milliseconds(100);
// When the next step is chosen: at this share of a decode step in flight, and so long before it ends.
constexpr double kWaitShare = 0.7;
constexpr double kLeadMicroseconds = 1000;

}  // namespace

class StepLoop::LoopConnector : public Connector {
 public:
  LoopConnector(StepLoop& loop, Network& network) : loop_(loop), others_(CreateConnector(network)) {}
  ~LoopConnector() override {
    std::vector<std::shared_ptr<Session>> sessions;
    {
      MutexLock lock(mutex_);
      sessions.swap(sessions_);
    }
    for (const std::shared_ptr<Session>& session : sessions) session->Close();
  }

  void Connect(std::string address, SessionEvents events, int64_t timeout_ms, Done done) override {
    const auto neighbour = std::ranges::find(loop_.workers_, address, &Worker::address);
    if (neighbour == loop_.workers_.end()) {
      return others_->Connect(std::move(address), std::move(events), timeout_ms, std::move(done));
    }
    auto session = ConnectWithin(address, std::move(events), [neighbour](const std::shared_ptr<Session>& accepted) {
      return (*neighbour)->Accept(accepted);
    });
    {
      MutexLock lock(mutex_);
      sessions_.push_back(session);
    }
    done(std::move(session));
  }

 private:
  StepLoop& loop_;
  const std::unique_ptr<Connector> others_;
  Mutex mutex_;
  std::vector<std::shared_ptr<Session>> sessions_ BATON_GUARDED_BY(mutex_);
};

StepLoop::StepLoop(Engine& engine, int32_t cache_event_capacity)
    : engine_(engine), pool_(engine.info().num_blocks, engine.info().kv.block_size, cache_event_capacity) {}

StepLoop::~StepLoop() = default;

void StepLoop::Join(Worker& worker) { workers_.push_back(&worker); }

void StepLoop::Leave(Worker& worker) { std::erase(workers_, &worker); }

uint64_t StepLoop::SharedEngine() const {
  if (workers_.size() < 2) return 0;
  return (*std::ranges::min_element(workers_, {}, &Worker::id))->id().value;
}

std::unique_ptr<Connector> StepLoop::MakeConnector(Network& network) {
  return std::make_unique<LoopConnector>(*this, network);
}

void StepLoop::Stop() {
  stopping_ = true;
  inbox_.Post([] {});
}

void StepLoop::PublishCacheChanges() {
  const CacheEventBatch batch = pool_.TakeEvents();
  for (Worker* worker : workers_) worker->OnCacheChanges(batch);
}

void StepLoop::NoteProgress() {
  for (Worker* worker : workers_) worker->NoteProgress();
}

void StepLoop::NoteStep(const Worker& by, double took_us) {
  for (Worker* worker : workers_) {
    if (worker != &by) worker->NoteOthersStep(took_us);
  }
}

absl::Status StepLoop::Run() {
  for (Worker* worker : workers_) worker->StartWatchdog();
  while (!stopping_) {
    bool submitted = false;
    for (Worker* worker : workers_) {
      WaitForNews();
      NoteProgress();
      inbox_.Run();  // what the worker before has just said counts in this round
      BATON_ASSIGN_OR_RETURN(const bool one, TakeTurn(*worker));
      submitted = submitted || one;
    }
    if (submitted) continue;
    if (!in_flight_.empty()) {  // what comes next depends on it
      BATON_RETURN_IF_ERROR(CollectOldest());
      continue;
    }
    CheckWhenIdle();
    stepped_ = false;
    inbox_.Wait(kIdleWait);
  }
  while (!in_flight_.empty()) BATON_RETURN_IF_ERROR(CollectOldest());
  return absl::OkStatus();
}

// The step after the one in flight is chosen late, so that whoever comes meanwhile is part of it.
void StepLoop::WaitForNews() {
  if (in_flight_.empty()) return;
  const Flight& flight = in_flight_.back();
  const double us = std::min(kWaitShare * flight.worker->FewestMicroseconds(),
                             flight.worker->FewestMicroseconds() - kLeadMicroseconds);
  const auto until = flight.began + std::chrono::microseconds(static_cast<int64_t>(us));
  for (auto now = Clock::now(); now < until && !stopping_; now = Clock::now()) {
    inbox_.Wait(std::chrono::duration_cast<std::chrono::microseconds>(until - now) + std::chrono::microseconds(1));
    inbox_.Run();
  }
}

absl::StatusOr<bool> StepLoop::TakeTurn(Worker& worker) {
  const bool follows = stepped_;
  BATON_ASSIGN_OR_RETURN(const bool submitted, worker.SubmitStep());
  if (submitted) {
    in_flight_.push_back({.worker = &worker, .follows = follows, .began = Clock::now()});
    stepped_ = true;
  }
  const size_t ahead = engine_.info().steps_in_flight - 1;
  while (in_flight_.size() > ahead) BATON_RETURN_IF_ERROR(CollectOldest());
  worker.EndTurn();
  return submitted;
}

absl::Status StepLoop::CollectOldest() {
  const Flight flight = in_flight_.front();
  absl::StatusOr<StepOutput> output = engine_.Collect();
  in_flight_.pop_front();
  if (!in_flight_.empty()) in_flight_.front().began = Clock::now();
  BATON_RETURN_IF_ERROR(flight.worker->FinishStep(std::move(output), flight.follows));
  flight.worker->EndTurn();
  return absl::OkStatus();
}

void StepLoop::CheckWhenIdle() {
  if (!std::ranges::all_of(workers_, &Worker::IsIdle)) return;
  const bool news = std::ranges::any_of(workers_, &Worker::unchecked);
  if (!news) return;
  const absl::Status status = CheckBlocks();
  for (Worker* worker : workers_) worker->OnChecked(status);
}

absl::Status StepLoop::CheckBlocks() const {
  for (const Worker* worker : workers_) BATON_RETURN_IF_ERROR(worker->CheckIntegrity());
  BATON_RETURN_IF_ERROR(pool_.CheckIntegrity());
  // Lent for path measurements that are under way.
  int32_t lent = 0;
  for (const Worker* worker : workers_) {
    if (!worker->HoldsNothing()) return absl::OkStatus();
    lent += worker->probe_blocks();
  }
  const int32_t used = pool_.Stats().used;
  return used > lent ? Internal(used, " blocks are in use and nobody has them") : absl::OkStatus();
}

}  // namespace baton
