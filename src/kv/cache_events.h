// What the prefix cache tells the router's index: which block hashes this worker holds, as a numbered stream of
// changes.
//
//   every step:  send(log.Take());  and where it says snapshot_needed:  send(pool.Snapshot())
//
// Threading: none of its own; the owner of the pool calls it.
// Ownership: Take() gives its events away.
// Limits: at most `capacity` events wait. One more drops them all and asks for a snapshot, so that a reader that is
//   absent costs nothing; events are numbered on, and are collected again from the snapshot on.
#pragma once

#include <cstdint>
#include <vector>

#include "core/block_hash.h"
#include "core/cache_change.h"

namespace baton {

struct CacheEventBatch {
  uint64_t first = 1;                // number of the first change: 1, 2, 3, …; a gap means that a snapshot is needed
  std::vector<CacheChange> changes;  // oldest first
  bool snapshot_needed = false;      // changes were dropped: the reader must start again from a snapshot
};

// Everything that is findable, as of `sequence`: apply changes with higher numbers on top.
struct CacheSnapshot {
  uint64_t sequence = 0;          // number of the last change that is contained
  std::vector<BlockHash> blocks;  // in no particular order
};

class CacheEventLog {
 public:
  explicit CacheEventLog(int32_t capacity) : capacity_(capacity) {}

  void Append(CacheChange::Kind kind, const BlockHash& hash);
  CacheEventBatch Take();
  // The state was read in full: pending changes are contained in it. Returns the number of the last change.
  uint64_t Restart();

 private:
  int32_t capacity_;
  uint64_t last_sequence_ = 0;
  bool snapshot_needed_ = false;
  std::vector<CacheChange> changes_;
};

}  // namespace baton
