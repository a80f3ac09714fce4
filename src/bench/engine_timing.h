// `baton bench engine`: times an engine's steps in this process, each beside its floor and with the kinds of kernels
// that its time goes to. Decode steps run one ahead where the engine takes a step while one runs, as in the step loop.
//
// Threading: one thread; the engine is used alone. Ownership: the caller's engine. Errors: those of the engine;
// InvalidArgument when it is too small for what was asked.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/status.h"
#include "bench/engine_work.h"
#include "core/engine.h"

namespace baton {

struct MixedStep {
  int32_t decode_rows = 0;
  int32_t prompt_tokens = 0;
};

struct EngineBenchOptions {
  std::vector<int32_t> prefill;  // tokens of one prompt, computed in one step
  std::vector<int32_t> decode;   // rows of a step
  int32_t context = 0;           // tokens that each decode row sees
  std::vector<MixedStep> mixed;  // the prompt's part begins in the middle of `context` tokens
  double seconds = 1.0;          // at most, for each kind of step, once it has run a few times
};

// What an engine must have for `options`.
struct EngineBenchNeeds {
  int32_t max_batch_tokens = 0;
  int32_t max_sequences = 0;
  int32_t max_model_len = 0;
  int32_t context = 0;  // tokens of each sequence while decode rows are measured

  // Room in the KV cache, whatever its blocks of up to 128 tokens. Prefills come first, and then give their room back.
  int64_t KvTokens() const { return std::max<int64_t>(int64_t{max_sequences} * (context + 128), max_model_len) + 128; }
};
EngineBenchNeeds NeedsOf(const EngineBenchOptions& options);

struct EngineBenchRow {
  std::string name;
  BenchStep step;
  double median_us = 0, best_us = 0, floor_us = 0;
  double idle_us = 0;  // of the device between two of these steps in a row; 0 where it is not measured
  StepProfile profile{};
  int32_t runs = 0;

  // What the families leave of the step: positive where nothing ran, negative where they overlap.
  double gaps_us() const {
    double rest = median_us;
    for (const double part : profile) rest -= part;
    return rest;
  }
};

// `on_row` is called as rows come out.
absl::StatusOr<std::vector<EngineBenchRow>> MeasureEngine(Engine& engine, const EngineWork& work,
                                                          const Ceilings& ceilings, const EngineBenchOptions& options,
                                                          const std::function<void(const EngineBenchRow&)>& on_row);

// ---- the report (engine_report.cc) ----
struct EngineBenchContext {
  std::string version, model, device, started_at;
  Ceilings ceilings;
  double load_seconds = 0;  // until the engine was ready
};
std::string EngineTableHeader(const EngineBenchContext& context);
std::string EngineTableRow(const EngineBenchRow& row);
std::string EngineJson(const EngineBenchContext& context, const std::vector<EngineBenchRow>& rows);

}  // namespace baton
