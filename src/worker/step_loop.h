// The step loop of one process: an engine, its block pool, and the workers who take turns on them.
//
//   StepLoop loop(engine);
//   BATON_ASSIGN_OR_RETURN(auto prefill, Worker::Create(network, loop, transport, …));   // one or more
//   BATON_ASSIGN_OR_RETURN(auto decode, Worker::Create(network, loop, transport, …));
//   absl::Status status = loop.Run();
//
// Usually there is one worker. Several share weights, pool and prefix cache; each has a scheduler, streams and sessions
// of its own. In a round each has one turn: messages, then one step. An engine that takes a step while one runs
// (EngineInfo::steps_in_flight) is given the next one before the results of that one are read, so that its device does
// not wait for this thread; results are then one step late. One thread owns all that workers share, and steps run one
// after another: a prefill worker's chunk delays the decode worker's next step by its length, as a chunk of its
// own in a step of its own would. Messages between workers of one loop do not pass through a socket, and a hand-off
// between them moves references to blocks and no bytes (docs/handoff.md).
//
// Threading: Run on the thread that owns the engine; Stop from any thread; Join and Leave while Run does not run.
// Ownership: the engine must outlive it; it must outlive its workers.
// Errors: the engine's Internal ends Run, for all workers: the process should end.
#pragma once

#include <atomic>
#include <chrono>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "core/engine.h"
#include "kv/block_pool.h"
#include "rpc/envelope.h"
#include "worker/inbox.h"

namespace baton {

class Worker;

class StepLoop {
 public:
  // `cache_event_capacity`: changes of the prefix cache that are kept for routers; beyond, they get it whole.
  explicit StepLoop(Engine& engine, int32_t cache_event_capacity = 65536);
  ~StepLoop();

  Engine& engine() { return engine_; }
  BlockPool& pool() { return pool_; }
  Inbox& inbox() { return inbox_; }

  void Join(Worker& worker);
  void Leave(Worker& worker);
  // Names the engine among those of a deployment: the lowest id of its workers. 0 when there is only one worker.
  uint64_t SharedEngine() const;
  // How its workers connect: to one another within the process, to others over the network.
  std::unique_ptr<Connector> MakeConnector(Network& network);

  // Tells the routers of all workers what has changed in the prefix cache.
  void PublishCacheChanges();
  // One of them made a step, for which the others have waited.
  void NoteStep(const Worker& by, double took_us);
  // Something moves: nobody who waits for a turn is stuck.
  void NoteProgress();

  // Serves until Stop, or until the engine is broken.
  absl::Status Run();
  void Stop();

 private:
  class LoopConnector;

  // A step that was submitted and not collected.
  struct Flight {
    Worker* worker;
    bool follows;                                 // there was no pause between the step before and this one
    std::chrono::steady_clock::time_point began;  // it may run since then: nothing is before it
  };
  void WaitForNews();
  absl::StatusOr<bool> TakeTurn(Worker& worker);
  absl::Status CollectOldest();
  // Blocks must add up when nobody has work.
  void CheckWhenIdle();
  absl::Status CheckBlocks() const;

  Engine& engine_;
  BlockPool pool_;
  Inbox inbox_;
  std::vector<Worker*> workers_;
  std::deque<Flight> in_flight_;  // the oldest first
  bool stepped_ = false;          // since the last pause
  std::atomic<bool> stopping_ = false;
};

}  // namespace baton
