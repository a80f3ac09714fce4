#include "core/prefill_dial.h"

#include <gtest/gtest.h>

namespace baton {
namespace {

// The step jumps where a tile is full: at 128 and at 256 tokens.
StepTimeTable Table() {
  return {.products = {{1, 20000}, {128, 22000}, {129, 30000}, {256, 32000}, {257, 50000}, {1024, 120000}}};
}

// Prompts that wait so long already that only speed counts.
DialState State(int64_t rows) {
  return {.decode_rows = rows, .prompt_tokens_waiting = 100000, .rate_needed = 1e9, .most = 2048};
}

TEST(PrefillDialTest, StaysJustUnderAJumpOfTheStepTime) {
  EXPECT_EQ(PrefillBudget(Table(), {.itl_ms = 40}, State(1)), 255);
  EXPECT_EQ(PrefillBudget(Table(), {.itl_ms = 40}, State(64)), 192);
  EXPECT_EQ(PrefillBudget(Table(), {.itl_ms = 29}, State(1)), 127);
}

TEST(PrefillDialTest, TheTighterTheTargetTheLessRides) {
  int64_t last = 0;
  for (double itl_ms = 15; itl_ms < 200; itl_ms += 1) {
    const int64_t budget = PrefillBudget(Table(), {.itl_ms = itl_ms}, State(64));
    EXPECT_GE(budget, last);
    EXPECT_LE(Table().StepUs({.decode_rows = 64, .prompt_tokens = budget}), std::max(21008.0, itl_ms * 1000));
    last = budget;
  }
  EXPECT_EQ(PrefillBudget(Table(), {.itl_ms = 15}, State(64)), 0);
  EXPECT_GT(last, 1024);
}

TEST(PrefillDialTest, AMoreEfficientSmallerBudgetIsTaken) {
  // 139 tokens in 30 ms are slower than 127 in 22.
  DialState state = State(1);
  state.most = 140;
  EXPECT_EQ(PrefillBudget(Table(), {.itl_ms = 40}, state), 127);
}

TEST(PrefillDialTest, ContextOfTheRowsCounts) {
  StepTimeTable table = Table();
  table.decode_context_us = 0.05;
  DialState state = State(64);
  state.decode_context = 64 * 3000;  // 9.6 ms
  EXPECT_EQ(PrefillBudget(table, {.itl_ms = 40}, state), 90);
}

TEST(PrefillDialTest, SavedTimeMayBeSpentWithinBounds) {
  DialState state = State(1);
  state.slack_us = -15000;
  EXPECT_EQ(PrefillBudget(Table(), {.itl_ms = 40}, state), 127);
  state.slack_us = 12000;
  EXPECT_EQ(PrefillBudget(Table(), {.itl_ms = 40}, state), 255);  // more would fit, in a worse bargain
  state.slack_us = 1e9;
  const int64_t budget = PrefillBudget(Table(), {.itl_ms = 40}, state);
  EXPECT_LE(Table().StepUs({.decode_rows = 1, .prompt_tokens = budget}), 80000);
}

TEST(PrefillDialTest, WithTimeToSpareEverybodyIsDelayedLeast) {
  DialState state = State(40);
  state.rate_needed = 0;
  // 88 tokens add 1.4 ms to a step, 216 add 11.
  EXPECT_EQ(PrefillBudget(Table(), {.itl_ms = 40}, state), 88);
  state.rate_needed = 5e-3;  // 88 tokens in 22 ms are too slow then
  EXPECT_EQ(PrefillBudget(Table(), {.itl_ms = 40}, state), 216);
  state.rate_needed = 0;
  state.decode_rows = 1;
  state.prompts_waiting = 40;  // many wait, few decode
  EXPECT_EQ(PrefillBudget(Table(), {.itl_ms = 40}, state), 255);
}

TEST(PrefillDialTest, NothingHoldsBackAPrefillWithoutDecodeRows) {
  EXPECT_EQ(PrefillBudget(Table(), {.itl_ms = 1}, State(0)), 2048);
}

TEST(PrefillDialTest, NotMoreThanThereIs) {
  DialState state = State(1);
  state.prompt_tokens_waiting = 50;
  EXPECT_EQ(PrefillBudget(Table(), {.itl_ms = 40}, state), 50);
  state.prompt_tokens_waiting = 0;
  EXPECT_EQ(PrefillBudget(Table(), {.itl_ms = 40}, state), 0);
}

}  // namespace
}  // namespace baton
