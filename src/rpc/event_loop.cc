#include "rpc/event_loop.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>

#include "base/steady_clock.h"

namespace baton {

namespace {

constexpr int kEventsAtOnce = 64;

}  // namespace

absl::StatusOr<std::shared_ptr<EventLoop>> EventLoop::Start() {
  UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll.valid()) return Errno("epoll_create1");
  UniqueFd wake(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake.valid()) return Errno("eventfd");
  epoll_event event = {.events = EPOLLIN, .data = {.u64 = 0}};
  if (epoll_ctl(epoll.get(), EPOLL_CTL_ADD, wake.get(), &event) != 0) return Errno("epoll_ctl", "eventfd");
  std::shared_ptr<EventLoop> loop(new EventLoop(std::move(epoll), std::move(wake)));
  {
    MutexLock lock(loop->mutex_);  // which the loop takes before it calls anybody: then it knows its own id
    loop->thread_ = std::thread([raw = loop.get()] { raw->Run(); });
    loop->thread_id_ = loop->thread_.get_id();
  }
  pthread_setname_np(loop->thread_.native_handle(), "network");
  return loop;
}

void EventLoop::Stop() {
  stopping_ = true;
  Wake();
  thread_.join();
}

void EventLoop::Wake() {
  if (wake_sent_.exchange(true)) return;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(wake_.get(), &one, sizeof(one));  // fails only when it is set already
}

void EventLoop::Post(std::function<void()> work) {
  {
    MutexLock lock(mutex_);
    if (ended_) return;
    posted_.push_back(std::move(work));
  }
  if (!InLoop()) Wake();
}

EventLoop::TimerKey EventLoop::RunAfter(int64_t delay_ms, std::function<void()> work) {
  TimerKey key = {};
  bool first;
  {
    MutexLock lock(mutex_);
    if (ended_) return key;
    key = {SteadyMicroseconds() + std::max<int64_t>(delay_ms, 0) * 1000, next_timer_++};
    first = timers_.emplace(key, std::move(work)).first == timers_.begin();
  }
  if (first && !InLoop()) Wake();
  return key;
}

void EventLoop::CancelTimer(const TimerKey& key) {
  std::function<void()> work;  // destroyed outside of the lock: it may own anything
  MutexLock lock(mutex_);
  if (auto it = timers_.find(key); it != timers_.end()) {
    work = std::move(it->second);
    timers_.erase(it);
  }
}

uint64_t EventLoop::Watch(int fd, uint32_t epoll_events, std::shared_ptr<Watched> watched) {
  const uint64_t id = next_watched_++;
  watched_.emplace(id, std::move(watched));
  epoll_event event = {.events = epoll_events, .data = {.u64 = id}};
  epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event);
  return id;
}

void EventLoop::Modify(uint64_t id, int fd, uint32_t epoll_events) {
  epoll_event event = {.events = epoll_events, .data = {.u64 = id}};
  epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event);
}

void EventLoop::Unwatch(uint64_t id, int fd) {
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  watched_.erase(id);
}

void EventLoop::Run() {
  epoll_event events[kEventsAtOnce];
  while (!stopping_) {
    const int count = epoll_wait(epoll_.get(), events, kEventsAtOnce, WaitMilliseconds());
    for (int i = 0; i < count; ++i) Dispatch(events[i].data.u64, events[i].events);
    RunTimers();
    RunPosted();
  }
  RunPosted();
  std::map<TimerKey, std::function<void()>> dropped;
  {
    MutexLock lock(mutex_);
    ended_ = true;
    dropped.swap(timers_);
  }
  for (auto& [id, watched] : std::exchange(watched_, {})) watched->OnStop();
  RunPosted();
}

void EventLoop::Dispatch(uint64_t id, uint32_t epoll_events) {
  if (id == 0) {
    uint64_t count;
    [[maybe_unused]] const ssize_t got = read(wake_.get(), &count, sizeof(count));
    wake_sent_ = false;  // before the work is looked at, so that whoever adds some later wakes again
    return;
  }
  const auto it = watched_.find(id);
  if (it == watched_.end()) return;                     // gone since epoll_wait
  const std::shared_ptr<Watched> watched = it->second;  // it may unwatch itself
  watched->OnReady(epoll_events);
}

void EventLoop::RunPosted() {
  std::vector<std::function<void()>> work;
  {
    MutexLock lock(mutex_);
    work.swap(posted_);
  }
  for (std::function<void()>& item : work) {
    item();
    item = nullptr;
  }
}

void EventLoop::RunTimers() {
  const int64_t now = SteadyMicroseconds();
  while (true) {
    std::function<void()> work;
    {
      MutexLock lock(mutex_);
      auto first = timers_.begin();
      if (first == timers_.end() || first->first.first > now) return;
      work = std::move(first->second);
      timers_.erase(first);
    }
    work();
  }
}

int EventLoop::WaitMilliseconds() {
  MutexLock lock(mutex_);
  if (!posted_.empty()) return 0;  // posted by work of this turn
  if (timers_.empty()) return -1;
  const int64_t left_us = timers_.begin()->first.first - SteadyMicroseconds();
  return static_cast<int>(std::clamp<int64_t>((left_us + 999) / 1000, 0, 60'000));
}

}  // namespace baton
