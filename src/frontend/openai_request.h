// OpenAI's JSON requests as checked values: every field in its range, defaults filled in, what is not supported
// refused.
//
// Threading: free functions; any thread. Ownership: values. Errors: InvalidArgument with the field as param
//   (frontend/api_error.h), saying what was expected and found.
// Limits: RequestRules; the body's size is the HTTP server's to limit.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "core/request.h"

namespace baton {

// What the model's generation_config.json says for fields that a request leaves out.
struct SamplingDefaults {
  float temperature = 1.0f;
  float top_p = 1.0f;
  int32_t top_k = 0;
  float min_p = 0.0f;
  float repetition_penalty = 1.0f;
};

struct RequestRules {
  int32_t vocabulary = 0;
  SamplingDefaults defaults;
  size_t prompts_max = 1024;    // of one completions request
  size_t sequences_max = 1024;  // prompts × n
  size_t messages_max = 8192;
};

enum class Endpoint { kChat, kCompletions };

// Text, or tokens that the client made itself.
struct Prompt {
  std::string text;
  std::vector<TokenId> tokens;
  bool is_tokens = false;
};

// What a chat template is given.
struct Conversation {
  std::string messages_json;   // a list of objects; every content is a string
  std::string arguments_json;  // chat_template_kwargs, an object; "": none
  bool add_generation_prompt = true;
  std::string last_role;  // of the last message, with its text: for echo
  std::string last_text;
};

struct GenerationRequest {
  Endpoint endpoint = Endpoint::kChat;
  std::string model;            // "": whichever is served
  std::vector<Prompt> prompts;  // of completions
  Conversation conversation;    // of chat
  SamplingParams sampling;      // but for max_tokens and seed
  std::optional<int32_t> max_tokens;
  std::optional<uint64_t> seed;
  int32_t n = 1;
  std::vector<std::string> stop;
  bool stream = false;
  bool include_usage = false;     // a last chunk with the usage
  bool continuous_usage = false;  // the usage so far in every chunk
  bool echo = false;
  bool add_special_tokens = true;   // when text becomes tokens
  bool skip_special_tokens = true;  // when tokens become text
  bool include_stop_string = false;
  bool return_token_ids = false;
  std::string cache_salt;
  std::string user;
  int32_t priority = 0;
  int64_t timeout_ms = 0;  // 0: none
};

absl::StatusOr<GenerationRequest> ParseGenerationRequest(Endpoint endpoint, std::string_view body,
                                                         const RequestRules& rules);

struct TokenizeRequest {
  std::string model;
  bool is_chat = false;
  std::string prompt;
  Conversation conversation;
  bool add_special_tokens = true;
};
absl::StatusOr<TokenizeRequest> ParseTokenizeRequest(std::string_view body, const RequestRules& rules);

struct DetokenizeRequest {
  std::string model;
  std::vector<TokenId> tokens;
};
absl::StatusOr<DetokenizeRequest> ParseDetokenizeRequest(std::string_view body, const RequestRules& rules);

}  // namespace baton
