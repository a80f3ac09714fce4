// Reads a Hugging Face tokenizer: tokenizer.json, tokenizer_config.json and chat_template.jinja.
//
// What is supported is what byte-level BPE tokenizers are published with (GPT-2, SmolLM2, Llama 3, Qwen 2 and 3,
// DeepSeek): model BPE; normalizer NFC or none; pre-tokenizer ByteLevel, alone or after Split (Isolated) and Digits;
// decoder ByteLevel; post-processor ByteLevel, or TemplateProcessing that puts the beginning-of-sequence token first.
// Everything else is refused by name. `truncation` and `padding` are ignored: they are for training.
//
// Threading: any thread. Errors: NotFound for a missing file, InvalidArgument with the path within the JSON, what was
//   expected and what was found. Limits: 256 MiB a file, depth 32, 4 Mi tokens.
#pragma once

#include <filesystem>
#include <string_view>

#include "base/status.h"
#include "core/tokenizer_data.h"

namespace baton {

// `directory` holds tokenizer.json and, if the model has them, the other two.
absl::StatusOr<TokenizerData> ReadTokenizerDirectory(const std::filesystem::path& directory);

absl::StatusOr<TokenizerData> ParseTokenizerJson(std::string_view json);
// Adds what tokenizer_config.json says: the special tokens' texts, eos, the chat template (of a list the one named
// "default"), and add_bos_token, which, where it is given, overrules tokenizer.json.
absl::Status ApplyTokenizerConfig(std::string_view json, TokenizerData& data);

}  // namespace baton
