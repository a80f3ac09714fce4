// Folders: worker
// Searches everything that can happen in a hand-off between two workers of one process, whose pool is one, and shows
// that it would find a bug in each rule of theirs. A part of handoff_explore_test.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "explorer.h"

namespace baton {
namespace {

bool IsLong() {
  const char* value = std::getenv("BATON_EXPLORE");
  return value != nullptr && std::strcmp(value, "long") == 0;
}

struct NamedPool {
  const char* name;
  SharedPoolOptions options;
};

std::vector<NamedPool> SmallPools() {
  return {
      {"one pool: one request, everything", {.early_ends = true, .cancels = 1, .preemptions = 1, .leases = 1}},
      {"one pool: two requests, room for both, cancel", {.requests = 2, .blocks = 4, .cancels = 1, .leases = 1}},
      {"one pool: two requests for one's blocks", {.requests = 2, .cancels = 1, .preemptions = 1}},
      {"one pool: two requests, one place",
       {.requests = 2, .blocks = 4, .places = 1, .early_ends = true, .cancels = 1, .leases = 1}},
  };
}

std::vector<NamedPool> LargerPools() {
  return {
      {"one pool: two requests, everything twice",
       {.requests = 2, .blocks = 3, .early_ends = true, .cancels = 2, .preemptions = 2, .leases = 2}},
      {"one pool: three requests", {.requests = 3, .blocks = 4, .cancels = 1, .preemptions = 1, .leases = 1}},
  };
}

class SharedPoolTest : public testing::TestWithParam<NamedPool> {};

TEST_P(SharedPoolTest, KeepsEveryRule) {
  const Exploration found = Explore(GetParam().options, 40'000'000);
  std::printf("  %-52s %s\n", GetParam().name, found.Text().c_str());
  EXPECT_EQ(found.error, "") << found.trace;
  EXPECT_TRUE(found.complete);
  EXPECT_GT(found.states, 100);
}

INSTANTIATE_TEST_SUITE_P(Small, SharedPoolTest, testing::ValuesIn(SmallPools()));
INSTANTIATE_TEST_SUITE_P(Larger, SharedPoolTest,
                         testing::ValuesIn(IsLong() ? LargerPools() : std::vector<NamedPool>()));
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(SharedPoolTest);

TEST(SharedPoolWalkTest, LargerPoolsKeepEveryRule) {
  const SharedPoolOptions options{.requests = 6,
                                  .blocks = 9,
                                  .blocks_per_request = 3,
                                  .places = 3,
                                  .early_ends = true,
                                  .cancels = 3,
                                  .preemptions = 3,
                                  .leases = 2};
  const Exploration found = Wander(options, 20261124, IsLong() ? 500'000 : 4000, 2000);
  std::printf("  %-52s %s\n", "one pool: random, six requests", found.Text().c_str());
  EXPECT_EQ(found.error, "") << found.trace;
}

struct PoolBug {
  const char* bug;
  SharedPoolOptions options;
  void (*plant)(SharedPoolOptions&);
};

const PoolBug kPoolBugs[] = {
    {"Started names blocks without a reference to them",
     {},
     [](SharedPoolOptions& o) { o.references_with_started = false; }},
    {"D keeps the references of a request that it has given up",
     {.cancels = 1},
     [](SharedPoolOptions& o) { o.free_unwanted = false; }},
    {"D forgets a request and not its references",
     {.cancels = 1},
     [](SharedPoolOptions& o) { o.free_forgotten = false; }},
    {"P goes on into other blocks after a preemption",
     {.preemptions = 1},
     [](SharedPoolOptions& o) { o.preempted_ends = false; }},
};

class SharedPoolBugTest : public testing::TestWithParam<PoolBug> {};

TEST_P(SharedPoolBugTest, IsCaught) {
  SharedPoolOptions options = GetParam().options;
  EXPECT_EQ(Explore(options, 20'000'000).error, "") << "without the bug";
  GetParam().plant(options);
  const Exploration found = Explore(options, 20'000'000);
  std::printf("  one pool %-57s %7lld states, depth %2d: %s\n", GetParam().bug, static_cast<long long>(found.states),
              found.depth, found.error.c_str());
  EXPECT_NE(found.error, "");
}

INSTANTIATE_TEST_SUITE_P(All, SharedPoolBugTest, testing::ValuesIn(kPoolBugs));

}  // namespace
}  // namespace baton
