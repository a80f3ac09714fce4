#include "core/step_time_table.h"

#include <gtest/gtest.h>

#include <cmath>

namespace baton {
namespace {

StepTimeTable Table() {
  return {.products = {{1, 17000}, {128, 18800}, {256, 29000}},
          .decode_row_us = 10,
          .decode_only_us = -500,
          .decode_context_us = 0.05,
          .prefill_context_us = 0.001};
}

TEST(StepTimeTableTest, AllTokensOfAStepShareItsProducts) {
  StepTimeTable table = Table();
  table.prefill_context_us = 0;
  EXPECT_DOUBLE_EQ(table.StepUs({.prompt_tokens = 128}), 18800);
  EXPECT_DOUBLE_EQ(table.StepUs({.decode_rows = 32, .prompt_tokens = 96}), 18800 + 320);
  EXPECT_DOUBLE_EQ(table.StepUs({.decode_rows = 32, .prompt_tokens = 160}), (18800 + 29000) / 2.0 + 320);
  EXPECT_DOUBLE_EQ(table.StepUs({.decode_rows = 128}), 18800 + 1280 - 500);
}

TEST(StepTimeTableTest, BeyondThePointsTheLastLineGoesOn) {
  StepTimeTable table = Table();
  table.prefill_context_us = 0;
  EXPECT_DOUBLE_EQ(table.StepUs({.prompt_tokens = 384}), 39200);
}

TEST(StepTimeTableTest, ContextAddsInProportion) {
  EXPECT_DOUBLE_EQ(Table().StepUs({.decode_rows = 128, .decode_context = 100000}), 19580 + 5000);
  EXPECT_DOUBLE_EQ(Table().StepUs({.prompt_tokens = 128, .prompt_context = 1000}), 18800 + 0.001 * 128 * 1064);
}

TEST(StepTimeTableTest, AnEmptyStepTakesNoTime) { EXPECT_EQ(Table().StepUs({}), 0); }

TEST(StepTimeTableTest, APrefillIsTheSumOfItsChunks) {
  const StepTimeTable table = Table();
  double sum = 0;
  for (int64_t begin = 0; begin < 600; begin += 256) {
    sum += table.StepUs({.prompt_tokens = std::min<int64_t>(256, 600 - begin), .prompt_context = 50 + begin});
  }
  EXPECT_NEAR(table.PrefillUs(600, 50, 256), sum, 1e-6);
  EXPECT_EQ(table.PrefillUs(0, 50, 256), 0);
}

TEST(StepTimeTableTest, RatesMakeATable) {
  const StepTimeTable table = StepTimeTable::FromRates(1000, 20000);
  EXPECT_TRUE(table.Validate().ok());
  EXPECT_NEAR(table.PrefillUs(500, 0, 500), 5e5 + 19600, 1e-6);
  EXPECT_NEAR(table.StepUs({.decode_rows = 1}), 20000, 1e-6);
  EXPECT_NEAR(table.StepUs({.decode_rows = 11}), 24000, 1e-6);
  EXPECT_NEAR(table.StepUs({.decode_rows = 11, .prompt_tokens = 100}), 124000, 1e-6);
}

TEST(StepTimeTableTest, MeasuringFindsWhatAWorkerTakes) {
  const auto worker = [](const StepShape& shape) -> absl::StatusOr<double> { return Table().StepUs(shape); };
  const StepTimePlan plan{.tokens = {1, 64, 128, 256}, .decode_rows = 32, .context = 2000};
  const absl::StatusOr<StepTimeTable> measured = MeasureStepTimes(plan, worker);
  ASSERT_TRUE(measured.ok());
  EXPECT_TRUE(measured->Validate().ok());
  for (const StepShape& shape : {StepShape{.decode_rows = 1}, StepShape{.decode_rows = 20, .decode_context = 30000},
                                 StepShape{.decode_rows = 20, .decode_context = 9000, .prompt_tokens = 100},
                                 StepShape{.prompt_tokens = 256, .prompt_context = 700}}) {
    EXPECT_NEAR(measured->StepUs(shape), Table().StepUs(shape), 0.01 * Table().StepUs(shape));
  }
  const auto broken = [](const StepShape&) -> absl::StatusOr<double> { return Internal("broken"); };
  EXPECT_FALSE(MeasureStepTimes(plan, broken).ok());
}

TEST(StepTimeTableTest, TablesFromElsewhereAreChecked) {
  EXPECT_TRUE(Table().Validate().ok());
  EXPECT_FALSE(StepTimeTable().Validate().ok());
  StepTimeTable table = Table();
  std::swap(table.products[0], table.products[1]);
  EXPECT_FALSE(table.Validate().ok());
  table = Table();
  table.products[0].tokens = 0;
  EXPECT_FALSE(table.Validate().ok());
  table = Table();
  table.products[2].us = std::nan("");
  EXPECT_FALSE(table.Validate().ok());
  table = Table();
  table.decode_context_us = -1;
  EXPECT_FALSE(table.Validate().ok());
}

}  // namespace
}  // namespace baton
