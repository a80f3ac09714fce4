#include "router/routing_state.h"

#include <gtest/gtest.h>

namespace baton {
namespace {

constexpr int32_t kBlock = 16;

class RoutingStateTest : public testing::Test {
 protected:
  RoutingStateTest() {
    for (uint64_t id : {1, 2, 3}) {
      WorkerView& worker = state_.Add({id}, id == 1 ? WorkerRole::kPrefill : WorkerRole::kDecode);
      worker.prefill_tokens_per_second = 1000;
      worker.free_kv_tokens = 100000;
    }
  }

  RouteRequest Request(int64_t tokens) {
    blocks_.clear();
    for (int64_t i = 0; i < tokens / kBlock; ++i) blocks_.push_back({9, static_cast<uint64_t>(i)});
    return {.prompt_tokens = tokens, .max_tokens = 10, .blocks = blocks_, .block_size = kBlock};
  }

  std::vector<BlockHash> blocks_;
  RoutingState state_{{}};
};

TEST_F(RoutingStateTest, CountsWhatItDispatchedUntilItEnds) {
  const RouteRequest request = Request(320);
  Placement placement = state_.Dispatched({.decode = {2}, .prefill = WorkerId{1}}, request);
  EXPECT_EQ(state_.Find({1})->queued_prefill_tokens, 320);
  EXPECT_EQ(state_.Find({2})->sequences, 1);
  EXPECT_EQ(state_.index().Stats({1}).dispatched, 20);
  EXPECT_EQ(state_.index().Stats({2}).dispatched, 0);
  state_.FirstToken(placement, request);
  state_.FirstToken(placement, request);
  EXPECT_EQ(state_.Find({1})->queued_prefill_tokens, 0);
  EXPECT_EQ(state_.index().Stats({2}).dispatched, 20);
  state_.Ended(placement, request);
  state_.Ended(placement, request);
  EXPECT_EQ(state_.Find({2})->sequences, 0);
  EXPECT_EQ(state_.index().Stats({1}).dispatched + state_.index().Stats({2}).dispatched, 0);
}

TEST_F(RoutingStateTest, APrefixUnderWayDrawsTheNextRequest) {
  const RouteRequest request = Request(320);
  Placement first = state_.Dispatched({.decode = {3}}, request);
  state_.FirstToken(first, request);
  const Selection next = state_.Rank(request, 1).at(0);
  EXPECT_EQ(next.decode, WorkerId{3});
  EXPECT_FALSE(next.prefill.has_value());
  RouteRequest everything = request;
  everything.reuses_prefix = false;
  EXPECT_TRUE(state_.Rank(everything, 1).at(0).prefill.has_value());
}

TEST_F(RoutingStateTest, WorkersComeAndGo) {
  const RouteRequest request = Request(320);
  Placement placement = state_.Dispatched({.decode = {2}, .prefill = WorkerId{1}}, request);
  state_.Remove({1});
  for (const Selection& selection : state_.Rank(request, 9)) EXPECT_FALSE(selection.prefill.has_value());
  state_.Add({1}, WorkerRole::kPrefill);
  state_.Ended(placement, request);
  EXPECT_EQ(state_.Find({1})->queued_prefill_tokens, 0);
  EXPECT_TRUE(state_.Rank(request, 1).at(0).prefill.has_value());
}

}  // namespace
}  // namespace baton
