#include "router/dispatch_index.h"

namespace baton {

void DispatchIndex::Record(WorkerId worker, std::span<const BlockHash> blocks) {
  Lru& lru = workers_[worker];
  // From the tail, so that a prefix is younger than what hangs on it and outlives it.
  for (auto block = blocks.rbegin(); block != blocks.rend(); ++block) {
    if (auto found = lru.entries.find(*block); found != lru.entries.end()) {
      lru.order.splice(lru.order.begin(), lru.order, found->second);
      continue;
    }
    lru.order.push_front(*block);
    lru.entries[*block] = lru.order.begin();
  }
  while (lru.entries.size() > max_blocks_) {
    lru.entries.erase(lru.order.back());
    lru.order.pop_back();
  }
}

int64_t DispatchIndex::PrefixBlocks(WorkerId worker, std::span<const BlockHash> blocks) const {
  const auto found = workers_.find(worker);
  if (found == workers_.end()) return 0;
  int64_t length = 0;
  for (const BlockHash& block : blocks) {
    if (!found->second.entries.contains(block)) break;
    ++length;
  }
  return length;
}

}  // namespace baton
