#include "kv/cache_events.h"

#include <utility>

namespace baton {

void CacheEventLog::Append(CacheEvent::Kind kind, const BlockHash& hash, const BlockHash& parent) {
  ++last_sequence_;
  if (snapshot_needed_) return;
  if (events_.size() >= static_cast<size_t>(capacity_)) {
    events_.clear();
    snapshot_needed_ = true;
    return;
  }
  events_.push_back({last_sequence_, kind, hash, parent});
}

CacheEventBatch CacheEventLog::Take() {
  CacheEventBatch batch{std::move(events_), snapshot_needed_};
  events_.clear();
  return batch;
}

uint64_t CacheEventLog::Restart() {
  events_.clear();
  snapshot_needed_ = false;
  return last_sequence_;
}

}  // namespace baton
