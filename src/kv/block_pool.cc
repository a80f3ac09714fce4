#include "kv/block_pool.h"

#include <algorithm>
#include <ranges>
#include <utility>

namespace baton {

BlockPool::BlockPool(int32_t num_blocks, int32_t block_size, int32_t event_capacity)
    : block_size_(block_size), blocks_(num_blocks), events_(event_capacity) {
  free_.reserve(num_blocks);
  for (BlockId block = num_blocks - 1; block >= 0; --block) free_.push_back(block);
}

absl::StatusOr<std::vector<BlockId>> BlockPool::Allocate(int32_t count) {
  if (count > Available()) {
    return ResourceExhausted("KV cache: ", count, " blocks of ", block_size_, " tokens needed, ", Available(), " of ",
                             num_blocks(), " available (", free_.size(), " free, ", cached_, " cached, ", fenced_,
                             " fenced); wait, preempt, or use a larger cache");
  }
  std::vector<BlockId> result;
  result.reserve(std::max(count, 0));
  for (int32_t i = 0; i < count; ++i) {
    if (free_.empty()) {
      ++evictions_;
      Forget(oldest_);
    }
    result.push_back(free_.back());
    free_.pop_back();
    blocks_[result.back()].references = 1;
  }
  return result;
}

void BlockPool::Ref(BlockId block) {
  if (!Valid(block) || blocks_[block].references == 0) return Misuse("Ref", block, "a used block");
  ++blocks_[block].references;
}

void BlockPool::Unref(BlockId block) {
  if (!Valid(block) || blocks_[block].references == 0) return Misuse("Unref", block, "a used block");
  if (--blocks_[block].references > 0) return;
  if (blocks_[block].published) {
    PushNewest(block);
  } else {
    free_.push_back(block);
  }
}

void BlockPool::Free(std::span<const BlockId> blocks) {
  for (BlockId block : std::views::reverse(blocks)) Unref(block);
}

bool BlockPool::Publish(BlockId block, const BlockHash& hash, const BlockHash& parent,
                        std::span<const TokenId> tokens) {
  if (!Valid(block) || blocks_[block].references == 0 || tokens.size() != static_cast<size_t>(block_size_)) {
    Misuse("Publish", block, "a used block and block_size tokens");
    return false;
  }
  Block& entry = blocks_[block];
  if (entry.published || !by_hash_.try_emplace(hash, block).second) return false;
  entry.published = true;
  entry.hash = hash;
  entry.parent = parent;
  entry.tokens.assign(tokens.begin(), tokens.end());
  events_.Append(CacheChange::Kind::kStored, hash);
  return true;
}

// The block of hashes[index] when it is findable and really holds those tokens after that parent, else -1.
BlockId BlockPool::FindMatch(std::span<const BlockHash> hashes, std::span<const TokenId> tokens, size_t index) const {
  const size_t begin = index * block_size_;
  if (tokens.size() < begin + block_size_) return -1;
  const auto found = by_hash_.find(hashes[index]);
  if (found == by_hash_.end()) return -1;
  const Block& entry = blocks_[found->second];
  if (index > 0 && entry.parent != hashes[index - 1]) return -1;
  return std::ranges::equal(entry.tokens, tokens.subspan(begin, block_size_)) ? found->second : -1;
}

std::vector<BlockId> BlockPool::MatchPrefix(std::span<const BlockHash> hashes, std::span<const TokenId> tokens) {
  std::vector<BlockId> run;
  for (size_t i = 0; i < hashes.size(); ++i) {
    const BlockId block = FindMatch(hashes, tokens, i);
    if (block < 0) break;
    if (blocks_[block].references == 0) Unlink(block);
    ++blocks_[block].references;
    run.push_back(block);
  }
  return run;
}

int32_t BlockPool::CountPrefix(std::span<const BlockHash> hashes, std::span<const TokenId> tokens) const {
  size_t count = 0;
  while (count < hashes.size() && FindMatch(hashes, tokens, count) >= 0) ++count;
  return static_cast<int32_t>(count);
}

void BlockPool::RecordLookup(int64_t queried_tokens, int64_t hit_tokens) {
  queried_tokens_ += queried_tokens;
  hit_tokens_ += hit_tokens;
}

void BlockPool::ClearCache() {
  for (Block& entry : blocks_) {
    if (entry.published && entry.references > 0) entry.published = false;
  }
  while (oldest_ >= 0) {
    const BlockId block = oldest_;
    Unlink(block);
    blocks_[block].published = false;
    free_.push_back(block);
  }
  by_hash_.clear();
  events_.Append(CacheChange::Kind::kCleared, {});
}

void BlockPool::Fence(BlockId block) {
  if (!Valid(block) || blocks_[block].references != 1 || blocks_[block].published) {
    return Misuse("Fence", block, "an unpublished block with one reference");
  }
  blocks_[block].references = 0;
  blocks_[block].fenced = true;
  ++fenced_;
}

void BlockPool::Unfence(BlockId block) {
  if (!Valid(block) || !blocks_[block].fenced) return Misuse("Unfence", block, "a fenced block");
  blocks_[block].fenced = false;
  --fenced_;
  free_.push_back(block);
}

CacheSnapshot BlockPool::Snapshot() { return {.sequence = events_.Restart(), .blocks = PublishedBlocks()}; }

std::vector<BlockHash> BlockPool::PublishedBlocks() const {
  std::vector<BlockHash> names;
  names.reserve(by_hash_.size());
  for (const auto& [hash, block] : by_hash_) names.push_back(hash);
  return names;
}

BlockPoolStats BlockPool::Stats() const {
  const int32_t free = static_cast<int32_t>(free_.size());
  return {.total = num_blocks(),
          .free = free,
          .used = num_blocks() - free - cached_ - fenced_,
          .cached = cached_,
          .fenced = fenced_,
          .evictions = evictions_,
          .queried_tokens = queried_tokens_,
          .hit_tokens = hit_tokens_};
}

void BlockPool::Misuse(std::string_view call, BlockId block, std::string_view expected) {
  if (!misuse_.ok()) return;
  misuse_ = Internal("block pool misused: ", call, " of block ", block, " expects ", expected, "; it has ",
                     Valid(block) ? RefCount(block) : -1, " references of a pool of ", num_blocks(), " blocks");
}

void BlockPool::PushNewest(BlockId block) {
  blocks_[block].older = newest_;
  blocks_[block].newer = -1;
  (newest_ >= 0 ? blocks_[newest_].newer : oldest_) = block;
  newest_ = block;
  ++cached_;
}

void BlockPool::Unlink(BlockId block) {
  Block& entry = blocks_[block];
  (entry.older >= 0 ? blocks_[entry.older].newer : oldest_) = entry.newer;
  (entry.newer >= 0 ? blocks_[entry.newer].older : newest_) = entry.older;
  entry.older = entry.newer = -1;
  --cached_;
}

// A cached block becomes a free one.
void BlockPool::Forget(BlockId block) {
  Unlink(block);
  Block& entry = blocks_[block];
  by_hash_.erase(entry.hash);
  entry.published = false;
  free_.push_back(block);
  events_.Append(CacheChange::Kind::kRemoved, entry.hash);
}

// Marks what the two lists contain: 1 free, 2 cached. A block twice, or a list without end, is an error.
absl::Status BlockPool::CheckLists(std::vector<uint8_t>& seen) const {
  for (BlockId block : free_) {
    if (!Valid(block) || seen[block] != 0) return Internal("block ", block, " is twice among the free ones");
    seen[block] = 1;
  }
  int32_t linked = 0;
  BlockId newer = -1;
  for (BlockId block = newest_; block >= 0; newer = block, block = blocks_[block].older, ++linked) {
    if (!Valid(block) || seen[block] != 0 || blocks_[block].newer != newer) {
      return Internal("block ", block, ": broken link in the list of cached blocks");
    }
    seen[block] = 2;
  }
  if (newer != oldest_ || linked != cached_) {
    return Internal("the list of cached blocks has ", linked, " and ends at ", newer, "; expected ", cached_,
                    " ending at ", oldest_);
  }
  return absl::OkStatus();
}

absl::Status BlockPool::CheckBlock(BlockId block, std::vector<uint8_t>& seen) const {
  const Block& entry = blocks_[block];
  const bool free = seen[block] == 1;
  const bool cached = seen[block] == 2;
  if (entry.references < 0 || free + cached + (entry.references > 0) + entry.fenced != 1) {
    return Internal("block ", block, " is not in exactly one state: free ", free, ", cached ", cached, ", references ",
                    entry.references, ", fenced ", entry.fenced);
  }
  if ((free || entry.fenced) && entry.published) return Internal("block ", block, " is findable but free or fenced");
  if (cached && !entry.published) return Internal("block ", block, " is cached without a name");
  if (!entry.published) return absl::OkStatus();
  const auto found = by_hash_.find(entry.hash);
  if (found == by_hash_.end() || found->second != block) return Internal("block ", block, " is not in the hash map");
  return absl::OkStatus();
}

absl::Status BlockPool::CheckIntegrity() const {
  BATON_RETURN_IF_ERROR(misuse_);
  std::vector<uint8_t> seen(blocks_.size(), 0);
  BATON_RETURN_IF_ERROR(CheckLists(seen));
  size_t published = 0;
  int32_t fenced = 0;
  for (BlockId block = 0; block < num_blocks(); ++block) {
    BATON_RETURN_IF_ERROR(CheckBlock(block, seen));
    published += blocks_[block].published;
    fenced += blocks_[block].fenced;
  }
  if (published != by_hash_.size()) {
    return Internal("the hash map has ", by_hash_.size(), " entries for ", published, " published blocks");
  }
  if (fenced != fenced_) return Internal(fenced, " blocks are fenced, ", fenced_, " were counted");
  return absl::OkStatus();
}

}  // namespace baton
