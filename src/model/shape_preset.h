// Configurations of well-known models by name, for running their shapes with dummy weights and no file at all.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "model/config.h"

namespace baton {

// llama-70b-fp8, llama-70b-fp8-tp4 (one rank of four), llama-8b-fp8, llama-8b (Llama 3.1), smollm2-135m. NotFound lists
// the names.
absl::StatusOr<ModelConfig> ShapePreset(std::string_view name);
std::vector<std::string> ShapePresetNames();

}  // namespace baton
