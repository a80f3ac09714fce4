// OpenAI's JSON answers. Chunks are written by hand: one is made for every token.
//
// Threading: const after construction. Ownership: the tokenizer must outlive it. Errors: none.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/request.h"
#include "frontend/answer_builder.h"
#include "frontend/openai_request.h"
#include "text/tokenizer.h"

namespace baton {

struct Usage {
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
  int64_t cached_tokens = 0;  // prompt tokens that no worker had to compute
};

struct ChoiceEnd {
  FinishReason finish = FinishReason::kNone;
  std::optional<std::string> stop_string;
  std::optional<TokenId> stop_token;
};

// One whole choice.
struct ChoiceText {
  std::string text;
  std::string reasoning;
  std::vector<SampledToken> tokens;           // for token_ids and log-probabilities
  std::vector<SampledToken> prompt_logprobs;  // with echo
  ChoiceEnd end;
};

class ResponseFormat {
 public:
  ResponseFormat(const Tokenizer& tokenizer, const GenerationRequest& request, std::string id, std::string model,
                 int64_t created);

  // "data: {…}\n\n". `offset` is the number of characters of the choice's text so far, which log-probabilities of
  // completions need; it is advanced.
  void AppendRole(std::string& out, int32_t index, const std::vector<TokenId>* prompt) const;
  void AppendChunk(std::string& out, int32_t index, const AnswerPart& part, const ChoiceEnd& end, int64_t* offset,
                   const Usage* usage, const std::vector<TokenId>* prompt = nullptr) const;
  // The last chunk, without choices: the usage, and what x-baton-explain asked for (JSON, or "").
  void AppendLast(std::string& out, const Usage* usage, std::string_view explanation) const;

  // The whole answer. `prompts` are the tokens of each prompt; choice i belongs to prompt i / n.
  std::string Whole(std::span<const ChoiceText> choices, std::span<const std::vector<TokenId>> prompts,
                    const Usage& usage, std::string_view explanation) const;

 private:
  void AppendHead(std::string& out, std::string_view object) const;
  void AppendEnd(std::string& out, const ChoiceEnd& end) const;
  void AppendWholeChoice(std::string& out, int32_t index, const ChoiceText& choice,
                         std::span<const std::vector<TokenId>> prompts) const;
  void AppendLogprobs(std::string& out, std::span<const SampledToken> tokens, int64_t* offset,
                      bool first_is_null) const;
  std::string TokenName(TokenId token) const;
  void AppendChatLogprobs(std::string& out, std::span<const SampledToken> tokens) const;
  void AppendChatLogprob(std::string& out, TokenId token, float logprob) const;
  void AppendCompletionLogprobs(std::string& out, std::span<const SampledToken> tokens, int64_t* offset,
                                bool first_is_null) const;

  const Tokenizer& tokenizer_;
  const bool chat_;
  const bool logprobs_;
  const bool token_ids_;
  const int32_t n_;
  std::string identity_;    // "id":…,"created":…,"model":…
  std::string chunk_head_;  // data: {… up to the choice's index
};

void AppendUsage(std::string& out, const Usage& usage);
std::string_view FinishReasonText(FinishReason finish);

}  // namespace baton
