// The block pool and prefix cache of one worker: block ids and reference counts, never bytes.
//
// Every block is in exactly one state:
//   free    nobody has it, its contents mean nothing
//   used    reference count > 0; findable by its hash too, once published
//   cached  reference count 0, contents named by a hash: found by MatchPrefix, or evicted, least recently used first
//   fenced  a lost peer could still write it: neither free nor usable until Unfence
//
// A sequence frees its blocks from the last to the first (Free does), so a block's children leave the cache before it.
//
//   auto blocks = pool.Allocate(3);                       // reference count 1 each
//   pool.Publish(blocks[0], hash, parent, tokens);        // full and completely written
//   auto hit = pool.MatchPrefix(hashes, tokens);          // pinned: one more reference each
//   pool.Free(hit); pool.Free(*blocks);
//
// Threading: none of its own. One thread owns the step loop and everything under it; workers that share a pool put one
//   mutex around it.
// Ownership: a reference belongs to whoever got it from Allocate, MatchPrefix or Ref, and goes back by Unref or Free.
//   Whoever copies a block's bytes in the background holds a reference meanwhile.
// Errors: Allocate is ResourceExhausted, with numbers. A misuse (Unref of a free block, …) is refused, changes nothing,
//   and makes CheckIntegrity fail from then on; whether to abort is the caller's choice.
// Limits: token ids of published blocks are kept and compared on a hit: 4 × block_size bytes a block.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "core/block_hash.h"
#include "core/ids.h"
#include "kv/cache_events.h"

namespace baton {

struct BlockPoolStats {
  int32_t total = 0;  // blocks; free + used + cached + fenced
  int32_t free = 0;
  int32_t used = 0;
  int32_t cached = 0;
  int32_t fenced = 0;
  int64_t evictions = 0;       // cached blocks that were taken for something else
  int64_t queried_tokens = 0;  // by RecordLookup
  int64_t hit_tokens = 0;
};

class BlockPool {
 public:
  // `event_capacity` 0: events are not collected. The default fits a few steps of a large worker.
  BlockPool(int32_t num_blocks, int32_t block_size, int32_t event_capacity = 65536);

  int32_t num_blocks() const { return static_cast<int32_t>(blocks_.size()); }
  int32_t block_size() const { return block_size_; }
  int32_t BlocksFor(int64_t tokens) const { return static_cast<int32_t>((tokens + block_size_ - 1) / block_size_); }

  // `count` blocks with one reference each, or none at all. Free blocks first, then the least recently used cached
  // ones.
  absl::StatusOr<std::vector<BlockId>> Allocate(int32_t count);
  int32_t Available() const { return static_cast<int32_t>(free_.size()) + cached_; }

  void Ref(BlockId block);    // of a used block
  void Unref(BlockId block);  // the last reference makes it cached, or free when it was never published
  void Free(std::span<const BlockId> blocks);  // Unref, last to first
  int32_t RefCount(BlockId block) const { return blocks_[block].references; }

  // Makes a used, full, completely written block findable. `tokens`: [block_size]. False when the hash is already known
  // (the first block keeps the name) or the block has a name.
  bool Publish(BlockId block, const BlockHash& hash, const BlockHash& parent, std::span<const TokenId> tokens);
  bool IsPublished(BlockId block) const { return blocks_[block].published; }

  // The longest run of blocks from the start that are findable and hold exactly these tokens, each with one more
  // reference. `tokens`: at least hashes × block_size.
  std::vector<BlockId> MatchPrefix(std::span<const BlockHash> hashes, std::span<const TokenId> tokens);
  // Its length in blocks; pins nothing.
  int32_t CountPrefix(std::span<const BlockHash> hashes, std::span<const TokenId> tokens) const;
  // Counts one sequence's lookup. Not part of MatchPrefix, which may be tried many times for one admission.
  void RecordLookup(int64_t queried_tokens, int64_t hit_tokens);
  // Forgets every name: cached blocks become free, used ones lose their hash.
  void ClearCache();

  // Takes the caller's only reference to an unpublished block, and the block out of circulation.
  void Fence(BlockId block);
  void Unfence(BlockId block);  // then free
  bool IsFenced(BlockId block) const { return blocks_[block].fenced; }

  BlockPoolStats Stats() const;
  // Internal when states do not add up, links or map entries are broken, or the pool was misused. O(blocks).
  absl::Status CheckIntegrity() const;

  // Changes since the last call, for the router's index.
  CacheEventBatch TakeEvents() { return events_.Take(); }
  CacheSnapshot Snapshot();
  std::vector<BlockHash> PublishedBlocks() const;  // names of all findable blocks, in no particular order

 private:
  struct Block {
    int32_t references = 0;
    bool published = false;
    bool fenced = false;
    BlockId newer = -1;  // in the list of cached blocks
    BlockId older = -1;
    BlockHash hash;  // when published
    BlockHash parent;
    std::vector<TokenId> tokens;  // [block_size] when published
  };

  bool Valid(BlockId block) const { return block >= 0 && block < num_blocks(); }
  void Misuse(std::string_view call, BlockId block, std::string_view expected);
  BlockId FindMatch(std::span<const BlockHash> hashes, std::span<const TokenId> tokens, size_t index) const;
  void PushNewest(BlockId block);
  void Unlink(BlockId block);
  void Forget(BlockId block);
  absl::Status CheckBlock(BlockId block, std::vector<uint8_t>& seen) const;
  absl::Status CheckLists(std::vector<uint8_t>& seen) const;

  const int32_t block_size_;
  std::vector<Block> blocks_;
  std::vector<BlockId> free_;  // a stack
  BlockId newest_ = -1;        // cached blocks, by last use
  BlockId oldest_ = -1;
  int32_t cached_ = 0;
  int32_t fenced_ = 0;
  int64_t evictions_ = 0;
  int64_t queried_tokens_ = 0;
  int64_t hit_tokens_ = 0;
  std::unordered_map<BlockHash, BlockId> by_hash_;
  CacheEventLog events_;
  absl::Status misuse_;  // the first one
};

}  // namespace baton
