// Which worker has which KV blocks: what workers reported, exactly, and what was dispatched to them and is not reported
// yet.
//
// Reported: each worker numbers the changes of its prefix cache. They are applied in order; a gap makes the worker's
// part stale until a snapshot of everything comes, and Apply says that one is needed. In between nothing is claimed.
// Dispatched: blocks that a request under way is going to compute there; counted, and gone when the request is.
//
//   std::vector<int64_t> prefix = index.PrefixBlocks(hashes);   // [slot]: of each worker
//
// Threading: none of its own; the router's mutex. Errors: none; unknown workers have nothing.
// Limits: about 60 bytes for each block of each worker. PrefixBlocks is linear in hashes and their holders.
#pragma once

#include <absl/container/flat_hash_map.h>
#include <absl/container/flat_hash_set.h>
#include <absl/container/inlined_vector.h>

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "core/block_hash.h"
#include "core/cache_change.h"
#include "core/ids.h"

namespace baton {

class KvIndex {
 public:
  enum class State : uint8_t {
    kUnknown,  // nothing was reported yet
    kExact,    // as of the last change
    kStale,    // changes were lost: a snapshot is on its way
  };
  struct WorkerStats {
    State state = State::kUnknown;
    int64_t blocks = 0;      // reported
    int64_t dispatched = 0;  // and not yet certain
    uint64_t sequence = 0;   // number of the last change
    uint64_t gaps = 0;
    uint64_t snapshots = 0;
  };

  // Changes number `first`, first + 1, … of a worker. True: a gap, so that a snapshot has to be asked for (once;
  // further changes are ignored until it comes).
  bool Apply(WorkerId worker, uint64_t first, std::span<const CacheChange> changes);
  // Changes came that cannot be read. True: as above.
  bool Lost(WorkerId worker);
  // One piece of everything that the worker has as of change `sequence`; `begin` and `end` mark the first and the last.
  void ApplySnapshot(WorkerId worker, uint64_t sequence, std::span<const BlockHash> blocks, bool begin, bool end);

  void Dispatched(WorkerId worker, std::span<const BlockHash> blocks);
  void DispatchEnded(WorkerId worker, std::span<const BlockHash> blocks);
  // The worker died, or its cache was emptied.
  void Forget(WorkerId worker);
  // Its cache is being emptied: it is going to say so itself.
  void ForgetDispatched();

  // Length, in blocks, of the longest prefix of `blocks` that each worker has or is going to have: [slots].
  std::span<const int64_t> PrefixBlocks(std::span<const BlockHash> blocks);
  // Index of a worker in that list; stays the same for ever.
  size_t Slot(WorkerId worker);

  WorkerStats Stats(WorkerId worker) const;
  // What the worker reported, sorted.
  std::vector<BlockHash> Blocks(WorkerId worker) const;
  int64_t size() const { return static_cast<int64_t>(reported_.size()); }

 private:
  struct Hasher {
    size_t operator()(const BlockHash& hash) const { return hash.low; }
  };
  struct Part {
    State state = State::kUnknown;
    uint64_t sequence = 0;
    uint64_t gaps = 0;
    uint64_t snapshots = 0;
    bool in_snapshot = false;
    absl::flat_hash_set<BlockHash, Hasher> blocks;
    int64_t dispatched = 0;  // blocks
  };
  struct Expecting {
    uint32_t slot = 0;
    uint32_t requests = 0;  // that are going to compute it there
  };

  void Store(uint32_t slot, const BlockHash& hash);
  void Remove(uint32_t slot, const BlockHash& hash);
  void Clear(uint32_t slot);

  std::map<WorkerId, uint32_t> slots_;
  std::vector<Part> parts_;                                                            // [slot]
  absl::flat_hash_map<BlockHash, absl::InlinedVector<uint32_t, 4>, Hasher> reported_;  // slots that hold it
  absl::flat_hash_map<BlockHash, absl::InlinedVector<Expecting, 2>, Hasher> dispatched_;
  std::vector<int64_t> lengths_;  // of the last PrefixBlocks
};

}  // namespace baton
