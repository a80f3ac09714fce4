// From flags to an engine and a scheduler's options: loads the model, measures the machine, and says what was chosen.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "app/options.h"
#include "base/status.h"
#include "core/engine.h"
#include "engine/sim_engine.h"
#include "model/model.h"
#include "scheduler/scheduler.h"

namespace baton {

struct LoadedEngine {
  std::unique_ptr<Engine> engine;
  SchedulerOptions scheduler;
  double prefill_tokens_per_second = 0;  // measured; 0: not
};

absl::StatusOr<LoadedEngine> LoadEngine(const EngineFlags& flags, std::function<void(double fraction)> on_progress);

// The two halves of that without the scheduler's part. Dummy weights for a GPU come as recipes. `kv_tokens`: room in
// the KV cache; 0: as the flags or the device's memory say.
absl::StatusOr<Model> LoadModelFor(const EngineFlags& flags);
absl::StatusOr<std::unique_ptr<Engine>> CreateEngine(const EngineFlags& flags, const Model& model, int64_t kv_tokens,
                                                     std::function<void(double fraction)> on_progress = nullptr);

// "instant", or "step_us=1000,prefill_us=50,decode_us=100,context_us=0.1,blocks=4096,ahead=1". ahead: it takes a step
// while one runs, as GPUs do.
absl::StatusOr<SimOptions> ParseSimProfile(const std::string& text);

}  // namespace baton
