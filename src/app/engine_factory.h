// From flags to an engine and a scheduler's options: loads the model, measures the machine, and says what was chosen.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "app/options.h"
#include "base/status.h"
#include "core/engine.h"
#include "engine/sim_engine.h"
#include "scheduler/scheduler.h"

namespace baton {

struct LoadedEngine {
  std::unique_ptr<Engine> engine;
  SchedulerOptions scheduler;
  double prefill_tokens_per_second = 0;  // measured; 0: not
};

absl::StatusOr<LoadedEngine> LoadEngine(const EngineFlags& flags, std::function<void(double fraction)> on_progress);

// "instant", or "step_us=1000,prefill_us=50,decode_us=100,context_us=0.1,blocks=4096".
absl::StatusOr<SimOptions> ParseSimProfile(const std::string& text);

}  // namespace baton
