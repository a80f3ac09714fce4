#include "router/worker_selector.h"

#include <gtest/gtest.h>

namespace baton {
namespace {

WorkerView Worker(uint64_t id, WorkerRole role) {
  return {.id = {id},
          .role = role,
          .prefill_tokens_per_second = 1000,
          .decode_step_ms = 10,
          .free_kv_tokens = 100000,
          .kv_bytes_per_token = 20000};
}

SelectionInput OneAndOne(int64_t prompt_tokens) {
  return {.prompt_tokens = prompt_tokens,
          .max_tokens = 64,
          .workers = {Worker(1, WorkerRole::kPrefill), Worker(2, WorkerRole::kDecode)},
          .max_local_prefill_tokens = 32};
}

TEST(WorkerSelectorTest, NobodyWhenNobodyDecodes) {
  EXPECT_FALSE(SelectWorkers({.prompt_tokens = 10, .workers = {Worker(1, WorkerRole::kPrefill)}}).has_value());
}

TEST(WorkerSelectorTest, LongPromptsGoToThePrefillWorker) {
  const auto choice = SelectWorkers(OneAndOne(500));
  ASSERT_TRUE(choice.has_value());
  EXPECT_EQ(choice->decode, WorkerId{2});
  EXPECT_EQ(choice->prefill, WorkerId{1});
}

TEST(WorkerSelectorTest, ShortPromptsStayWhereTheyDecode) {
  EXPECT_FALSE(SelectWorkers(OneAndOne(20))->prefill.has_value());
}

TEST(WorkerSelectorTest, PromptsCachedOnTheDecodeWorkerStayThere) {
  SelectionInput input = OneAndOne(500);
  input.workers[1].cached_tokens = 480;
  EXPECT_FALSE(SelectWorkers(input)->prefill.has_value());
}

TEST(WorkerSelectorTest, ShortPromptsAvoidABusyDecodeWorker) {
  SelectionInput input = OneAndOne(30);
  input.workers[1].sequences = 16;  // 30 ms of prefill would stall each of them
  EXPECT_EQ(SelectWorkers(input)->prefill, WorkerId{1});
}

TEST(WorkerSelectorTest, TheShorterPrefillQueueWins) {
  SelectionInput input = OneAndOne(500);
  input.workers.push_back(Worker(3, WorkerRole::kPrefill));
  input.workers[0].queued_prefill_tokens = 4000;
  EXPECT_EQ(SelectWorkers(input)->prefill, WorkerId{3});
}

TEST(WorkerSelectorTest, ACachedPrefixIsWorthAQueueOfItsLength) {
  SelectionInput input = OneAndOne(1000);
  input.workers.push_back(Worker(3, WorkerRole::kPrefill));
  input.workers[0].cached_tokens = 800;
  input.workers[0].queued_prefill_tokens = 700;
  EXPECT_EQ(SelectWorkers(input)->prefill, WorkerId{1});
  input.workers[0].queued_prefill_tokens = 900;
  EXPECT_EQ(SelectWorkers(input)->prefill, WorkerId{3});
}

TEST(WorkerSelectorTest, AnUnusablePathLeavesLocalPrefill) {
  SelectionInput input = OneAndOne(500);
  input.paths = {{.prefill = {1}, .decode = {2}, .usable = false}};
  EXPECT_FALSE(SelectWorkers(input)->prefill.has_value());
}

TEST(WorkerSelectorTest, ASlowPathIsAvoided) {
  SelectionInput input = OneAndOne(500);
  input.workers.push_back(Worker(3, WorkerRole::kPrefill));
  input.paths = {{.prefill = {1}, .decode = {2}, .gigabytes_per_second = 0.01}};
  EXPECT_EQ(SelectWorkers(input)->prefill, WorkerId{3});
}

TEST(WorkerSelectorTest, TheLessLoadedDecodeWorkerWins) {
  SelectionInput input = OneAndOne(500);
  input.workers.push_back(Worker(3, WorkerRole::kDecode));
  input.workers[1].sequences = 4;
  EXPECT_EQ(SelectWorkers(input)->decode, WorkerId{3});
}

TEST(WorkerSelectorTest, ADecodeWorkerWithoutRoomIsAvoided) {
  SelectionInput input = OneAndOne(500);
  input.workers.push_back(Worker(3, WorkerRole::kDecode));
  input.workers[2].sequences = 4;
  input.workers[1].free_kv_tokens = 100;
  EXPECT_EQ(SelectWorkers(input)->decode, WorkerId{3});
}

TEST(WorkerSelectorTest, TheTermsAddUpToTheCost) {
  for (const Selection& s : RankCandidates(OneAndOne(20))) {
    EXPECT_DOUBLE_EQ(s.cost_ms,
                     s.queue_ms + s.prefill_ms + s.transfer_ms + s.decode_load_ms + s.harm_ms + s.pressure_ms);
  }
}

}  // namespace
}  // namespace baton
