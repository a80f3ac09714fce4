#include "planner/hardware.h"

#include <algorithm>

namespace baton {
namespace {

constexpr double kKvBytesPerToken = 163840;  // FP8
constexpr double kKvGib = 50;                // of each GPU, beside 68.5 GB of weights / tensor_parallel

// Products of 80 layers, milliseconds: the last token of one tile and the first of the next.
std::vector<StepTimeTable::Point> Tp1Products() {
  return {{1, 16900},   {32, 17200},  {64, 17800},  {128, 18800},   {129, 28000},   {256, 29100},
          {257, 42000}, {384, 43500}, {385, 55200}, {512, 56700},   {513, 69000},   {640, 70500},
          {641, 83000}, {768, 84500}, {769, 97000}, {1024, 111600}, {2048, 219800}, {3072, 324000}};
}

// A shard has 1 / size of the arithmetic; what is bound by memory or latency shrinks less.
std::vector<StepTimeTable::Point> ShardProducts(double smallest_us, double share) {
  std::vector<StepTimeTable::Point> points = Tp1Products();
  for (StepTimeTable::Point& point : points) point.us = std::max(smallest_us, share * point.us);
  return points;
}

}  // namespace

double SimulatedGpu::StepUs(const StepShape& shape) const {
  const StepTimeTable table{
      .products = products, .decode_context_us = decode_context_us, .prefill_context_us = prefill_context_us};
  const auto tokens = static_cast<double>(shape.decode_rows + shape.prompt_tokens);
  return tokens == 0 ? 0 : table.StepUs(shape) + fixed_us + token_us * tokens;
}

SimulatedGpu H200Llama70B(int32_t tensor_parallel) {
  SimulatedGpu gpu{.products = Tp1Products(),
                   .fixed_us = 2300,
                   .token_us = 5.4,
                   .decode_context_us = 0.047,
                   .prefill_context_us = 0.0053,
                   .kv_bytes_per_token = static_cast<int64_t>(kKvBytesPerToken)};
  const double size = tensor_parallel;
  // TP2: 115 µs a layer at 32 rows, 614 at 1,024; TP4: 65.8 at 32, 887 at 3,072.
  if (tensor_parallel == 2) gpu.products = ShardProducts(9200, 0.5);
  if (tensor_parallel == 4) gpu.products = ShardProducts(5300, 0.25);
  if (tensor_parallel > 1) {
    gpu.fixed_us = 1500 + 160.0 * (tensor_parallel == 2 ? 8 : 10);
    gpu.token_us = 5.4 / size + 6.6;
    gpu.decode_context_us /= size;
    gpu.prefill_context_us /= size;
  }
  gpu.kv_tokens = static_cast<int64_t>(kKvGib * size * 1073741824.0 / kKvBytesPerToken);
  return gpu;
}

StepTimeTable MeasuredTable(const SimulatedGpu& gpu) {
  StepTimePlan plan{.tokens = {1, 32, 64}, .decode_rows = 64, .context = 2048};
  for (int32_t tile = 128; tile <= 1024; tile += 128) {
    plan.tokens.push_back(tile);
    plan.tokens.push_back(tile + 1);
  }
  const auto measure = [&](const StepShape& shape) -> absl::StatusOr<double> { return gpu.StepUs(shape); };
  return *MeasureStepTimes(plan, measure);  // nothing here can fail
}

}  // namespace baton
