// Text to tokens and back: byte-level BPE with added tokens, token for token what Hugging Face's `tokenizers` gives.
//
//   BATON_ASSIGN_OR_RETURN(const Tokenizer tokenizer, Tokenizer::Create(data));
//   BATON_ASSIGN_OR_RETURN(std::vector<TokenId> prompt, tokenizer.Encode("Once upon a time"));
//   std::string text = tokenizer.Decode(prompt, /*skip_special_tokens=*/true);
//
// Threading: const calls from any thread. Ownership: keeps what it needs of the data; views live as long as it does.
// Errors: Create says what does not fit together. Encode fails only for texts of 2 GiB and more, and for patterns that
//   need too much work (ResourceExhausted). Input that is no UTF-8 is read as Python's errors="replace" would: each
//   maximal invalid part is U+FFFD. Decode does the same with bytes that tokens leave incomplete.
// Difference: an added token decodes to its own text always; the reference reads one that happens to consist of the
//   byte-level alphabet with letters outside of ASCII ("«x»") as bytes, and gets U+FFFD.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "core/tokenizer_data.h"

namespace baton {

struct EncodeOptions {
  bool add_special_tokens = true;  // put the beginning-of-sequence token first, where the model wants it
  bool parse_special = true;       // the text of a special token, as in "<|im_start|>", is that token
};

class Tokenizer {
 public:
  static absl::StatusOr<Tokenizer> Create(const TokenizerData& data);
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  absl::StatusOr<std::vector<TokenId>> Encode(std::string_view text, EncodeOptions options = {}) const;
  // Tokens outside of the vocabulary are left out.
  std::string Decode(std::span<const TokenId> tokens, bool skip_special_tokens) const;

  // The bytes that a token stands for: perhaps a part of a character. Empty outside of the vocabulary.
  std::string_view TokenBytes(TokenId token) const;
  // The same as valid UTF-8, for people.
  std::string TokenText(TokenId token) const;
  bool IsSpecial(TokenId token) const;
  // The id of the token with exactly this text: FindToken("<|im_end|>"). Ordinary tokens by their bytes.
  std::optional<TokenId> FindToken(std::string_view text) const;

  int32_t vocabulary_size() const;
  TokenId bos() const;                      // -1: none
  bool add_bos() const;                     // whether Encode puts it first
  const std::vector<TokenId>& eos() const;  // tokens that end an answer

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace baton
