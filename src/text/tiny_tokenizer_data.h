// A small tokenizer for tests: all 256 bytes (token = byte), then "he", "ll", "hell" and " w", and three added tokens.
#pragma once

#include <string>

#include "core/tokenizer_data.h"
#include "text/byte_alphabet.h"
#include "text/pre_tokenizer.h"

namespace baton {

inline constexpr TokenId kTinyHe = 256, kTinyLl = 257, kTinyHell = 258, kTinySpaceW = 259;
inline constexpr TokenId kTinyBegin = 260, kTinyEnd = 261, kTinyTool = 262;

inline TokenizerData TinyTokenizerData() {
  TokenizerData data;
  for (int byte = 0; byte < 256; ++byte)
    data.tokens.push_back(AlphabetOfBytes(std::string(1, static_cast<char>(byte))));
  for (const char* token : {"he", "ll", "hell", "Ġw", "<s>", "</s>", "<tool>"}) data.tokens.push_back(token);
  data.merges = {{"h", "e"}, {"l", "l"}, {"he", "ll"}, {"Ġ", "w"}};
  data.added_tokens = {{.id = kTinyBegin, .content = "<s>", .special = true},
                       {.id = kTinyEnd, .content = "</s>", .special = true},
                       {.id = kTinyTool, .content = "<tool>"}};
  data.pre_tokenizer = {{.pattern = std::string(kGpt2Pattern)}};
  data.bos = kTinyBegin;
  data.eos = {kTinyEnd};
  return data;
}

}  // namespace baton
