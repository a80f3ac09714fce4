#include "router/worker_selector.h"

#include <gtest/gtest.h>

namespace baton {
namespace {

// Few tokens cost what one costs; then about a millisecond each.
StepTimeTable Times() { return {.products = {{1, 8000}, {8, 8500}, {512, 490000}}, .decode_context_us = 0.1}; }

WorkerView Worker(uint64_t id, WorkerRole role) {
  return {.id = {id}, .role = role, .step_times = Times(), .free_kv_tokens = 100000, .kv_bytes_per_token = 20000};
}

struct Case {
  SelectionRequest request;
  std::vector<WorkerView> workers;

  std::vector<Selection> Rank() const { return RankCandidates(request, workers); }
  Selection Best() const { return Rank().at(0); }
};

Case OneAndOne(int64_t prompt_tokens) {
  return {{.prompt_tokens = prompt_tokens, .max_tokens = 64},
          {Worker(1, WorkerRole::kPrefill), Worker(2, WorkerRole::kDecode)}};
}

TEST(WorkerSelectorTest, NobodyWhenNobodyDecodes) {
  EXPECT_TRUE(RankCandidates({.prompt_tokens = 10}, std::vector{Worker(1, WorkerRole::kPrefill)}).empty());
}

TEST(WorkerSelectorTest, LongPromptsGoToThePrefillWorker) {
  const Selection choice = OneAndOne(500).Best();
  EXPECT_EQ(choice.decode, WorkerId{2});
  EXPECT_EQ(choice.prefill, WorkerId{1});
}

TEST(WorkerSelectorTest, ShortPromptsStayWhereTheyDecode) { EXPECT_FALSE(OneAndOne(6).Best().prefill.has_value()); }

TEST(WorkerSelectorTest, PromptsCachedOnTheDecodeWorkerStayThere) {
  Case cached = OneAndOne(500);
  cached.workers[1].cached_tokens = 494;
  EXPECT_FALSE(cached.Best().prefill.has_value());
}

TEST(WorkerSelectorTest, ADecodeWorkerWithoutTimeToSpareTakesNoPrompts) {
  Case busy = OneAndOne(30);
  busy.workers[1].sequences = 40;  // its steps take 18 ms
  busy.workers[1].context_tokens = 10000;
  busy.request.targets.itl_ms = 20;
  EXPECT_EQ(busy.Best().prefill, WorkerId{1});
  busy.request.targets.itl_ms = 100;
  busy.workers[0].queued_prefill_tokens = 6000;
  EXPECT_FALSE(busy.Best().prefill.has_value());
}

TEST(WorkerSelectorTest, AQueueIsPricedInFullStepsWhateverThisRequestNeeds) {
  Case reuse{{.prompt_tokens = 500, .max_tokens = 64}, {Worker(1, WorkerRole::kHybrid)}};
  reuse.workers[0].queued_prefill_tokens = 512;
  reuse.workers[0].cached_tokens = 490;  // ten tokens are left, which alone would make steps of ten
  EXPECT_NEAR(reuse.Best().queue_ms, 490, 1);
}

TEST(WorkerSelectorTest, ALongPromptTakesAsLongWhereItDecodes) {
  Case longer = OneAndOne(2048);
  for (WorkerView& worker : longer.workers) worker.step_times.prefill_context_us = 0.5;
  const std::vector<Selection> ranked = longer.Rank();
  ASSERT_EQ(ranked.size(), 2u);
  EXPECT_NEAR(ranked[0].prefill_ms, ranked[1].prefill_ms, 0.01 * ranked[0].prefill_ms);
}

TEST(WorkerSelectorTest, WhatRidesGrowsWithThePrefillWorkersQueue) {
  Case loaded = OneAndOne(500);
  loaded.workers[1].sequences = 4;
  EXPECT_TRUE(loaded.Best().prefill.has_value());
  loaded.workers[0].queued_prefill_tokens = 2000;  // the first token would come too late
  EXPECT_FALSE(loaded.Best().prefill.has_value());
  EXPECT_GT(loaded.Rank().back().late_ms, 1000);
  const double rides_ms = loaded.Best().prefill_ms;
  loaded.workers[1].prefill_budget = 0;  // only when it is starved
  EXPECT_GT(loaded.Best().prefill_ms, 1.2 * rides_ms);
  loaded.workers[1].prefill_budget = -1;
  loaded.request.max_local_prefill_tokens = 0;  // static disaggregation
  EXPECT_TRUE(loaded.Best().prefill.has_value());
}

TEST(WorkerSelectorTest, APrefixThatIsBeingComputedIsWaitedFor) {
  Case two{{.prompt_tokens = 400, .max_tokens = 8}, {Worker(1, WorkerRole::kHybrid), Worker(2, WorkerRole::kHybrid)}};
  two.workers[1].queued_prefill_tokens = 400;
  two.workers[1].queued_prefills = 1;
  two.workers[1].sequences = 1;
  EXPECT_EQ(two.Best().decode, WorkerId{1});
  two.workers[1].cached_tokens = 390;
  EXPECT_EQ(two.Best().decode, WorkerId{2});
}

TEST(WorkerSelectorTest, TheShorterPrefillQueueWins) {
  Case two = OneAndOne(500);
  two.workers.push_back(Worker(3, WorkerRole::kPrefill));
  two.workers[0].queued_prefill_tokens = 1000;
  EXPECT_EQ(two.Best().prefill, WorkerId{3});
}

TEST(WorkerSelectorTest, ACachedPrefixIsWorthAQueueOfItsLength) {
  Case two = OneAndOne(1000);
  two.request.max_local_prefill_tokens = 0;
  two.workers.push_back(Worker(3, WorkerRole::kPrefill));
  two.request.targets.ttft_ms = 10000;
  two.workers[0].cached_tokens = 800;
  two.workers[0].queued_prefill_tokens = 700;
  EXPECT_EQ(two.Best().prefill, WorkerId{1});
  two.workers[0].queued_prefill_tokens = 1500;  // half of what it need not compute counts for those who come next
  EXPECT_EQ(two.Best().prefill, WorkerId{3});
}

TEST(WorkerSelectorTest, AnUnusablePathLeavesLocalPrefill) {
  Case refused = OneAndOne(500);
  refused.request.max_local_prefill_tokens = 0;
  refused.workers[1].paths = {{.prefill = {1}, .usable = false}};
  EXPECT_FALSE(refused.Best().prefill.has_value());
}

TEST(WorkerSelectorTest, ASlowPathIsAvoided) {
  Case slow = OneAndOne(500);
  slow.workers.push_back(Worker(3, WorkerRole::kPrefill));
  slow.workers[1].paths = {{.prefill = {1}, .gigabytes_per_second = 0.01}, {.prefill = {3}, .gigabytes_per_second = 1}};
  EXPECT_EQ(slow.Best().prefill, WorkerId{3});
}

TEST(WorkerSelectorTest, TheLessLoadedDecodeWorkerWins) {
  Case two = OneAndOne(500);
  two.workers.push_back(Worker(3, WorkerRole::kDecode));
  two.workers[1].sequences = 4;
  two.workers[1].context_tokens = 20000;
  EXPECT_EQ(two.Best().decode, WorkerId{3});
}

TEST(WorkerSelectorTest, ADecodeWorkerWithoutRoomIsAvoided) {
  Case two = OneAndOne(500);
  two.workers.push_back(Worker(3, WorkerRole::kDecode));
  two.workers[2].sequences = 4;
  two.workers[1].free_kv_tokens = 100;
  EXPECT_EQ(two.Best().decode, WorkerId{3});
}

TEST(WorkerSelectorTest, WithoutStepTimesRatesDecide) {
  Case plain = OneAndOne(500);
  for (WorkerView& worker : plain.workers) {
    worker.step_times = {};
    worker.prefill_tokens_per_second = 1000;
    worker.decode_step_ms = 10;
  }
  EXPECT_EQ(plain.Best().prefill, WorkerId{1});
  EXPECT_NEAR(plain.Best().prefill_ms, 510, 1);
}

TEST(WorkerSelectorTest, TheTermsAddUpToTheCostAndTheBestComesFirst) {
  Case two = OneAndOne(600);
  two.workers.push_back(Worker(3, WorkerRole::kDecode));
  two.workers[1].sequences = 40;
  two.workers[1].context_tokens = 400000;
  two.workers[1].free_kv_tokens = 0;
  const std::vector<Selection> all = two.Rank();
  ASSERT_EQ(all.size(), 4u);
  for (size_t i = 0; i < all.size(); ++i) {
    const Selection& s = all[i];
    EXPECT_DOUBLE_EQ(s.cost_ms, s.queue_ms + s.prefill_ms + s.transfer_ms + s.decode_load_ms + s.harm_ms +
                                    s.pressure_ms + s.itl_ms + s.late_ms);
    if (i > 0) EXPECT_GE(s.cost_ms, all[i - 1].cost_ms);
  }
  EXPECT_GT(all.back().itl_ms, 0);
  EXPECT_EQ(RankCandidates(two.request, two.workers, 2).size(), 2u);
}

}  // namespace
}  // namespace baton
