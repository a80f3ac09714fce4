// A tokenizer for the tests of this folder: one token for each byte, then "hello", then the end token.
#pragma once

#include <string>
#include <vector>

#include "core/tokenizer_data.h"
#include "text/byte_alphabet.h"
#include "text/tokenizer.h"

namespace baton {

inline constexpr TokenId kTestHello = 256;
inline constexpr TokenId kTestEnd = 257;
inline constexpr int32_t kTestVocabulary = 258;

inline TokenizerData TestTokenizerData() {
  TokenizerData data;
  for (int byte = 0; byte < 256; ++byte)
    data.tokens.push_back(AlphabetOfBytes(std::string(1, static_cast<char>(byte))));
  data.tokens.insert(data.tokens.end(), {"hello", "<end>"});
  data.added_tokens = {{.id = kTestHello, .content = "hello"}, {.id = kTestEnd, .content = "<end>", .special = true}};
  data.eos = {kTestEnd};
  return data;
}

inline const Tokenizer& TestTokenizer() {
  static const Tokenizer* const tokenizer = new Tokenizer(*Tokenizer::Create(TestTokenizerData()));
  return *tokenizer;
}

}  // namespace baton
