// Reader of safetensors files (https://github.com/huggingface/safetensors#format): eight bytes with the header's
// length, a JSON header, and the tensors' bytes.
//
// Threading: none of its own. Ownership: the tensors point into the bytes that were parsed.
// Errors: InvalidArgument with the tensor's name and what was expected; Unimplemented, by name, for types that are not
// F32, F16, BF16 or F8_E4M3. Limits: headers up to kMaxSafetensorsHeader, tensors of up to 8 dimensions.
#pragma once

#include <cstdint>
#include <span>

#include "base/status.h"
#include "model/weights.h"

namespace baton {

inline constexpr uint64_t kMaxSafetensorsHeader = 100'000'000;  // bytes, as in the reference implementation

absl::StatusOr<TensorMap> ParseSafetensors(std::span<const uint8_t> bytes);

}  // namespace baton
