// Refuses a batch that an engine could not run, before anything is computed or overwritten.
//
// Threading: pure. Errors: InvalidArgument, naming the item; the engine is as it was (Internal would poison it).
#pragma once

#include <vector>

#include "core/batch.h"
#include "core/engine.h"

namespace baton {

// `samples`: of each item of the step in flight, whether it samples; empty when there is none.
absl::Status CheckBatch(const Batch& batch, const EngineInfo& info, const std::vector<bool>& samples);

}  // namespace baton
