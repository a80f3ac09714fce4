#include "kv/cache_events.h"

#include <utility>

namespace baton {

void CacheEventLog::Append(CacheChange::Kind kind, const BlockHash& hash) {
  ++last_sequence_;
  if (snapshot_needed_) return;
  if (changes_.size() >= static_cast<size_t>(capacity_)) {
    changes_.clear();
    snapshot_needed_ = true;
    return;
  }
  changes_.push_back({kind, hash});
}

CacheEventBatch CacheEventLog::Take() {
  CacheEventBatch batch{last_sequence_ - changes_.size() + 1, std::move(changes_), snapshot_needed_};
  changes_.clear();
  return batch;
}

uint64_t CacheEventLog::Restart() {
  changes_.clear();
  snapshot_needed_ = false;
  return last_sequence_;
}

}  // namespace baton
