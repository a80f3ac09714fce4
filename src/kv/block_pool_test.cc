#include "kv/block_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

namespace baton {
namespace {

constexpr BlockHash kRoot{1, 1};

std::vector<TokenId> Tokens(std::initializer_list<TokenId> tokens) { return tokens; }

TEST(BlockPoolTest, AllocatesAllOrNothing) {
  BlockPool pool(4, 2);
  const auto three = pool.Allocate(3);
  ASSERT_TRUE(three.ok());
  const auto two = pool.Allocate(2);
  EXPECT_EQ(two.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(Message(two.status()).find("2 blocks of 2 tokens needed, 1 of 4 available"), std::string_view::npos)
      << two.status();
  EXPECT_EQ(pool.Available(), 1);
  pool.Free(*three);
  EXPECT_EQ(pool.Stats().free, 4);
  EXPECT_TRUE(pool.CheckIntegrity().ok());
}

TEST(BlockPoolTest, MatchesTheLongestPrefixAndPinsIt) {
  BlockPool pool(4, 2);
  const std::vector<TokenId> tokens = Tokens({1, 2, 3, 4, 5, 6});
  const auto hashes = HashBlocks(kRoot, tokens, 2);
  const auto blocks = *pool.Allocate(2);
  EXPECT_TRUE(pool.Publish(blocks[0], hashes[0], kRoot, Tokens({1, 2})));
  EXPECT_TRUE(pool.Publish(blocks[1], hashes[1], hashes[0], Tokens({3, 4})));
  pool.Free(blocks);
  EXPECT_EQ(pool.Stats().cached, 2);
  EXPECT_EQ(pool.CountPrefix(hashes, tokens), 2);
  const auto match = pool.MatchPrefix(hashes, tokens);
  EXPECT_EQ(match, blocks);
  EXPECT_EQ(pool.RefCount(blocks[0]), 1);
  EXPECT_EQ(pool.Available(), 2);
  EXPECT_FALSE(pool.Allocate(3).ok()) << "a pinned block must not be evicted";
  pool.Free(match);
  EXPECT_TRUE(pool.CheckIntegrity().ok());
}

TEST(BlockPoolTest, EqualHashWithOtherTokensIsAMiss) {
  BlockPool pool(4, 2);
  const auto blocks = *pool.Allocate(2);
  const std::vector<BlockHash> hashes = {{7, 7}, {8, 8}};
  pool.Publish(blocks[0], hashes[0], kRoot, Tokens({1, 2}));
  pool.Publish(blocks[1], hashes[1], BlockHash{9, 9}, Tokens({3, 4}));
  EXPECT_EQ(pool.CountPrefix(hashes, Tokens({1, 3, 3, 4})), 0) << "other tokens";
  EXPECT_EQ(pool.CountPrefix(hashes, Tokens({1, 2, 3, 4})), 1) << "other parent";
  EXPECT_EQ(pool.CountPrefix(hashes, Tokens({1})), 0) << "fewer tokens than hashes need";
}

TEST(BlockPoolTest, DuplicatesKeepTheFirst) {
  BlockPool pool(4, 2);
  const auto blocks = *pool.Allocate(2);
  EXPECT_TRUE(pool.Publish(blocks[0], {7, 7}, kRoot, Tokens({1, 2})));
  EXPECT_FALSE(pool.Publish(blocks[1], {7, 7}, kRoot, Tokens({1, 2})));
  pool.Free(blocks);
  EXPECT_EQ(pool.Stats().cached, 1);
  EXPECT_EQ(pool.Stats().free, 3);
}

TEST(BlockPoolTest, EvictsChildrenFirstAndOnlyWhenNothingIsFree) {
  BlockPool pool(4, 1);
  const std::vector<TokenId> tokens = Tokens({1, 2, 3});
  const auto hashes = HashBlocks(kRoot, tokens, 1);
  const auto blocks = *pool.Allocate(3);
  for (int i = 0; i < 3; ++i) pool.Publish(blocks[i], hashes[i], i ? hashes[i - 1] : kRoot, {&tokens[i], 1});
  pool.Free(blocks);
  const auto first = *pool.Allocate(1);
  EXPECT_EQ(pool.CountPrefix(hashes, tokens), 3);
  const auto second = *pool.Allocate(1);
  EXPECT_EQ(second.front(), blocks[2]);
  EXPECT_EQ(pool.CountPrefix(hashes, tokens), 2);
  EXPECT_EQ(pool.Stats().evictions, 1);
}

TEST(BlockPoolTest, FencedBlocksAreOutOfCirculation) {
  BlockPool pool(3, 2);
  const auto blocks = *pool.Allocate(2);
  pool.Fence(blocks[0]);
  pool.Unref(blocks[1]);
  EXPECT_EQ(pool.Available(), 2);
  EXPECT_EQ(pool.Stats().fenced, 1);
  const auto rest = *pool.Allocate(2);
  EXPECT_EQ(std::ranges::count(rest, blocks[0]), 0);
  EXPECT_TRUE(pool.CheckIntegrity().ok());
  pool.Unfence(blocks[0]);
  EXPECT_EQ(pool.Allocate(1)->front(), blocks[0]);
}

TEST(BlockPoolTest, ClearCacheForgetsNamesOfUsedBlocksToo) {
  BlockPool pool(3, 1);
  const auto blocks = *pool.Allocate(2);
  pool.Publish(blocks[0], {1, 2}, kRoot, Tokens({1}));
  pool.Publish(blocks[1], {1, 3}, {1, 2}, Tokens({2}));
  pool.Unref(blocks[1]);
  pool.ClearCache();
  EXPECT_EQ(pool.Stats().free, 2);
  EXPECT_EQ(pool.CountPrefix(std::vector<BlockHash>{{1, 2}}, Tokens({1})), 0);
  pool.Unref(blocks[0]);
  EXPECT_EQ(pool.Stats().free, 3);
  EXPECT_TRUE(pool.CheckIntegrity().ok());
}

TEST(BlockPoolTest, MisuseIsRefusedAndReported) {
  const auto broken = [](auto misuse) {
    BlockPool pool(2, 1);
    const auto used = *pool.Allocate(1);
    misuse(pool, used[0], 1 - used[0]);
    const BlockPoolStats stats = pool.Stats();
    return !pool.CheckIntegrity().ok() && stats.used == 1 && stats.free == 1;
  };
  EXPECT_TRUE(broken([](BlockPool& pool, BlockId, BlockId free) { pool.Unref(free); }));
  EXPECT_TRUE(broken([](BlockPool& pool, BlockId, BlockId free) { pool.Ref(free); }));
  EXPECT_TRUE(broken([](BlockPool& pool, BlockId, BlockId free) { pool.Fence(free); }));
  EXPECT_TRUE(broken([](BlockPool& pool, BlockId used, BlockId) { pool.Unfence(used); }));
  EXPECT_TRUE(broken([](BlockPool& pool, BlockId, BlockId) { pool.Unref(99); }));
  EXPECT_TRUE(broken([](BlockPool& pool, BlockId, BlockId) { pool.Unref(-1); }));
  EXPECT_TRUE(broken([](BlockPool& pool, BlockId, BlockId free) { pool.Publish(free, {1, 1}, {}, Tokens({1})); }));
  EXPECT_TRUE(broken([](BlockPool& pool, BlockId used, BlockId) { pool.Publish(used, {1, 1}, {}, {}); }));
}

TEST(BlockPoolTest, LookupsAreCountedWhenRecorded) {
  BlockPool pool(2, 1);
  pool.RecordLookup(10, 4);
  pool.RecordLookup(3, 0);
  EXPECT_EQ(pool.Stats().queried_tokens, 13);
  EXPECT_EQ(pool.Stats().hit_tokens, 4);
}

// The pool, written as simply as possible: sets and lists, everything searched.
struct Model {
  struct Named {
    BlockHash parent;
    std::vector<TokenId> tokens;
    BlockId block;
  };
  std::set<BlockId> free, fenced;
  std::map<BlockId, int> references;
  std::vector<BlockId> cached;  // least recently used first
  std::map<BlockHash, Named> named;

  const BlockHash* NameOf(BlockId block) const {
    for (const auto& [hash, entry] : named) {
      if (entry.block == block) return &hash;
    }
    return nullptr;
  }
  void Unref(BlockId block) {
    if (--references[block] > 0) return;
    references.erase(block);
    if (NameOf(block) != nullptr) {
      cached.push_back(block);
    } else {
      free.insert(block);
    }
  }
};

class PoolPropertyTest : public testing::TestWithParam<int> {
 protected:
  static constexpr int kBlocks = 24;
  static constexpr int kBlockSize = 2;

  int Random(int bound) { return static_cast<int>(random_() % bound); }

  // Few different tokens, so that prefixes repeat.
  std::vector<TokenId> RandomTokens() {
    std::vector<TokenId> tokens(kBlockSize * (1 + Random(4)));
    for (TokenId& token : tokens) token = Random(8) < 6 ? 0 : Random(3);
    return tokens;
  }

  void Allocate() {
    const int count = Random(6);
    const auto result = pool_.Allocate(count);
    const int available = static_cast<int>(model_.free.size() + model_.cached.size());
    ASSERT_EQ(result.ok(), count <= available);
    if (!result.ok()) return;
    const int evicted = std::max(0, count - static_cast<int>(model_.free.size()));
    std::set<BlockId> expected_evicted(model_.cached.begin(), model_.cached.begin() + evicted);
    std::vector<BlockId> chain;
    for (BlockId block : *result) {
      ASSERT_TRUE(model_.free.erase(block) == 1 || expected_evicted.erase(block) == 1) << block;
      if (const BlockHash* name = model_.NameOf(block)) model_.named.erase(*name);
      model_.references[block] = 1;
      chain.push_back(block);
    }
    ASSERT_TRUE(expected_evicted.empty());
    model_.cached.erase(model_.cached.begin(), model_.cached.begin() + evicted);
    evictions_ += evicted;
    if (!chain.empty()) sequences_.push_back(chain);
  }

  void Publish() {
    if (sequences_.empty()) return;
    const auto& chain = sequences_[Random(static_cast<int>(sequences_.size()))];
    const std::vector<TokenId> tokens = RandomTokens();
    const auto hashes = HashBlocks(kRoot, tokens, kBlockSize);
    for (size_t i = 0; i < std::min(hashes.size(), chain.size()); ++i) {
      const std::vector<TokenId> own(tokens.begin() + i * kBlockSize, tokens.begin() + (i + 1) * kBlockSize);
      const BlockHash parent = i == 0 ? kRoot : hashes[i - 1];
      const bool fresh = model_.NameOf(chain[i]) == nullptr && !model_.named.contains(hashes[i]);
      ASSERT_EQ(pool_.Publish(chain[i], hashes[i], parent, own), fresh);
      if (fresh) model_.named[hashes[i]] = {parent, own, chain[i]};
    }
  }

  void Match() {
    const std::vector<TokenId> tokens = RandomTokens();
    const auto hashes = HashBlocks(kRoot, tokens, kBlockSize);
    std::vector<BlockId> expected;
    for (const BlockHash& hash : hashes) {
      const auto found = model_.named.find(hash);
      if (found == model_.named.end()) break;
      expected.push_back(found->second.block);
    }
    ASSERT_EQ(pool_.CountPrefix(hashes, tokens), static_cast<int>(expected.size()));
    ASSERT_EQ(pool_.MatchPrefix(hashes, tokens), expected);
    for (BlockId block : expected) {
      std::erase(model_.cached, block);
      ++model_.references[block];
    }
    if (!expected.empty()) sequences_.push_back(expected);
  }

  void FreeOne() {
    if (sequences_.empty()) return;
    const size_t index = Random(static_cast<int>(sequences_.size()));
    const std::vector<BlockId> chain = sequences_[index];
    sequences_.erase(sequences_.begin() + index);
    pool_.Free(chain);
    for (auto block = chain.rbegin(); block != chain.rend(); ++block) model_.Unref(*block);
  }

  void ShareOne() {
    if (sequences_.empty()) return;
    const std::vector<BlockId> chain = sequences_[Random(static_cast<int>(sequences_.size()))];
    for (BlockId block : chain) {
      pool_.Ref(block);
      ++model_.references[block];
    }
    sequences_.push_back(chain);
  }

  void FenceOne() {
    if (sequences_.empty() || model_.fenced.size() > 4) return;
    std::vector<BlockId>& chain = sequences_[Random(static_cast<int>(sequences_.size()))];
    const BlockId block = chain.back();
    if (model_.references[block] != 1 || model_.NameOf(block) != nullptr) return;
    pool_.Fence(block);
    model_.references.erase(block);
    model_.fenced.insert(block);
    chain.pop_back();
    if (chain.empty()) std::erase_if(sequences_, [](const auto& c) { return c.empty(); });
  }

  void UnfenceOne() {
    if (model_.fenced.empty()) return;
    const BlockId block = *model_.fenced.begin();
    pool_.Unfence(block);
    model_.fenced.erase(block);
    model_.free.insert(block);
  }

  void Clear() {
    pool_.ClearCache();
    model_.named.clear();
    model_.free.insert(model_.cached.begin(), model_.cached.end());
    model_.cached.clear();
  }

  // A reader of the event stream must know exactly what is findable.
  void FollowEvents() {
    const CacheEventBatch batch = pool_.TakeEvents();
    if (!batch.changes.empty()) ASSERT_EQ(batch.first, last_event_ + 1);
    last_event_ += batch.changes.size();
    for (const CacheChange& change : batch.changes) {
      if (change.kind == CacheChange::Kind::kStored) ASSERT_TRUE(index_.insert(change.hash).second);
      if (change.kind == CacheChange::Kind::kRemoved) ASSERT_EQ(index_.erase(change.hash), 1u);
      if (change.kind == CacheChange::Kind::kCleared) index_.clear();
    }
    if (batch.snapshot_needed) {
      ++snapshots_;
      const CacheSnapshot snapshot = pool_.Snapshot();
      index_ = std::set<BlockHash>(snapshot.blocks.begin(), snapshot.blocks.end());
      last_event_ = snapshot.sequence;
    }
    ASSERT_EQ(index_.size(), model_.named.size());
    for (const auto& [hash, entry] : model_.named) ASSERT_TRUE(index_.contains(hash));
  }

  void CheckAll() {
    const BlockPoolStats stats = pool_.Stats();
    ASSERT_EQ(stats.free, static_cast<int>(model_.free.size()));
    ASSERT_EQ(stats.cached, static_cast<int>(model_.cached.size()));
    ASSERT_EQ(stats.used, static_cast<int>(model_.references.size()));
    ASSERT_EQ(stats.fenced, static_cast<int>(model_.fenced.size()));
    ASSERT_EQ(stats.free + stats.cached + stats.used + stats.fenced, stats.total);
    ASSERT_EQ(stats.evictions, evictions_);
    for (const auto& [block, count] : model_.references) ASSERT_EQ(pool_.RefCount(block), count);
    ASSERT_TRUE(pool_.CheckIntegrity().ok()) << pool_.CheckIntegrity();
  }

  std::mt19937 random_{static_cast<uint32_t>(GetParam())};
  BlockPool pool_{kBlocks, kBlockSize, 12};
  Model model_;
  std::vector<std::vector<BlockId>> sequences_;
  std::set<BlockHash> index_;
  uint64_t last_event_ = 0;
  int64_t evictions_ = 0;
  int snapshots_ = 0;
};

TEST_P(PoolPropertyTest, BehavesLikeTheModel) {
  for (BlockId block = 0; block < kBlocks; ++block) model_.free.insert(block);
  for (int step = 0; step < 250'000; ++step) {
    const int choice = Random(100);
    if (choice < 25) {
      Allocate();
    } else if (choice < 50) {
      Match();
    } else if (choice < 65) {
      Publish();
    } else if (choice < 90 || (sequences_.size() > 6 && choice < 93)) {
      FreeOne();
    } else if (choice < 94) {
      ShareOne();
    } else if (choice < 96) {
      FenceOne();
    } else if (choice < 99) {
      UnfenceOne();
    } else if (Random(20) == 0) {
      Clear();
    }
    if (Random(100) == 0) FollowEvents();
    if (step % 16 == 0) CheckAll();
    if (HasFatalFailure()) FAIL() << "at step " << step << ", seed " << GetParam();
  }
  for (const auto& chain : sequences_) pool_.Free(chain);
  EXPECT_EQ(pool_.Stats().used, 0);
  EXPECT_GT(evictions_, 1000);
  EXPECT_GT(snapshots_, 10);
}

INSTANTIATE_TEST_SUITE_P(Seeds, PoolPropertyTest, testing::Range(1, 6));

}  // namespace
}  // namespace baton
