// Folders: frontend
// Any bytes as the body of each request of OpenAI's API: an error or a request within all of its limits.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "frontend/api_error.h"
#include "frontend/openai_request.h"
#include "text/unicode.h"

namespace baton {
namespace {

const RequestRules kRules = {.vocabulary = 1000, .prompts_max = 64, .sequences_max = 256, .messages_max = 64};

void Require(bool condition) {
  if (!condition) std::abort();
}

bool InVocabulary(const std::vector<TokenId>& tokens) {
  for (const TokenId token : tokens) {
    if (token < 0 || token >= kRules.vocabulary) return false;
  }
  return true;
}

void CheckError(const absl::Status& status) {
  const ApiError error = ToApiError(status);
  Require(error.status == 400 && !error.message.empty());
  Require(IsValidUtf8(ErrorJson(error)));
}

void CheckGeneration(Endpoint endpoint, std::string_view body) {
  const auto request = ParseGenerationRequest(endpoint, body, kRules);
  if (!request.ok()) return CheckError(request.status());
  const SamplingParams& sampling = request->sampling;
  Require(sampling.temperature >= 0 && sampling.temperature <= 2 && sampling.top_p > 0 && sampling.top_p <= 1);
  Require(sampling.top_k >= 0 && sampling.min_p >= 0 && sampling.min_p <= 1 && sampling.repetition_penalty > 0);
  Require(sampling.top_logprobs >= -1 && sampling.top_logprobs <= 20 && InVocabulary(sampling.stop_token_ids));
  Require(!request->max_tokens || *request->max_tokens >= 1);
  Require(request->n >= 1 && request->n <= 128 && request->stop.size() <= 16);
  for (const Prompt& prompt : request->prompts) Require(InVocabulary(prompt.tokens) && IsValidUtf8(prompt.text));
  if (endpoint == Endpoint::kCompletions) Require(!request->prompts.empty());
  if (endpoint == Endpoint::kChat) Require(IsValidUtf8(request->conversation.messages_json));
}

}  // namespace
}  // namespace baton

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  baton::CheckGeneration(baton::Endpoint::kChat, body);
  baton::CheckGeneration(baton::Endpoint::kCompletions, body);
  if (const auto request = baton::ParseTokenizeRequest(body, baton::kRules); !request.ok()) {
    baton::CheckError(request.status());
  }
  const auto request = baton::ParseDetokenizeRequest(body, baton::kRules);
  if (!request.ok()) baton::CheckError(request.status());
  if (request.ok()) baton::Require(baton::InVocabulary(request->tokens));
  return 0;
}
