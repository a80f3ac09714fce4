#include "worker/step_loop.h"

#include <algorithm>
#include <utility>

#include "base/mutex.h"
#include "rpc/local_session.h"
#include "worker/worker.h"

namespace baton {
namespace {

constexpr auto kIdleWait = std::chrono::milliseconds(100);

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
    bool stepped = false;
    for (Worker* worker : workers_) {
      NoteProgress();
      inbox_.Run();  // what the worker before has just said counts in this round
      BATON_ASSIGN_OR_RETURN(const bool one, worker->TakeTurn());
      stepped = stepped || one;
    }
    if (stepped) continue;
    CheckWhenIdle();
    inbox_.Wait(kIdleWait);
  }
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
