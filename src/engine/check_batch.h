// Refuses a batch that an engine could not run, before anything is computed or overwritten.
//
// Threading: pure. Errors: InvalidArgument, naming the item; the engine is as it was (Internal would poison it).
#pragma once

#include "core/batch.h"
#include "core/engine.h"

namespace baton {

absl::Status CheckBatch(const Batch& batch, const EngineInfo& info);

}  // namespace baton
