#include "core/step_time_table.h"

#include <algorithm>
#include <cmath>

namespace baton {
namespace {

constexpr size_t kPointsMax = 256;

double Interpolate(const std::vector<StepTimeTable::Point>& points, double tokens) {
  if (points.size() == 1 || tokens <= points.front().tokens) return points.front().us;
  const auto above = std::upper_bound(points.begin() + 1, points.end() - 1, tokens,
                                      [](double value, const auto& point) { return value < point.tokens; });
  const auto& low = *(above - 1);
  const double share = (tokens - low.tokens) / (above->tokens - low.tokens);
  return low.us + share * (above->us - low.us);
}

}  // namespace

double StepTimeTable::StepUs(const StepShape& shape) const {
  if (empty() || (shape.decode_rows <= 0 && shape.prompt_tokens <= 0)) return 0;
  const auto rows = static_cast<double>(shape.decode_rows), prompt = static_cast<double>(shape.prompt_tokens);
  double us = Interpolate(products, rows + prompt) + decode_row_us * rows;
  if (shape.prompt_tokens <= 0) us += decode_only_us;
  const double before = static_cast<double>(shape.prompt_context) + prompt / 2;
  return factor * (std::max(0.0, us) + decode_context_us * static_cast<double>(shape.decode_context) +
                   prefill_context_us * prompt * before);
}

double StepTimeTable::PrefillUs(int64_t tokens, int64_t cached, int32_t chunk_tokens, int64_t prompts) const {
  if (tokens <= 0 || empty()) return 0;
  const int64_t chunk = std::clamp<int64_t>(chunk_tokens, 1, tokens);
  const int64_t rest = tokens % chunk;
  const auto count = static_cast<double>(tokens);
  const double each = count / static_cast<double>(std::max<int64_t>(1, prompts));
  const double context = prefill_context_us * count * (static_cast<double>(cached) + each / 2);
  return factor * (static_cast<double>(tokens / chunk) * Interpolate(products, static_cast<double>(chunk)) +
                   (rest > 0 ? Interpolate(products, static_cast<double>(rest)) : 0) + context);
}

absl::Status StepTimeTable::Validate() const {
  if (products.empty() || products.size() > kPointsMax || products.front().tokens < 1) {
    return InvalidArgument("step times: expected 1 to ", kPointsMax, " points from at least 1 token, found ",
                           products.size(), products.empty() ? "" : Cat(" from ", products.front().tokens));
  }
  for (size_t i = 0; i < products.size(); ++i) {
    if (!std::isfinite(products[i].us) || products[i].us < 0) {
      return InvalidArgument("step times: a time that is negative or no number for ", products[i].tokens, " tokens");
    }
    if (i > 0 && products[i].tokens <= products[i - 1].tokens) {
      return InvalidArgument("step times: points must ascend, found ", products[i].tokens, " tokens after ",
                             products[i - 1].tokens);
    }
  }
  const bool finite = std::isfinite(decode_row_us) && std::isfinite(decode_only_us);
  const bool scaled = std::isfinite(factor) && factor > 0;
  const auto is_slope = [](double us) { return std::isfinite(us) && us >= 0; };
  if (!finite || !scaled || !is_slope(decode_context_us) || !is_slope(prefill_context_us)) {
    return InvalidArgument(
        "step times: what rows and context add must be finite, context must not save time, and the "
        "factor must be positive");
  }
  return absl::OkStatus();
}

StepTimeTable StepTimeTable::FromRates(double prefill_tokens_per_second, double decode_step_us) {
  constexpr int32_t kTokens = 1024;
  // A sequence more lengthens each step a little; decoding is bound by memory, so not in proportion.
  constexpr double kStepGrowthPerRow = 0.02;
  const double token_us = 1e6 / prefill_tokens_per_second;
  const double row_us = kStepGrowthPerRow * decode_step_us - token_us;
  const double first_us = decode_step_us - row_us;
  return {.products = {{1, first_us}, {kTokens, first_us + (kTokens - 1) * token_us}}, .decode_row_us = row_us};
}

absl::StatusOr<StepTimeTable> MeasureStepTimes(const StepTimePlan& plan,
                                               const std::function<absl::StatusOr<double>(const StepShape&)>& measure) {
  StepTimeTable table;
  for (const int32_t tokens : plan.tokens) {
    BATON_ASSIGN_OR_RETURN(const double us, measure({.prompt_tokens = tokens}));
    table.products.push_back({tokens, us});
  }
  const int64_t rows = std::max(1, plan.decode_rows);
  const auto beyond_products = [&](int64_t count, double us) {
    return us - Interpolate(table.products, static_cast<double>(count));
  };
  BATON_ASSIGN_OR_RETURN(const double one_us, measure({.decode_rows = 1}));
  table.decode_only_us = beyond_products(1, one_us);
  if (rows > 1) {
    BATON_ASSIGN_OR_RETURN(const double rows_us, measure({.decode_rows = rows}));
    table.decode_row_us = (beyond_products(rows, rows_us) - table.decode_only_us) / static_cast<double>(rows - 1);
    table.decode_only_us -= table.decode_row_us;
  }
  if (plan.context <= 0) return table;
  const StepShape deep_decode{.decode_rows = rows, .decode_context = rows * plan.context};
  BATON_ASSIGN_OR_RETURN(const double decode_us, measure(deep_decode));
  table.decode_context_us =
      std::max(0.0, decode_us - table.StepUs({.decode_rows = rows})) / static_cast<double>(deep_decode.decode_context);
  // Of a chunk of middle size; the points above contain what its own tokens add, which is little.
  const int64_t chunk = plan.tokens[plan.tokens.size() / 2];
  BATON_ASSIGN_OR_RETURN(const double prefill_us, measure({.prompt_tokens = chunk, .prompt_context = plan.context}));
  table.prefill_context_us = std::max(0.0, prefill_us - Interpolate(table.products, static_cast<double>(chunk))) /
                             static_cast<double>(chunk) / plan.context;
  for (StepTimeTable::Point& point : table.products) {
    const double tokens = point.tokens;
    point.us = std::max(0.0, point.us - table.prefill_context_us * tokens * tokens / 2);
  }
  return table;
}

}  // namespace baton
