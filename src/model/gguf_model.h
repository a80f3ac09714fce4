// A GGUF file as a model: llama.cpp's keys become a configuration and a tokenizer, its tensor names Hugging Face's.
#pragma once

#include "base/status.h"
#include "model/gguf.h"
#include "model/model.h"

namespace baton {

// The parts point into the bytes that `file` was parsed from. Architectures: llama (Llama, Mistral, SmolLM2), qwen2.
// Of a file that was parsed with Contents::kHeaderOnly the tensors have no data, and Llama 3's rotary factors, which
// are data, do not enter the configuration.
absl::StatusOr<ModelParts> ReadGgufModel(const GgufFile& file);

}  // namespace baton
