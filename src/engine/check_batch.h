// Refuses a batch that an engine could not run, before anything is computed or overwritten.
//
// Threading: pure. Errors: Internal, since a batch comes from this program's own scheduler; the message names the item.
#pragma once

#include "core/batch.h"
#include "core/engine.h"

namespace baton {

absl::Status CheckBatch(const Batch& batch, const EngineInfo& info);

}  // namespace baton
