#include "backend/cuda/step_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <numeric>

namespace baton::cuda {
namespace {

class StepPlanTest : public testing::Test {
 protected:
  StepPlanTest() {
    std::iota(tokens_.begin(), tokens_.end(), 100);
    std::iota(table_.begin(), table_.end(), 7);
  }
  BatchItem Item(int32_t start, int32_t count) {
    BatchItem item;
    item.tokens = std::span<const TokenId>(tokens_).first(start + count);
    item.prompt_length = start + count;
    item.start = start;
    item.count = count;
    item.block_table = table_;
    item.sample = true;
    item.sampling = &sampling_;
    return item;
  }
  std::vector<TokenId> tokens_ = std::vector<TokenId>(2000);
  std::vector<BlockId> table_ = std::vector<BlockId>(16);
  SamplingParams sampling_;
};

TEST_F(StepPlanTest, DecodeRowsComeFirstAndSamplesKeepTheOrderOfItems) {
  Batch batch;
  batch.items = {Item(0, 200), Item(300, 1), Item(128, 5)};
  const StepPlan plan = BuildStepPlan(batch, {4096, 64}, {});
  ASSERT_EQ(plan.rows.size(), 206u);
  EXPECT_EQ(plan.decode_rows, 1);
  EXPECT_FALSE(plan.decode_only());
  EXPECT_EQ(plan.rows[0].token, 400);
  EXPECT_EQ(plan.rows[0].position, 300);
  EXPECT_EQ(plan.rows[0].block, 9);  // position 300 lies in the third block
  EXPECT_EQ(plan.length, std::vector<int32_t>{301});
  EXPECT_EQ(plan.unit_prefix, (std::vector<int32_t>{0, DecodeUnits(300)}));
  EXPECT_EQ(plan.block_table, (std::vector<int32_t>{7, 8, 9}));
  EXPECT_EQ(plan.sample_rows, (std::vector<int32_t>{200, 0, 205}));
}

TEST_F(StepPlanTest, TokensOfTheStepInFlightAreNamedByTheirResult) {
  Batch batch;
  batch.items = {Item(300, 1), Item(301, 1)};
  batch.items[0].sampled_by = 2;
  batch.items[0].tokens = batch.items[0].tokens.first(300);
  sampling_.min_tokens = 1;
  batch.items[0].prompt_length = 300;  // the token that nobody knows is the first that was generated
  const std::vector<int32_t> before = {64, -1, 65};
  const std::vector<TokenId> end_tokens = {9};
  const StepPlan plan = BuildStepPlan(batch, {4096, 64}, end_tokens, {.first = 128, .before = before});
  ASSERT_EQ(plan.rows.size(), 2u);
  EXPECT_LT(plan.rows[0].token, 0);
  EXPECT_EQ(ResultOfToken(plan.rows[0].token), 65);
  EXPECT_EQ(plan.rows[0].position, 300);
  EXPECT_EQ(plan.rows[0].block, 9);
  EXPECT_EQ(plan.rows[1].token, 401);
  ASSERT_EQ(plan.samples.size(), 2u);
  for (const SampleRow& row : plan.samples) EXPECT_EQ(row.first_result, 128);
  EXPECT_EQ(plan.samples[0].position, 301u);
  EXPECT_EQ(plan.samples[0].change_count, 0) << "one token was generated: the end is not masked any more";
  EXPECT_EQ(plan.samples[1].change_count, 1);
}

TEST_F(StepPlanTest, PrefillTilesCoverEveryRowOnceLongestFirst) {
  Batch batch;
  batch.items = {Item(0, 300), Item(1000, 130)};
  const StepPlan plan = BuildStepPlan(batch, {4096, 64}, {});
  ASSERT_EQ(plan.groups.size(), 1u);
  EXPECT_EQ(plan.gather_tiles.size(), 3u + 9u);
  EXPECT_EQ(plan.gather_tiles[2].tokens, 300 - 256);
  std::vector<int> covered(430);
  int32_t before = std::numeric_limits<int32_t>::max();
  for (const QueryTile& tile : plan.query_tiles) {
    for (int32_t row = tile.row; row < tile.row + tile.rows; ++row) {
      ++covered[row];
      EXPECT_EQ(plan.rows[row].position, tile.position + row - tile.row);
    }
    EXPECT_LE(tile.position + tile.rows, before);
    before = tile.position + tile.rows;
  }
  EXPECT_TRUE(std::all_of(covered.begin(), covered.end(), [](int count) { return count == 1; }));
}

TEST_F(StepPlanTest, GroupsFitTheScratch) {
  Batch batch;
  batch.items = {Item(0, 300), Item(0, 300), Item(0, 300)};
  const StepPlan plan = BuildStepPlan(batch, {4096, 7}, {});  // two of three tiles each
  ASSERT_EQ(plan.groups.size(), 2u);
  EXPECT_EQ(plan.groups[0].gather_count, 6);
  EXPECT_EQ(plan.groups[1].gather_begin, 6);
  for (const GatherTile& tile : plan.gather_tiles) EXPECT_LT(tile.tile, 7);
}

TEST_F(StepPlanTest, ChangesAreOneForEachToken) {
  sampling_.repetition_penalty = 2.0f;
  sampling_.frequency_penalty = 0.5f;
  sampling_.presence_penalty = 0.25f;
  sampling_.min_tokens = 100;
  sampling_.logit_bias = {{100, 1.5f}, {5000, 1.0f}};  // the second is outside the vocabulary
  tokens_ = {100, 101, 101, 101};
  BatchItem item = Item(3, 1);
  item.prompt_length = 2;
  Batch batch;
  batch.items = {item};
  const std::vector<TokenId> end_tokens = {101};
  const StepPlan plan = BuildStepPlan(batch, {4096, 64}, end_tokens);
  ASSERT_EQ(plan.changes.size(), 2u);
  const LogitChange& first = plan.changes[0].token == 100 ? plan.changes[0] : plan.changes[1];
  const LogitChange& second = plan.changes[0].token == 100 ? plan.changes[1] : plan.changes[0];
  EXPECT_EQ(first.bias, 1.5f);
  EXPECT_EQ(first.repetition, 2.0f);
  EXPECT_EQ(first.penalty, 0.0f);  // a prompt token
  EXPECT_EQ(second.bias, -std::numeric_limits<float>::infinity());
  EXPECT_EQ(second.penalty, 2 * 0.5f + 0.25f);
  EXPECT_EQ(plan.samples[0].position, 4u);
}

TEST_F(StepPlanTest, PaddingRowsAreInert) {
  Batch batch;
  batch.items = {Item(300, 1)};
  StepPlan plan = BuildStepPlan(batch, {4096, 64}, {});
  PadDecodeRows(4, plan);
  EXPECT_EQ(plan.rows.size(), 4u);
  EXPECT_EQ(plan.decode_rows, 4);
  EXPECT_EQ(plan.rows[3].position, -1);
  EXPECT_EQ(plan.length, (std::vector<int32_t>{301, 0, 0, 0}));
  EXPECT_EQ(plan.unit_prefix,
            (std::vector<int32_t>{0, DecodeUnits(300), DecodeUnits(300), DecodeUnits(300), DecodeUnits(300)}));
  EXPECT_EQ(plan.samples.size(), 4u);
}

// Every section of every row is somebody's once; long decode rows are shared out while there are parts.
TEST_F(StepPlanTest, DeterministicStepsHaveJobsForEverySectionOfEveryRow) {
  for (const int32_t parts : {0, 3, 100}) {
    Batch batch;
    batch.items = {Item(0, 300), Item(1999, 1), Item(1023, 1), Item(1024, 1), Item(900, 130)};
    const StepPlan plan = BuildStepPlan(batch, {4096, 64, true, parts, 4}, {});
    ASSERT_EQ(plan.rows.size(), 433u);
    EXPECT_EQ(plan.decode_rows, 3);
    EXPECT_TRUE(plan.groups.empty());
    std::vector<std::vector<int>> done(plan.rows.size(), std::vector<int>(2));
    std::vector<int> parts_done(parts);
    for (const AttentionJob& job : plan.jobs) {
      for (int32_t row = job.row; row < job.row + job.rows; ++row) {
        const int32_t position = plan.rows[row].position;
        EXPECT_EQ(position, job.position + row - job.row);
        EXPECT_EQ(plan.block_table[job.table_offset + position / kBlockTokens], plan.rows[row].block);
        for (int32_t section = job.first_section; section < job.first_section + job.sections; ++section) {
          if (section * kSectionTokens <= position) ++done[row][section];
        }
      }
      if (job.part < 0) continue;
      EXPECT_EQ(job.rows, 1);
      for (int32_t i = 0; i < job.sections; ++i) ++parts_done.at(job.part + job.first_section + i);
    }
    for (size_t row = 0; row < done.size(); ++row) {
      EXPECT_EQ(done[row], (std::vector<int>{1, plan.rows[row].position >= kSectionTokens})) << row;
    }
    const int used = static_cast<int>(std::ranges::count(parts_done, 1));
    EXPECT_EQ(used, parts == 0 ? 0 : parts == 3 ? 2 : 4);
    EXPECT_EQ(used + std::ranges::count(parts_done, 0), parts);
  }
}

}  // namespace
}  // namespace baton::cuda
