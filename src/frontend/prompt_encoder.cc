#include "frontend/prompt_encoder.h"

#include <algorithm>
#include <utility>

#include "frontend/api_error.h"

namespace baton {
namespace {

constexpr size_t kSliceBytes = 16 << 10;
// Tokens that cutting a text in two may add to it, generously.
constexpr int64_t kCutTokens = 32;
// Unicode normalization may shorten a text before it becomes tokens, at most to a third.
constexpr int64_t kNormalizationFactor = 3;
// Texts of fewer bytes for each token of the context are simply tokenized.
constexpr int64_t kSuspiciousBytesPerToken = 8;

bool IsContinuationByte(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

}  // namespace

PromptEncoder::PromptEncoder(const Tokenizer& tokenizer, ChatFormatter formatter, int64_t max_model_len)
    : tokenizer_(tokenizer), formatter_(std::move(formatter)), max_model_len_(max_model_len) {
  for (TokenId token = 0; token < tokenizer.vocabulary_size(); ++token) {
    longest_token_ = std::max(longest_token_, static_cast<int64_t>(tokenizer.TokenBytes(token).size()));
  }
}

absl::Status PromptEncoder::CheckLength(int64_t prompt_tokens, int64_t max_tokens, std::string_view param,
                                        bool at_least) const {
  const int64_t wanted = std::max<int64_t>(max_tokens, 1);
  if (prompt_tokens + wanted <= max_model_len_) return absl::OkStatus();
  return WithParam(
      InvalidArgument("this model's context holds ", max_model_len_, " tokens, but ", at_least ? "at least " : "",
                      prompt_tokens + wanted, " were asked for: ", at_least ? "at least " : "", prompt_tokens,
                      " in the prompt and ", wanted, " for the answer (max_tokens); shorten one of them"),
      param, "context_length_exceeded");
}

// A number of tokens that the text surely has, found without tokenizing more than the context could hold.
absl::StatusOr<int64_t> PromptEncoder::LeastTokens(std::string_view text) const {
  const int64_t bytes = static_cast<int64_t>(text.size());
  const int64_t floor = bytes / (longest_token_ * kNormalizationFactor);
  if (floor > max_model_len_ || bytes < kSuspiciousBytesPerToken * max_model_len_) return floor;
  int64_t least = 0;
  while (!text.empty() && least <= max_model_len_) {
    size_t cut = std::min(kSliceBytes, text.size());
    for (int i = 0; i < 3 && cut < text.size() && IsContinuationByte(text[cut]); ++i) --cut;
    BATON_ASSIGN_OR_RETURN(const auto tokens, tokenizer_.Encode(text.substr(0, cut), {.add_special_tokens = false}));
    least += std::max<int64_t>(0, static_cast<int64_t>(tokens.size()) - kCutTokens);
    text.remove_prefix(cut);
  }
  return std::max(least, floor);
}

absl::StatusOr<std::vector<TokenId>> PromptEncoder::EncodeText(std::string_view text, bool add_special_tokens,
                                                               std::string_view param, int64_t max_tokens) const {
  BATON_ASSIGN_OR_RETURN(const int64_t least, LeastTokens(text));
  BATON_RETURN_IF_ERROR(CheckLength(least, max_tokens, param, true));
  BATON_ASSIGN_OR_RETURN(auto tokens, tokenizer_.Encode(text, {.add_special_tokens = add_special_tokens}));
  BATON_RETURN_IF_ERROR(CheckLength(static_cast<int64_t>(tokens.size()), max_tokens, param, false));
  return tokens;
}

absl::StatusOr<std::vector<std::vector<TokenId>>> PromptEncoder::EncodePrompts(const GenerationRequest& request) const {
  const int64_t max_tokens = request.max_tokens.value_or(1);
  std::vector<std::vector<TokenId>> prompts;
  if (request.endpoint == Endpoint::kChat) {
    BATON_ASSIGN_OR_RETURN(const std::string text, formatter_.Render(request.conversation));
    BATON_ASSIGN_OR_RETURN(auto tokens, EncodeText(text, request.add_special_tokens, "messages", max_tokens));
    prompts.push_back(std::move(tokens));
  }
  for (const Prompt& prompt : request.prompts) {
    if (prompt.is_tokens) {
      BATON_RETURN_IF_ERROR(CheckLength(static_cast<int64_t>(prompt.tokens.size()), max_tokens, "prompt", false));
      prompts.push_back(prompt.tokens);
    } else {
      BATON_ASSIGN_OR_RETURN(auto tokens, EncodeText(prompt.text, request.add_special_tokens, "prompt", max_tokens));
      prompts.push_back(std::move(tokens));
    }
  }
  for (const auto& prompt : prompts) {
    if (prompt.empty()) {
      return WithParam(InvalidArgument("the prompt is empty: expected at least one token"),
                       request.endpoint == Endpoint::kChat ? "messages" : "prompt");
    }
  }
  return prompts;
}

}  // namespace baton
