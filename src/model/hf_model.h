// A directory as Hugging Face lays it out: config.json, generation_config.json, and weights in one or several
// safetensors files.
#pragma once

#include <string>

#include "base/status.h"
#include "model/model.h"

namespace baton {

// The configuration and the defaults; no weights. NotFound names the file that is missing.
absl::StatusOr<ModelParts> ReadHfConfiguration(const std::string& directory);

// The weights too. With model.safetensors.index.json every tensor that it lists must be in the file that it names.
absl::StatusOr<ModelParts> ReadHfModel(const std::string& directory);

}  // namespace baton
