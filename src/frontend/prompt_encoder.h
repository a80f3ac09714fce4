// From a request's text or messages to tokens, refusing what the model's context cannot hold.
//
// Threading: const calls from any thread. Ownership: the tokenizer must outlive it.
// Errors: InvalidArgument with OpenAI's code context_length_exceeded and all three numbers; the template's own errors.
// Limits: the work for a text that is too long is bounded by the context's length, not by the text's.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "frontend/chat_formatter.h"
#include "frontend/openai_request.h"
#include "text/tokenizer.h"

namespace baton {

class PromptEncoder {
 public:
  PromptEncoder(const Tokenizer& tokenizer, ChatFormatter formatter, int64_t max_model_len);

  // Prompts of a request, each with room for at least one token, and for max_tokens if they are given.
  absl::StatusOr<std::vector<std::vector<TokenId>>> EncodePrompts(const GenerationRequest& request) const;
  absl::StatusOr<std::vector<TokenId>> EncodeText(std::string_view text, bool add_special_tokens,
                                                  std::string_view param, int64_t max_tokens) const;
  const ChatFormatter& formatter() const { return formatter_; }
  int64_t max_model_len() const { return max_model_len_; }

 private:
  absl::Status CheckLength(int64_t prompt_tokens, int64_t max_tokens, std::string_view param, bool at_least) const;
  absl::StatusOr<int64_t> LeastTokens(std::string_view text) const;

  const Tokenizer& tokenizer_;
  const ChatFormatter formatter_;
  const int64_t max_model_len_;
  int64_t longest_token_ = 1;  // bytes
};

}  // namespace baton
