// Which prompt prefixes a worker should have in its cache, judged by what was dispatched to it.
//
// Not thread-safe. Limits: a bounded number of blocks for each worker, least recently used first out.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <span>
#include <unordered_map>

#include "core/block_hash.h"
#include "core/ids.h"

namespace baton {

class DispatchIndex {
 public:
  explicit DispatchIndex(size_t max_blocks_per_worker) : max_blocks_(max_blocks_per_worker) {}

  void Record(WorkerId worker, std::span<const BlockHash> blocks);
  // Length in blocks of the longest prefix of `blocks` that the worker should have.
  int64_t PrefixBlocks(WorkerId worker, std::span<const BlockHash> blocks) const;
  void Forget(WorkerId worker) { workers_.erase(worker); }
  void Clear() { workers_.clear(); }

 private:
  struct Lru {
    std::list<BlockHash> order;  // most recent first
    std::unordered_map<BlockHash, std::list<BlockHash>::iterator> entries;
  };
  size_t max_blocks_;
  std::map<WorkerId, Lru> workers_;
};

}  // namespace baton
