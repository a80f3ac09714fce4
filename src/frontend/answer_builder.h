// One choice's answer while its tokens arrive: drops tokens that came before (a failover resends some), turns tokens
// into whole characters, stops at stop strings, and separates reasoning.
//
// Threading: one thread. Ownership: the tokenizer must outlive it.
// Errors: Internal when tokens are missing from the sequence.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "core/request.h"
#include "frontend/openai_request.h"
#include "frontend/reasoning.h"
#include "text/detokenizer.h"
#include "text/stop_strings.h"
#include "text/tokenizer.h"

namespace baton {

// What may be shown after one more token.
struct AnswerPart {
  std::string text;
  std::string reasoning;
  std::vector<SampledToken> tokens;  // that brought it about; only when the request wants ids or log-probabilities
  bool is_prompt = false;            // the echo of the prompt, not a part of the answer
  bool empty() const { return text.empty() && reasoning.empty() && tokens.empty(); }
};

class AnswerBuilder {
 public:
  static absl::StatusOr<AnswerBuilder> Create(const Tokenizer& tokenizer, const GenerationRequest& request,
                                              ReasoningParser reasoning);

  // Calls show(AnswerPart) for each token after which there is something to show. Takes the event's tokens.
  template <typename Show>
  absl::Status Append(TokenEvent& event, const Show& show) {
    for (size_t i = 0; i < event.tokens.size() && !finished(); ++i) {
      BATON_ASSIGN_OR_RETURN(const bool is_new, Accept(event, i));
      if (!is_new) continue;
      AnswerPart part = AppendToken(event, i);
      if (!part.text.empty() || !part.reasoning.empty()) show(std::move(part));
    }
    if (event.finish == FinishReason::kNone || finished()) return absl::OkStatus();
    AnswerPart part = End(event.finish);
    if (!part.empty()) show(std::move(part));
    return absl::OkStatus();
  }

  bool finished() const { return finish_ != FinishReason::kNone; }
  FinishReason finish() const { return finish_; }
  // What stopped it, when that was the client's wish: a string, or a token of stop_token_ids.
  const std::optional<std::string>& stop_string() const { return stop_string_; }
  const std::optional<TokenId>& stop_token() const { return stop_token_; }
  int32_t tokens() const { return received_; }

 private:
  AnswerBuilder(const Tokenizer& tokenizer, const GenerationRequest& request, ReasoningParser reasoning)
      : tokenizer_(&tokenizer), detokenizer_(tokenizer, request.skip_special_tokens), reasoning_(reasoning) {}

  absl::StatusOr<bool> Accept(const TokenEvent& event, size_t index);
  AnswerPart AppendToken(TokenEvent& event, size_t index);
  AnswerPart End(FinishReason finish);
  void AppendText(std::string_view text, AnswerPart* part);
  bool IsStopToken(TokenId token);

  const Tokenizer* tokenizer_;
  IncrementalDetokenizer detokenizer_;
  std::optional<StopStringMatcher> stop_;
  ReasoningSplitter reasoning_;
  std::vector<std::string> stop_strings_;
  std::vector<TokenId> stop_token_ids_;
  bool include_stop_ = false;
  bool keep_tokens_ = false;
  int32_t min_tokens_ = 0;
  int32_t received_ = 0;
  FinishReason finish_ = FinishReason::kNone;
  std::optional<std::string> stop_string_;
  std::optional<TokenId> stop_token_;
  std::vector<SampledToken> waiting_;  // tokens whose text is held back
};

}  // namespace baton
