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

namespace baton {

struct CacheEvent {
  enum class Kind : uint8_t { kStored, kRemoved, kCleared };
  uint64_t sequence = 0;  // 1, 2, 3, …; a gap means that a snapshot is needed
  Kind kind = Kind::kStored;
  BlockHash hash;    // of the block; unset for kCleared
  BlockHash parent;  // of kStored: the hash of the block before it, or the root
  bool operator==(const CacheEvent&) const = default;
};

struct CacheEventBatch {
  std::vector<CacheEvent> events;  // oldest first
  bool snapshot_needed = false;    // events were dropped: the reader must start again from a snapshot
};

// Everything that is findable, as of `sequence`: apply events with higher numbers on top.
struct CacheSnapshot {
  struct Block {
    BlockHash hash;
    BlockHash parent;
  };
  uint64_t sequence = 0;      // number of the last event that is contained
  std::vector<Block> blocks;  // in no particular order
};

class CacheEventLog {
 public:
  explicit CacheEventLog(int32_t capacity) : capacity_(capacity) {}

  void Append(CacheEvent::Kind kind, const BlockHash& hash, const BlockHash& parent);
  CacheEventBatch Take();
  // The state was read in full: pending events are contained in it. Returns the number of the last event.
  uint64_t Restart();

 private:
  int32_t capacity_;
  uint64_t last_sequence_ = 0;
  bool snapshot_needed_ = false;
  std::vector<CacheEvent> events_;
};

}  // namespace baton
