// One thread that waits for sockets, timers and posted work.
//
// Threading: Post, RunAfter, CancelTimer and InLoop from any thread; Watch, Modify and Unwatch on the loop's thread.
// Ownership: the loop holds what it watches until Unwatch or its end. Stop joins; work posted before Stop still runs,
//   work that comes later is dropped.
// Errors: none after creation but a failing epoll, which is a bug. Limits: none; callers bound what they post.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "base/status.h"
#include "base/unique_fd.h"

namespace baton {

// Something with a descriptor.
class Watched {
 public:
  virtual ~Watched() = default;
  virtual void OnReady(uint32_t epoll_events) = 0;
  // The loop ends: close, and tell whoever wants to know.
  virtual void OnStop() = 0;
};

class EventLoop {
 public:
  using TimerKey = std::pair<int64_t, uint64_t>;  // due (steady microseconds), number

  static absl::StatusOr<std::shared_ptr<EventLoop>> Start();
  // Before the last owner lets go; not from the loop's thread.
  void Stop();

  bool InLoop() const { return std::this_thread::get_id() == thread_id_; }
  void Post(std::function<void()> work) BATON_EXCLUDES(mutex_);
  TimerKey RunAfter(int64_t delay_ms, std::function<void()> work) BATON_EXCLUDES(mutex_);
  void CancelTimer(const TimerKey& key) BATON_EXCLUDES(mutex_);

  // Returns the number that Modify and Unwatch take.
  uint64_t Watch(int fd, uint32_t epoll_events, std::shared_ptr<Watched> watched);
  void Modify(uint64_t id, int fd, uint32_t epoll_events);
  void Unwatch(uint64_t id, int fd);

 private:
  EventLoop(UniqueFd epoll, UniqueFd wake) : epoll_(std::move(epoll)), wake_(std::move(wake)) {}
  void Run();
  void Wake();
  void Dispatch(uint64_t id, uint32_t epoll_events);
  void RunPosted() BATON_EXCLUDES(mutex_);
  void RunTimers() BATON_EXCLUDES(mutex_);
  int WaitMilliseconds() BATON_EXCLUDES(mutex_);

  const UniqueFd epoll_;
  const UniqueFd wake_;                  // an eventfd
  std::atomic<bool> wake_sent_ = false;  // between a wake-up's write and its reading
  std::atomic<bool> stopping_ = false;
  std::thread thread_;
  std::thread::id thread_id_;  // set before the loop runs

  std::unordered_map<uint64_t, std::shared_ptr<Watched>> watched_;  // the loop's own
  uint64_t next_watched_ = 1;                                       // 0 is the eventfd

  Mutex mutex_;
  std::vector<std::function<void()>> posted_ BATON_GUARDED_BY(mutex_);
  std::map<TimerKey, std::function<void()>> timers_ BATON_GUARDED_BY(mutex_);
  bool ended_ BATON_GUARDED_BY(mutex_) = false;  // nothing is taken any more
  uint64_t next_timer_ BATON_GUARDED_BY(mutex_) = 0;
};

}  // namespace baton
