// The tokenizer that a GGUF file carries.
#pragma once

#include <optional>

#include "base/status.h"
#include "core/tokenizer_data.h"
#include "model/gguf.h"

namespace baton {

// Nothing when the file has no tokenizer. `vocabulary`: rows of the embedding, of which the tokens may be fewer.
// Unimplemented for tokenizers that are not byte-level BPE.
absl::StatusOr<std::optional<TokenizerData>> ReadGgufTokenizer(const GgufFile& file, int32_t vocabulary);

}  // namespace baton
