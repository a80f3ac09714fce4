#include "router/worker_selector.h"

#include <gtest/gtest.h>

#include "core/random.h"

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

TEST(WorkerSelectorTest, AQueueOfPromptsIsNoLongPrompt) {
  Case queue = OneAndOne(500);
  queue.workers[0].step_times.prefill_context_us = 0.5;
  queue.workers[0].queued_prefill_tokens = 4096;
  const auto queue_ms = [&] {
    for (const Selection& selection : queue.Rank()) {
      if (selection.prefill) return selection.queue_ms;
    }
    return -1.0;
  };
  queue.workers[0].queued_prefills = 1;
  const double as_one = queue_ms();
  queue.workers[0].queued_prefills = 8;
  EXPECT_NEAR(as_one - queue_ms(), 0.5e-3 * 4096 * (2048 - 256), 1);
}

TEST(WorkerSelectorTest, WhoIsLateAnywayIsNotMovedByASmallDifference) {
  Case two{{.prompt_tokens = 4000, .max_tokens = 8}, {Worker(1, WorkerRole::kHybrid), Worker(2, WorkerRole::kHybrid)}};
  two.workers[0].cached_tokens = 100;
  const std::vector<Selection> ranked = two.Rank();
  ASSERT_EQ(ranked.size(), 2u);
  EXPECT_EQ(ranked[0].decode, WorkerId{1});
  // A tenth of a second, four seconds after the target: no longer worth two seconds of others.
  EXPECT_LT(ranked[1].late_ms - ranked[0].late_ms, 3 * (ranked[1].prefill_ms - ranked[0].prefill_ms));
  // At the target it is.
  two.request.prompt_tokens = 800;
  const std::vector<Selection> near = two.Rank();
  EXPECT_GT(near[1].late_ms - near[0].late_ms, 12 * (near[1].prefill_ms - near[0].prefill_ms));
}

TEST(WorkerSelectorTest, StepsThatHaveBecomeSlowerArePricedSo) {
  Case two{{.prompt_tokens = 400, .max_tokens = 8}, {Worker(1, WorkerRole::kHybrid), Worker(2, WorkerRole::kHybrid)}};
  EXPECT_EQ(two.Best().decode, WorkerId{1});
  two.workers[0].step_times.factor = 1.3;
  EXPECT_EQ(two.Best().decode, WorkerId{2});
  EXPECT_NEAR(two.Rank()[1].prefill_ms, 1.3 * two.Rank()[0].prefill_ms, 1e-6);
}

TEST(WorkerSelectorTest, WhoSharesAnEngineDelaysTheOther) {
  Case shared = OneAndOne(500);
  shared.workers.push_back(Worker(3, WorkerRole::kPrefill));
  EXPECT_EQ(shared.Best().prefill, WorkerId{1});
  shared.workers[0].engine = shared.workers[1].engine = 1;
  shared.workers[1].sequences = 4;  // which wait for each step of worker 1
  EXPECT_EQ(shared.Best().prefill, WorkerId{3});
  double harm_ms[4] = {};  // [prefill worker]
  for (const Selection& selection : shared.Rank())
    harm_ms[selection.prefill.value_or(WorkerId{0}).value] = selection.harm_ms;
  EXPECT_NEAR(harm_ms[1] - harm_ms[3], 4 * shared.Best().prefill_ms, 1);
}

TEST(WorkerSelectorTest, ADecodeWorkerBesideABusyPrefillWorkerIsSlower) {
  Case shared{{.prompt_tokens = 20, .max_tokens = 64},
              {Worker(1, WorkerRole::kPrefill), Worker(2, WorkerRole::kDecode), Worker(3, WorkerRole::kDecode)}};
  shared.workers[0].queued_prefill_tokens = 4000;
  EXPECT_EQ(shared.Best().decode, WorkerId{2});
  shared.workers[0].engine = shared.workers[1].engine = 1;
  EXPECT_EQ(shared.Best().decode, WorkerId{3});
}

// What is left out early would not have been among the best.
TEST(WorkerSelectorTest, TheBestFewAreTheFirstOfAll) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    auto draw = [&, stream = uint64_t{0}](int64_t below) mutable {
      return static_cast<int64_t>(KeyedBits(seed, ++stream, 0) % static_cast<uint64_t>(below));
    };
    Case any{{.prompt_tokens = 1 + draw(3000), .max_tokens = 64}, {}};
    if (draw(4) == 0) any.request.max_local_prefill_tokens = draw(500);
    const int64_t workers = 1 + draw(12);
    for (int64_t id = 1; id <= workers; ++id) {
      WorkerView& worker =
          any.workers.emplace_back(Worker(static_cast<uint64_t>(id), static_cast<WorkerRole>(draw(3))));
      worker.engine = static_cast<uint64_t>(draw(4));
      worker.cached_tokens = draw(any.request.prompt_tokens);
      worker.queued_prefill_tokens = draw(2) * draw(4000);
      worker.queued_prefills = static_cast<int32_t>(worker.queued_prefill_tokens > 0 ? 1 + draw(5) : 0);
      worker.sequences = static_cast<int32_t>(draw(3) * draw(30));
      worker.context_tokens = 1000 * worker.sequences;
      worker.free_kv_tokens = draw(6000);
      for (int64_t from = 1; from <= workers; ++from) {
        if (draw(3) > 0) {
          worker.paths.push_back({.prefill = {static_cast<uint64_t>(from)},
                                  .gigabytes_per_second = static_cast<double>(draw(5)),
                                  .usable = draw(4) > 0});
        }
      }
    }
    const std::vector<Selection> all = any.Rank();
    const std::vector<Selection> few = RankCandidates(any.request, any.workers, 4);
    ASSERT_EQ(few.size(), std::min<size_t>(4, all.size()));
    for (size_t i = 0; i < few.size(); ++i) {
      EXPECT_EQ(few[i].decode, all[i].decode) << seed;
      EXPECT_EQ(few[i].prefill, all[i].prefill) << seed;
      EXPECT_EQ(few[i].cost_ms, all[i].cost_ms) << seed;
    }
  }
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
  two.workers[0].queued_prefill_tokens = 1500;  // a second copy would cost others something
  EXPECT_EQ(two.Best().prefill, WorkerId{1});
  two.workers[0].queued_prefill_tokens = 3000;
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
  EXPECT_TRUE(RankCandidates(two.request, two.workers, 0).empty());
}

}  // namespace
}  // namespace baton
