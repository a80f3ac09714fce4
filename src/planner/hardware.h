// Step times of GPUs that are not there: Llama-3.3-70B in FP8 on H200s, from measurements of single steps.
//
// TP1: this project's own steps (benchmarks/2026-11-24-h200-fifth: prefill of 512 / 3,000 / 8,192 tokens in 66.7 /
// 367 / 1,073 ms; decode of 1 / 8 / 32 / 64 sequences at 3,075 tokens in 19.4 / 20.0 / 24.3 / 29.3 ms) and the products
// of 80 layers on the same card by number of tokens, which jump where a tile of 128 is full. TP2 and TP4: measured
// products of the shards, half and a quarter of the attention, and 160 all-reduces a step (an assumption: 8 and 10 µs
// each, and what NVLink needs for the bytes).
#pragma once

#include <cstdint>
#include <vector>

#include "core/step_time_table.h"

namespace baton {

// What a step really takes. A table (core/step_time_table.h) is a measurement of it at a few points.
struct SimulatedGpu {
  std::vector<StepTimeTable::Point> products;  // at every point where the line breaks
  double fixed_us = 0;                         // launches, sampling, host
  double token_us = 0;                         // element-wise work, all-reduces
  double decode_context_us = 0;                // as in StepTimeTable
  double prefill_context_us = 0;
  int64_t kv_tokens = 0;           // room of the KV cache
  int64_t kv_bytes_per_token = 0;  // of the whole worker
  double StepUs(const StepShape& shape) const;
};

// `tensor_parallel`: 1, 2 or 4 GPUs.
SimulatedGpu H200Llama70B(int32_t tensor_parallel);

// The table that a worker with this GPU would measure at its start.
StepTimeTable MeasuredTable(const SimulatedGpu& gpu);

}  // namespace baton
