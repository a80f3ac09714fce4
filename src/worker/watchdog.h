// Whether this worker makes progress: the decision, pure, and the timer that feeds it.
//
// The step loop moves with each turn (at least every 100 ms when idle), with each message, and within a step with each
// group of layers, so that a long step is no alarm. Copies to decode workers move with each piece. What is busy and
// does not move is wedged: front ends hear of it and send their requests elsewhere. What stays so for long is ended,
// and the supervisor starts this worker again.
//
// Time is counted in looks: a process that was stopped, and its watchdog with it, is not wedged.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "rpc/session.h"
#include "transfer/transport.h"

namespace baton {

struct WatchdogOptions {
  int64_t wedged_after_ms = 5000;    // without progress
  int64_t restart_after_ms = 30000;  // likewise; 0: never
};

// One thing that should move while it is busy. Threading: none of its own.
class ProgressWatch {
 public:
  void Look(uint64_t moved, bool busy, int64_t interval_ms) {
    still_ms_ = busy && moved == moved_ ? still_ms_ + interval_ms : 0;
    moved_ = moved;
  }
  int64_t still_ms() const { return still_ms_; }

 private:
  uint64_t moved_ = 0;
  int64_t still_ms_ = 0;
};

// Threading: thread-safe; it looks from the network's thread. Ownership: network and transport must outlive Stop.
class Watchdog {
 public:
  static constexpr int64_t kLookMs = 200;

  // `end` is called once, from the network's thread, when it has been wedged for too long.
  Watchdog(Network& network, const Transport& transport, const WatchdogOptions& options,
           std::function<void(const std::string& reason)> end);

  void Start() BATON_EXCLUDES(mutex_);
  void Stop() BATON_EXCLUDES(mutex_);
  // The step loop has done something.
  void Progress() { moved_.fetch_add(1, std::memory_order_relaxed); }
  // Front ends hear of every change, and at once when it is wedged already.
  void AddFrontEnd(const std::shared_ptr<Session>& session) BATON_EXCLUDES(mutex_);
  void RemoveFrontEnd(const std::shared_ptr<Session>& session) BATON_EXCLUDES(mutex_);

 private:
  void Look() BATON_EXCLUDES(mutex_);
  void Arm() BATON_REQUIRES(mutex_);
  std::string Reason() const BATON_REQUIRES(mutex_);

  Network& network_;
  const Transport& transport_;
  const WatchdogOptions options_;
  const std::function<void(const std::string&)> end_;
  std::atomic<uint64_t> moved_ = 0;

  Mutex mutex_;
  bool running_ BATON_GUARDED_BY(mutex_) = false;
  bool ended_ BATON_GUARDED_BY(mutex_) = false;
  ProgressWatch steps_ BATON_GUARDED_BY(mutex_);
  ProgressWatch copies_ BATON_GUARDED_BY(mutex_);
  std::string reason_ BATON_GUARDED_BY(mutex_);  // empty: all is well
  std::vector<std::shared_ptr<Session>> front_ends_ BATON_GUARDED_BY(mutex_);
  std::unique_ptr<Timer> timer_ BATON_GUARDED_BY(mutex_);
};

}  // namespace baton
