#include "router/dispatch_index.h"

#include <gtest/gtest.h>

namespace baton {
namespace {

std::vector<BlockHash> Chain(uint64_t name, int length) {
  std::vector<BlockHash> chain;
  for (int i = 0; i < length; ++i) chain.push_back({name, static_cast<uint64_t>(i + 1)});
  return chain;
}

TEST(DispatchIndexTest, FindsTheLongestPrefixOfEachWorker) {
  DispatchIndex index(100);
  index.Record({1}, Chain(7, 5));
  EXPECT_EQ(index.PrefixBlocks({1}, Chain(7, 8)), 5);
  EXPECT_EQ(index.PrefixBlocks({1}, Chain(8, 8)), 0);
  EXPECT_EQ(index.PrefixBlocks({2}, Chain(7, 8)), 0);
}

TEST(DispatchIndexTest, ForgetsTheLeastRecentlyUsedAndTailsBeforePrefixes) {
  DispatchIndex index(6);
  index.Record({1}, Chain(1, 4));
  index.Record({1}, Chain(2, 4));
  EXPECT_EQ(index.PrefixBlocks({1}, Chain(2, 4)), 4);
  EXPECT_EQ(index.PrefixBlocks({1}, Chain(1, 4)), 2);
}

TEST(DispatchIndexTest, ARestartedWorkerHasNothing) {
  DispatchIndex index(6);
  index.Record({1}, Chain(1, 4));
  index.Forget({1});
  EXPECT_EQ(index.PrefixBlocks({1}, Chain(1, 4)), 0);
}

}  // namespace
}  // namespace baton
