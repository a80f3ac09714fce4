#include "frontend/answer_builder.h"

#include <algorithm>

namespace baton {

absl::StatusOr<AnswerBuilder> AnswerBuilder::Create(const Tokenizer& tokenizer, const GenerationRequest& request,
                                                    ReasoningParser reasoning) {
  AnswerBuilder builder(tokenizer, request, request.endpoint == Endpoint::kChat ? reasoning : ReasoningParser::kOff);
  if (!request.stop.empty()) {
    BATON_ASSIGN_OR_RETURN(builder.stop_, StopStringMatcher::Create(request.stop, request.include_stop_string));
    builder.stop_strings_ = request.stop;
  }
  builder.stop_token_ids_ = request.sampling.stop_token_ids;
  builder.include_stop_ = request.include_stop_string;
  builder.keep_tokens_ = request.return_token_ids || request.sampling.top_logprobs >= 0;
  builder.min_tokens_ = request.sampling.min_tokens;
  return builder;
}

// Whether a token is the next one; false when it came before.
absl::StatusOr<bool> AnswerBuilder::Accept(const TokenEvent& event, size_t index) {
  const int64_t position = event.position + static_cast<int64_t>(index);
  if (position > received_) {
    return Internal("expected token ", received_, " of the answer, got token ", position, ": tokens were lost");
  }
  if (position < received_) return false;
  ++received_;
  return true;
}

bool AnswerBuilder::IsStopToken(TokenId token) {
  if (std::find(stop_token_ids_.begin(), stop_token_ids_.end(), token) != stop_token_ids_.end()) {
    stop_token_ = token;
    return true;
  }
  const std::vector<TokenId>& eos = tokenizer_->eos();
  return std::find(eos.begin(), eos.end(), token) != eos.end();
}

AnswerPart AnswerBuilder::AppendToken(TokenEvent& event, size_t index) {
  AnswerPart part;
  SampledToken& sampled = event.tokens[index];
  const bool ends = event.finish == FinishReason::kStop && index + 1 == event.tokens.size();
  const bool hidden = ends && IsStopToken(sampled.token) && !include_stop_;
  if (!hidden) AppendText(detokenizer_.Append(sampled.token), &part);
  if (!keep_tokens_) return part;
  waiting_.push_back(std::move(sampled));
  if (!part.empty()) part.tokens.swap(waiting_);
  return part;
}

// Stop strings are looked for only in what follows the first min_tokens tokens.
void AnswerBuilder::AppendText(std::string_view text, AnswerPart* part) {
  if (!stop_ || received_ <= min_tokens_) return reasoning_.Append(text, &part->reasoning, &part->text);
  StopStringMatcher::Result result = stop_->Append(text);
  reasoning_.Append(result.text, &part->reasoning, &part->text);
  if (!result.stopped) return;
  finish_ = FinishReason::kStop;
  stop_string_ = stop_strings_[static_cast<size_t>(result.matched)];
  reasoning_.Finish(&part->reasoning, &part->text);
}

AnswerPart AnswerBuilder::End(FinishReason finish) {
  AnswerPart part;
  AppendText(detokenizer_.Finish(), &part);
  if (!finished()) {
    if (stop_) reasoning_.Append(stop_->Finish(), &part.reasoning, &part.text);
    reasoning_.Finish(&part.reasoning, &part.text);
    finish_ = finish;
  }
  part.tokens.swap(waiting_);
  return part;
}

}  // namespace baton
