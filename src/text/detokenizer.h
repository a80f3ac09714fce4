// Text of an answer while its tokens arrive: what Append returns is final and never a part of a character.
//
//   IncrementalDetokenizer detokenizer(tokenizer, /*skip_special_tokens=*/true);
//   for (TokenId token : tokens) Send(detokenizer.Append(token));
//   Send(detokenizer.Finish());
//
// All together this is what Tokenizer::Decode gives of all tokens at once, replaced invalid bytes included.
//
// Threading: one thread. Ownership: the tokenizer must outlive it. Errors: none. Limits: holds back at most 3 bytes.
#pragma once

#include <string>
#include <string_view>

#include "core/ids.h"

namespace baton {

class Tokenizer;

class IncrementalDetokenizer {
 public:
  IncrementalDetokenizer(const Tokenizer& tokenizer, bool skip_special_tokens)
      : tokenizer_(&tokenizer), skip_special_tokens_(skip_special_tokens) {}

  std::string Append(TokenId token);
  // What is left when no token will follow: nothing, or U+FFFD for a character that stayed incomplete.
  std::string Finish();

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_tokens_;
  std::string pending_;  // the beginning of a character
};

}  // namespace baton
