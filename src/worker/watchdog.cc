#include "worker/watchdog.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "rpc/envelope.h"

namespace baton {
namespace {

void SendWedged(Session& session, const std::string& reason) {
  proto::Envelope envelope;
  envelope.mutable_wedged()->set_reason(reason);
  SendEnvelope(session, envelope);
}

}  // namespace

Watchdog::Watchdog(Network& network, const Transport& transport, const WatchdogOptions& options,
                   std::function<void(const std::string&)> end)
    : network_(network), transport_(transport), options_(options), end_(std::move(end)) {}

void Watchdog::Start() {
  MutexLock lock(mutex_);
  running_ = true;
  Arm();
}

void Watchdog::Stop() {
  MutexLock lock(mutex_);
  running_ = false;
  timer_.reset();
  front_ends_.clear();
}

void Watchdog::Arm() {
  timer_ = network_.RunAfter(kLookMs, [this] { Look(); });
}

void Watchdog::AddFrontEnd(const std::shared_ptr<Session>& session) {
  MutexLock lock(mutex_);
  front_ends_.push_back(session);
  if (!reason_.empty()) SendWedged(*session, reason_);
}

void Watchdog::RemoveFrontEnd(const std::shared_ptr<Session>& session) {
  MutexLock lock(mutex_);
  std::erase(front_ends_, session);
}

std::string Watchdog::Reason() const {
  if (steps_.still_ms() >= options_.wedged_after_ms) {
    return Cat("the step loop makes no progress for ", steps_.still_ms(), " ms");
  }
  if (copies_.still_ms() >= options_.wedged_after_ms) {
    return Cat("copies to other workers are under way and no byte moves for ", copies_.still_ms(), " ms");
  }
  return "";
}

void Watchdog::Look() {
  std::string overdue;
  {
    MutexLock lock(mutex_);
    if (!running_) return;
    const TransferProgress copies = transport_.progress();
    steps_.Look(moved_.load(std::memory_order_relaxed), true, kLookMs);
    copies_.Look(copies.moved, copies.busy, kLookMs);
    const std::string reason = Reason();
    if (reason.empty() != reason_.empty()) {
      if (reason.empty()) {
        LogInfo("this worker makes progress again");
      } else {
        LogError("this worker is wedged: ", reason);
      }
      for (const std::shared_ptr<Session>& session : front_ends_) SendWedged(*session, reason);
    }
    reason_ = reason;
    const int64_t still_ms = std::max(steps_.still_ms(), copies_.still_ms());
    const bool due = options_.restart_after_ms > 0 && still_ms >= options_.restart_after_ms && !reason_.empty();
    if (due && !std::exchange(ended_, true)) {
      overdue = reason_;
    }
    Arm();
  }
  if (!overdue.empty() && end_) end_(overdue);
}

}  // namespace baton
