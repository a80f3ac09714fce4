// One short name for the contents of a model, without reading all of it.
#pragma once

#include <string>

#include "model/config.h"
#include "model/weights.h"

namespace baton {

// 32 hex digits (xxh3, 128 bits) over the configuration and, in the order of names, every tensor's name, type, shape
// and sampled bytes: its beginning, its end and a few places between. Reads about 1 KiB of each tensor.
std::string FingerprintModel(const ModelConfig& config, const TensorMap& tensors);

}  // namespace baton
