#include "backend/cuda/step_plan.h"

#include <algorithm>
#include <limits>
#include <tuple>
#include <unordered_map>

namespace baton::cuda {
namespace {

constexpr float kGreedyTemperature = 1e-5f;  // as backend/sampler.cc

void AddRows(const BatchItem& item, const ResultPlaces& places, StepPlan& plan) {
  if (item.sampled_by >= 0) {  // a decode row whose token the step before samples
    plan.rows.push_back(
        {TokenOfResult(places.before[item.sampled_by]), item.start, item.block_table[item.start / kBlockTokens]});
    return;
  }
  for (int32_t position = item.start; position < item.start + item.count; ++position) {
    plan.rows.push_back({item.tokens[position], position, item.block_table[position / kBlockTokens]});
  }
}

void AddDecode(const BatchItem& item, const ResultPlaces& places, StepPlan& plan) {
  AddRows(item, places, plan);
  const int32_t length = item.start + 1;
  plan.length.push_back(length);
  plan.table_offset.push_back(static_cast<int32_t>(plan.block_table.size()));
  plan.unit_prefix.push_back(plan.unit_prefix.back() + DecodeUnits(length));
  const int32_t blocks = (length + kBlockTokens - 1) / kBlockTokens;
  plan.block_table.insert(plan.block_table.end(), item.block_table.begin(), item.block_table.begin() + blocks);
  ++plan.decode_rows;
}

// An item's rows as jobs. One row over a long context is shared out while there is room for its parts.
void AddJobs(const BatchItem& item, const StepPlanLimits& limits, const ResultPlaces& places, int32_t& parts_used,
             StepPlan& plan) {
  const auto first_row = static_cast<int32_t>(plan.rows.size());
  const auto table_offset = static_cast<int32_t>(plan.block_table.size());
  AddRows(item, places, plan);
  const int32_t blocks = (item.start + item.count + kBlockTokens - 1) / kBlockTokens;
  plan.block_table.insert(plan.block_table.end(), item.block_table.begin(), item.block_table.begin() + blocks);
  for (int32_t done = 0; done < item.count; done += limits.job_rows) {
    AttentionJob job{.row = first_row + done,
                     .rows = std::min(limits.job_rows, item.count - done),
                     .position = item.start + done,
                     .table_offset = table_offset,
                     .part = -1};
    const int32_t sections = (job.position + job.rows - 1) / kSectionTokens + 1;
    if (item.count > 1 || sections == 1 || parts_used + sections > limits.parts) {
      job.sections = sections;
      plan.jobs.push_back(job);
      continue;
    }
    job.sections = 1;
    job.part = parts_used;
    for (; job.first_section < sections; ++job.first_section) plan.jobs.push_back(job);
    parts_used += sections;
  }
}

// Decode rows first, as for the kernels that tell the two apart; returns each item's first row.
std::vector<int32_t> AddInvariantItems(const Batch& batch, const StepPlanLimits& limits, const ResultPlaces& places,
                                       StepPlan& plan) {
  std::vector<int32_t> first_row(batch.items.size());
  int32_t parts_used = 0;
  for (const bool decode : {true, false}) {
    for (size_t i = 0; i < batch.items.size(); ++i) {
      if ((batch.items[i].count == 1) != decode) continue;
      first_row[i] = static_cast<int32_t>(plan.rows.size());
      AddJobs(batch.items[i], limits, places, parts_used, plan);
      if (decode) ++plan.decode_rows;
    }
  }
  auto cost = [](const AttentionJob& job) {
    const int32_t end = std::min(job.position + job.rows, (job.first_section + job.sections) * kSectionTokens);
    return int64_t{end - job.first_section * kSectionTokens} * (1 + job.rows);
  };
  std::ranges::sort(plan.jobs, [&](const AttentionJob& a, const AttentionJob& b) {
    return std::tuple(cost(a), b.row, b.first_section) > std::tuple(cost(b), a.row, a.first_section);
  });
  return first_row;
}

void AddPrefill(const BatchItem& item, const StepPlanLimits& limits, const ResultPlaces& places, int32_t& tiles_used,
                StepPlan& plan) {
  const int32_t end = item.start + item.count;
  const int32_t tiles = (end + kBlockTokens - 1) / kBlockTokens;
  if (plan.groups.empty() || tiles_used + tiles > limits.scratch_tiles) {
    plan.groups.push_back({.gather_begin = static_cast<int32_t>(plan.gather_tiles.size()),
                           .query_begin = static_cast<int32_t>(plan.query_tiles.size())});
    tiles_used = 0;
  }
  StepPlan::Group& group = plan.groups.back();
  for (int32_t i = 0; i < tiles; ++i) {
    plan.gather_tiles.push_back({item.block_table[i], tiles_used + i, std::min(kBlockTokens, end - i * kBlockTokens)});
  }
  const int32_t first_row = static_cast<int32_t>(plan.rows.size());
  for (int32_t done = 0; done < item.count; done += kQueryTile) {
    plan.query_tiles.push_back({.row = first_row + done,
                                .rows = std::min(kQueryTile, item.count - done),
                                .position = item.start + done,
                                .first_tile = tiles_used});
    ++group.query_count;
  }
  group.gather_count += tiles;
  tiles_used += tiles;
  AddRows(item, places, plan);
}

// What the item's parameters change in the logits, one entry a token.
void AddChanges(const BatchItem& item, std::span<const TokenId> end_tokens, int32_t vocabulary, StepPlan& plan) {
  const SamplingParams& params = *item.sampling;
  const int64_t length = int64_t{item.start} + item.count;
  // With a token that is not known there are no penalties (engine/check_batch.h), and nothing else asks for tokens.
  const std::span<const TokenId> tokens = item.tokens.first(item.sampled_by >= 0 ? length - 1 : length);
  std::unordered_map<TokenId, LogitChange> changes;
  auto change_of = [&](TokenId token) -> LogitChange* {
    if (token < 0 || token >= vocabulary) return nullptr;
    return &changes.try_emplace(token, LogitChange{token, 0.0f, 1.0f, 0.0f}).first->second;
  };
  for (const auto& [token, bias] : params.logit_bias) {
    if (LogitChange* change = change_of(token)) change->bias += bias;
  }
  if (length - item.prompt_length < params.min_tokens) {
    auto mask = [&](std::span<const TokenId> masked) {
      for (TokenId token : masked) {
        if (LogitChange* change = change_of(token)) change->bias = -std::numeric_limits<float>::infinity();
      }
    };
    mask(end_tokens);
    mask(params.stop_token_ids);
  }
  if (params.repetition_penalty != 1.0f) {
    for (TokenId token : tokens) {
      if (LogitChange* change = change_of(token)) change->repetition = params.repetition_penalty;
    }
  }
  if (params.frequency_penalty != 0.0f || params.presence_penalty != 0.0f) {
    std::unordered_map<TokenId, int32_t> counts;
    for (TokenId token : tokens.subspan(std::min<size_t>(item.prompt_length, tokens.size()))) ++counts[token];
    for (const auto& [token, count] : counts) {
      if (LogitChange* change = change_of(token)) {
        change->penalty = params.frequency_penalty * static_cast<float>(count) + params.presence_penalty;
      }
    }
  }
  for (const auto& [token, change] : changes) plan.changes.push_back(change);
}

void AddSample(const BatchItem& item, int32_t last_row, std::span<const TokenId> end_tokens, int32_t vocabulary,
               StepPlan& plan) {
  const SamplingParams& params = *item.sampling;
  SampleRow row{};
  row.seed = params.seed;
  row.choice = static_cast<uint64_t>(params.choice);
  row.position = static_cast<uint64_t>(item.start) + item.count;
  row.logits_row = static_cast<int32_t>(plan.samples.size());
  row.target = -1;
  row.inverse_temperature = params.temperature < kGreedyTemperature ? 0.0f : 1.0f / params.temperature;
  row.top_p = params.top_p;
  row.min_p = params.min_p;
  row.top_k = params.top_k;
  row.top_logprobs = std::min(params.top_logprobs, kMaxTopLogprobs);
  row.first_result = plan.first_result;
  row.change_begin = static_cast<int32_t>(plan.changes.size());
  AddChanges(item, end_tokens, vocabulary, plan);
  row.change_count = static_cast<int32_t>(plan.changes.size()) - row.change_begin;
  plan.sample_rows.push_back(last_row);
  plan.samples.push_back(row);
}

void AddScores(const BatchItem& item, int32_t first_row, StepPlan& plan) {
  const int32_t top = item.sampling == nullptr ? 0 : std::clamp(item.sampling->top_logprobs, 0, kMaxTopLogprobs);
  const int32_t end = std::min(item.start + item.count, item.prompt_length - 1);
  for (int32_t position = item.start; position < end; ++position) {
    SampleRow row{};
    row.target = item.tokens[position + 1];
    row.top_logprobs = top;
    row.first_result = plan.first_result;
    plan.scored_rows.push_back(first_row + position - item.start);
    plan.scored.push_back(row);
  }
}

// Sequences of decode attention and tiles of prefill attention; returns each item's first row.
std::vector<int32_t> AddItems(const Batch& batch, const StepPlanLimits& limits, const ResultPlaces& places,
                              StepPlan& plan) {
  std::vector<int32_t> first_row(batch.items.size());
  for (size_t i = 0; i < batch.items.size(); ++i) {
    if (batch.items[i].count != 1) continue;
    first_row[i] = static_cast<int32_t>(plan.rows.size());
    AddDecode(batch.items[i], places, plan);
  }
  int32_t tiles_used = 0;
  for (size_t i = 0; i < batch.items.size(); ++i) {
    if (batch.items[i].count == 1) continue;
    first_row[i] = static_cast<int32_t>(plan.rows.size());
    AddPrefill(batch.items[i], limits, places, tiles_used, plan);
  }
  for (const StepPlan::Group& group : plan.groups) {  // long tiles first, so that no long one starts last
    const auto begin = plan.query_tiles.begin() + group.query_begin;
    std::sort(begin, begin + group.query_count, [](const QueryTile& a, const QueryTile& b) {
      return std::pair(a.position + a.rows, b.row) > std::pair(b.position + b.rows, a.row);
    });
  }
  return first_row;
}

}  // namespace

StepPlan BuildStepPlan(const Batch& batch, const StepPlanLimits& limits, std::span<const TokenId> end_tokens,
                       const ResultPlaces& places) {
  StepPlan plan;
  plan.first_result = places.first;
  plan.unit_prefix.push_back(0);
  const std::vector<int32_t> first_row =
      limits.invariant ? AddInvariantItems(batch, limits, places, plan) : AddItems(batch, limits, places, plan);
  for (size_t i = 0; i < batch.items.size(); ++i) {
    const BatchItem& item = batch.items[i];
    if (item.sample) AddSample(item, first_row[i] + item.count - 1, end_tokens, limits.vocabulary, plan);
    if (item.prompt_logprobs) AddScores(item, first_row[i], plan);
  }
  return plan;
}

void PadDecodeRows(int32_t rows, StepPlan& plan) {
  while (plan.decode_rows < rows) {
    plan.rows.push_back({.token = 0, .position = -1, .block = 0});
    plan.length.push_back(0);
    plan.table_offset.push_back(0);
    plan.unit_prefix.push_back(plan.unit_prefix.back());
    SampleRow row{};
    row.logits_row = static_cast<int32_t>(plan.samples.size());
    row.target = -1;
    row.top_p = 1.0f;
    row.top_logprobs = -1;
    row.first_result = plan.first_result;
    plan.sample_rows.push_back(plan.decode_rows);
    plan.samples.push_back(row);
    ++plan.decode_rows;
  }
}

}  // namespace baton::cuda
