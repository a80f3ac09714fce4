// Refuses a model or a KV cache that the CPU kernels cannot run, before anything is allocated.
//
// Threading: pure. Errors: Unimplemented for what has no kernel, InvalidArgument for what does not fit together.
#pragma once

#include "backend/backend.h"

namespace baton::cpu {

absl::Status CheckShape(const ModelShape& shape, const KvLayout& kv, int32_t num_blocks);

}  // namespace baton::cpu
