#include "router/kv_index.h"

#include <gtest/gtest.h>

#include <set>

#include "core/random.h"

namespace baton {
namespace {

constexpr WorkerId kOne{1}, kTwo{2};

std::vector<BlockHash> Chain(uint64_t name, int length) {
  std::vector<BlockHash> chain;
  for (int i = 0; i < length; ++i) chain.push_back({name, MixBits(name * 1000 + i)});
  return chain;
}

std::vector<CacheChange> Stored(const std::vector<BlockHash>& blocks) {
  std::vector<CacheChange> changes;
  for (const BlockHash& block : blocks) changes.push_back({CacheChange::Kind::kStored, block});
  return changes;
}

int64_t Prefix(KvIndex& index, WorkerId worker, const std::vector<BlockHash>& blocks) {
  const size_t slot = index.Slot(worker);
  return index.PrefixBlocks(blocks)[slot];
}

TEST(KvIndexTest, FindsTheLongestPrefixOfEachWorker) {
  KvIndex index;
  EXPECT_FALSE(index.Apply(kOne, 1, Stored(Chain(7, 5))));
  EXPECT_FALSE(index.Apply(kTwo, 1, Stored(Chain(7, 2))));
  EXPECT_EQ(Prefix(index, kOne, Chain(7, 8)), 5);
  EXPECT_EQ(Prefix(index, kTwo, Chain(7, 8)), 2);
  EXPECT_EQ(Prefix(index, kOne, Chain(8, 8)), 0);
  EXPECT_FALSE(index.Apply(kOne, 6, std::vector<CacheChange>{{CacheChange::Kind::kRemoved, Chain(7, 5)[3]}}));
  EXPECT_EQ(Prefix(index, kOne, Chain(7, 8)), 3);
  EXPECT_FALSE(index.Apply(kOne, 7, std::vector<CacheChange>{{CacheChange::Kind::kCleared, {}}}));
  EXPECT_EQ(Prefix(index, kOne, Chain(7, 8)), 0);
  EXPECT_EQ(Prefix(index, kTwo, Chain(7, 8)), 2);
}

TEST(KvIndexTest, AGapAsksOnceForASnapshotAndClaimsNothingUntilItComes) {
  KvIndex index;
  index.Apply(kOne, 1, Stored(Chain(7, 5)));
  EXPECT_TRUE(index.Apply(kOne, 7, Stored(Chain(8, 1))));  // 6 is missing
  EXPECT_FALSE(index.Apply(kOne, 8, Stored(Chain(8, 2))));
  EXPECT_EQ(Prefix(index, kOne, Chain(7, 8)), 0);
  EXPECT_EQ(index.Stats(kOne).state, KvIndex::State::kStale);
  const std::vector<BlockHash> all = Chain(7, 6);
  index.ApplySnapshot(kOne, 9, std::span(all).first(4), true, false);
  EXPECT_EQ(index.Stats(kOne).state, KvIndex::State::kStale);
  index.ApplySnapshot(kOne, 9, std::span(all).subspan(4), false, true);
  EXPECT_EQ(index.Stats(kOne).state, KvIndex::State::kExact);
  EXPECT_EQ(Prefix(index, kOne, Chain(7, 8)), 6);
  EXPECT_FALSE(index.Apply(kOne, 10, Stored({Chain(7, 8)[6]})));
  EXPECT_EQ(Prefix(index, kOne, Chain(7, 8)), 7);
  EXPECT_EQ(index.Stats(kOne).gaps, 1u);
  EXPECT_EQ(index.Stats(kOne).snapshots, 1u);
}

TEST(KvIndexTest, DispatchedBlocksCountAsLongAsARequestIsUnderWay) {
  KvIndex index;
  index.Dispatched(kOne, Chain(7, 5));
  index.Dispatched(kOne, Chain(7, 3));
  EXPECT_EQ(Prefix(index, kOne, Chain(7, 8)), 5);
  index.Apply(kOne, 1, Stored(Chain(7, 2)));
  index.DispatchEnded(kOne, Chain(7, 5));
  EXPECT_EQ(Prefix(index, kOne, Chain(7, 8)), 3);
  index.DispatchEnded(kOne, Chain(7, 3));
  EXPECT_EQ(Prefix(index, kOne, Chain(7, 8)), 2);  // what was reported stays
  EXPECT_EQ(index.Stats(kOne).dispatched, 0);
}

TEST(KvIndexTest, ARestartedWorkerHasNothing) {
  KvIndex index;
  index.Apply(kOne, 1, Stored(Chain(7, 5)));
  index.Dispatched(kOne, Chain(8, 5));
  index.Forget(kOne);
  EXPECT_EQ(Prefix(index, kOne, Chain(7, 5)), 0);
  EXPECT_EQ(Prefix(index, kOne, Chain(8, 5)), 0);
  EXPECT_EQ(index.size(), 0);
  index.DispatchEnded(kOne, Chain(8, 5));  // of a request that outlived it
  EXPECT_FALSE(index.Apply(kOne, 1, Stored(Chain(7, 1))));
}

// Random changes, losses and snapshots of several workers: whenever a worker is exact, the index is a copy of its set.
TEST(KvIndexTest, IsExactWheneverItSaysSo) {
  KvIndex index;
  uint64_t draws = 0;
  const auto random = [&](uint64_t below) { return KeyedBits(11, 0, static_cast<int64_t>(++draws)) % below; };
  std::vector<std::set<BlockHash>> truth(4);
  std::vector<uint64_t> sequence(4);
  int exact = 0;
  for (int step = 0; step < 20000; ++step) {
    const size_t w = random(4);
    const WorkerId worker{w + 1};
    std::vector<CacheChange> changes;
    for (uint64_t n = 1 + random(3); n > 0; --n) {
      const BlockHash hash{random(40), random(40) % 3};
      const bool stored = truth[w].insert(hash).second;
      if (!stored) truth[w].erase(hash);
      changes.push_back({stored ? CacheChange::Kind::kStored : CacheChange::Kind::kRemoved, hash});
    }
    const uint64_t first = sequence[w] + 1;
    sequence[w] += changes.size();
    if (random(20) > 0) index.Apply(worker, first, changes);
    if (index.Stats(worker).state == KvIndex::State::kStale && random(5) == 0) {
      const std::vector<BlockHash> all(truth[w].begin(), truth[w].end());
      index.ApplySnapshot(worker, sequence[w], all, true, true);
    }
    if (index.Stats(worker).state != KvIndex::State::kExact || index.Stats(worker).sequence != sequence[w]) continue;
    ++exact;
    ASSERT_EQ(index.Blocks(worker), std::vector<BlockHash>(truth[w].begin(), truth[w].end())) << step;
  }
  EXPECT_GT(exact, 5000);
}

}  // namespace
}  // namespace baton
