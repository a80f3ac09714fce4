// A GGUF file as a model: llama.cpp's keys become a configuration and a tokenizer, its tensor names Hugging Face's.
#pragma once

#include "base/status.h"
#include "model/gguf.h"
#include "model/model.h"

namespace baton {

// The parts point into the bytes that `file` was parsed from. Architectures: llama (Llama, Mistral, SmolLM2), qwen2.
// With Contents::kHeaderOnly the tensors are left out (but for the embedding's shape and the rotary factors' absence).
absl::StatusOr<ModelParts> ReadGgufModel(const GgufFile& file);

}  // namespace baton
