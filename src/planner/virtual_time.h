// Time that passes only when something is due: events in order of their time, equal ones in the order in which they
// were planned.
//
// Threading: none. Limits: the caller must not plan without end.
#pragma once

#include <cstdint>
#include <functional>
#include <queue>
#include <utility>
#include <vector>

namespace baton {

class VirtualTime {
 public:
  double now_ms() const { return now_ms_; }
  void At(double at_ms, std::function<void()> action) { events_.push({at_ms, next_order_++, std::move(action)}); }
  void After(double delay_ms, std::function<void()> action) { At(now_ms_ + delay_ms, std::move(action)); }
  // Until nothing is planned any more.
  void Run() {
    while (!events_.empty()) {
      Event event = std::move(const_cast<Event&>(events_.top()));
      events_.pop();
      now_ms_ = event.at_ms;
      event.action();
    }
  }

 private:
  struct Event {
    double at_ms;
    uint64_t order;
    std::function<void()> action;
    bool operator<(const Event& other) const {
      return std::pair(at_ms, order) > std::pair(other.at_ms, other.order);  // the earliest on top
    }
  };
  std::priority_queue<Event> events_;
  uint64_t next_order_ = 0;
  double now_ms_ = 0;
};

}  // namespace baton
