#include "frontend/openai_request.h"

#include <limits>
#include <utility>

#include "frontend/conversation.h"
#include "frontend/json_fields.h"
#include "text/stop_strings.h"

namespace baton {
namespace {

namespace json = boost::json;

constexpr int64_t kInt32Max = std::numeric_limits<int32_t>::max();
constexpr int32_t kChoicesMax = 128;
constexpr int32_t kTopLogprobsMax = 20;
constexpr size_t kNameBytesMax = 1024;
constexpr size_t kStopTokensMax = 1024;
constexpr size_t kLogitBiasMax = 4096;
constexpr size_t kPromptTokensMax = 16 << 20;
constexpr double kTimeoutSecondsMax = 7 * 24 * 3600.0;

void RefuseUnsupported(JsonFields& fields) {
  for (const char* name : {"tools", "functions"}) {
    const json::value* value = fields.Find(name);
    if (value && !(value->is_array() && value->get_array().empty())) {
      fields.Fail(name, InvalidArgument(name, ": tool calling is not supported; leave the field out"));
    }
  }
  for (const char* name : {"tool_choice", "function_call"}) {
    const json::value* value = fields.Find(name);
    if (value && *value != json::value("none")) {
      fields.Fail(name, InvalidArgument(name, ": tool calling is not supported; expected \"none\" or nothing, found ",
                                        Excerpt(*value)));
    }
  }
  if (const json::value* format = fields.Find("response_format")) {
    const auto* object = format->if_object();
    const json::value* type = object ? object->if_contains("type") : nullptr;
    if (!type || *type != json::value("text")) {
      fields.Fail("response_format",
                  InvalidArgument("response_format: only {\"type\":\"text\"} is supported, found ", Excerpt(*format)));
    }
  }
  if (const json::value* suffix = fields.Find("suffix"); suffix && *suffix != json::value("")) {
    fields.Fail("suffix", InvalidArgument("suffix: inserting text is not supported; leave the field out"));
  }
}

void ReadStopStrings(JsonFields& fields, std::vector<std::string>* stop) {
  const json::value* value = fields.Find("stop");
  if (!value) return;
  const auto add = [&](const json::value& item) {
    const auto* text = item.if_string();
    if (!text || text->empty() || text->size() > kMaxStopStringBytes) {
      return fields.Fail("stop", Cat("strings of 1 to ", kMaxStopStringBytes, " bytes"), &item);
    }
    stop->emplace_back(text->data(), text->size());
  };
  const auto* list = value->if_array();
  if (!list) return add(*value);
  if (list->size() > kMaxStopStrings) {
    return fields.Fail("stop",
                       InvalidArgument("stop: expected at most ", kMaxStopStrings, " strings, found ", list->size()));
  }
  for (const json::value& item : *list) add(item);
}

void ReadLogitBias(JsonFields& fields, int32_t vocabulary, std::vector<std::pair<TokenId, float>>* bias) {
  const json::value* value = fields.Find("logit_bias");
  if (!value) return;
  const auto* object = value->if_object();
  if (!object || object->size() > kLogitBiasMax) {
    return fields.Fail("logit_bias", Cat("an object of at most ", kLogitBiasMax, " token ids"), value);
  }
  for (const auto& [key, amount] : *object) {
    int32_t token = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), token);
    if (error != std::errc() || end != key.data() + key.size() || token < 0 || token >= vocabulary) {
      const json::value found(key);
      return fields.Fail("logit_bias", Cat("token ids from 0 to ", vocabulary - 1), &found);
    }
    const double number = amount.is_number() ? amount.to_number<double>() : std::nan("");
    if (!(number >= -100 && number <= 100)) {
      return fields.Fail("logit_bias", "biases from -100 to 100", &amount);
    }
    bias->emplace_back(token, static_cast<float>(number));
  }
}

void ReadStreamOptions(JsonFields& fields, GenerationRequest* request) {
  fields.Bool("stream", &request->stream);
  const json::value* value = fields.Find("stream_options");
  if (!value) return;
  if (!value->is_object()) return fields.Fail("stream_options", "an object", value);
  if (!request->stream) {
    return fields.Fail("stream_options", InvalidArgument("stream_options: only allowed when stream is true"));
  }
  JsonFields options(value->get_object(), "stream_options.");
  options.Bool("include_usage", &request->include_usage);
  options.Bool("continuous_usage_stats", &request->continuous_usage);
  if (!options.status().ok()) fields.Fail("stream_options", options.status());
}

// Chat asks with logprobs: true and top_logprobs: k, completions with logprobs: k.
void ReadLogprobs(JsonFields& fields, GenerationRequest* request) {
  int32_t& top = request->sampling.top_logprobs;
  if (request->endpoint == Endpoint::kCompletions) {
    const json::value* value = fields.Find("logprobs");
    if (value && *value == json::value(false)) return;
    return fields.Integer("logprobs", 0, kTopLogprobsMax, &top);
  }
  bool wanted = false;
  fields.Bool("logprobs", &wanted);
  const json::value* value = fields.Find("top_logprobs");
  if (value && !wanted && *value != json::value(0)) {
    return fields.Fail("top_logprobs", InvalidArgument("top_logprobs: only allowed when logprobs is true"));
  }
  if (!wanted) return;
  top = 0;
  fields.Integer("top_logprobs", 0, kTopLogprobsMax, &top);
}

void ReadSampling(JsonFields& fields, const RequestRules& rules, GenerationRequest* request) {
  SamplingParams& sampling = request->sampling;
  sampling.temperature = rules.defaults.temperature;
  sampling.top_p = rules.defaults.top_p;
  sampling.top_k = rules.defaults.top_k;
  sampling.min_p = rules.defaults.min_p;
  sampling.repetition_penalty = rules.defaults.repetition_penalty;
  fields.Number("temperature", 0, 2, &sampling.temperature);
  fields.NumberAbove("top_p", 0, 1, &sampling.top_p);
  fields.Integer("top_k", -1, kInt32Max, &sampling.top_k);
  if (sampling.top_k < 0) sampling.top_k = 0;
  fields.Number("min_p", 0, 1, &sampling.min_p);
  fields.Number("frequency_penalty", -2, 2, &sampling.frequency_penalty);
  fields.Number("presence_penalty", -2, 2, &sampling.presence_penalty);
  fields.NumberAbove("repetition_penalty", 0, 100, &sampling.repetition_penalty);
  ReadLogitBias(fields, rules.vocabulary, &sampling.logit_bias);
  int64_t seed = 0;
  if (fields.Find("seed")) {
    fields.Integer("seed", std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max(), &seed);
    request->seed = static_cast<uint64_t>(seed);
  }
}

void ReadLimits(JsonFields& fields, const RequestRules& rules, GenerationRequest* request) {
  SamplingParams& sampling = request->sampling;
  for (const char* name : {"max_tokens", "max_completion_tokens"}) {  // the later, newer one counts
    int32_t tokens = 0;
    fields.Integer(name, 1, kInt32Max, &tokens);
    if (tokens > 0) request->max_tokens = tokens;
  }
  fields.Integer("min_tokens", 0, kInt32Max, &sampling.min_tokens);
  if (request->max_tokens && sampling.min_tokens > *request->max_tokens) {
    fields.Fail("min_tokens", InvalidArgument("min_tokens: expected at most max_tokens (", *request->max_tokens,
                                              "), found ", sampling.min_tokens));
  }
  fields.Bool("ignore_eos", &sampling.ignore_eos);
  if (const json::value* nvext = fields.Find("nvext"); nvext && nvext->is_object()) {
    JsonFields(nvext->get_object(), "nvext.").Bool("ignore_eos", &sampling.ignore_eos);
  }
  fields.Tokens("stop_token_ids", kStopTokensMax, rules.vocabulary, &sampling.stop_token_ids);
  ReadStopStrings(fields, &request->stop);
  fields.Integer("n", 1, kChoicesMax, &request->n);
  if (const json::value* best = fields.Find("best_of")) {
    int64_t count = 0;
    if (!ReadInteger(*best, &count) || count != request->n) {
      fields.Fail("best_of", InvalidArgument("best_of: only as many as n (", request->n, ") are supported, found ",
                                             Excerpt(*best)));
    }
  }
  double seconds = 0;
  fields.NumberAbove("timeout", 0, kTimeoutSecondsMax, &seconds);
  if (seconds > 0) request->timeout_ms = std::max<int64_t>(1, static_cast<int64_t>(seconds * 1000));
}

void ReadOutput(JsonFields& fields, GenerationRequest* request) {
  ReadStreamOptions(fields, request);
  ReadLogprobs(fields, request);
  fields.Bool("echo", &request->echo);
  request->sampling.prompt_logprobs =
      request->echo && request->endpoint == Endpoint::kCompletions && request->sampling.top_logprobs >= 0;
  fields.Bool("add_special_tokens", &request->add_special_tokens);
  fields.Bool("skip_special_tokens", &request->skip_special_tokens);
  fields.Bool("include_stop_str_in_output", &request->include_stop_string);
  fields.Bool("return_token_ids", &request->return_token_ids);
  fields.String("cache_salt", kNameBytesMax, &request->cache_salt);
  fields.String("user", kNameBytesMax, &request->user);
  fields.Integer("priority", -kInt32Max, kInt32Max, &request->priority);
}

std::vector<TokenId> ReadTokens(JsonFields& fields, const json::array& list, int32_t vocabulary) {
  std::vector<TokenId> tokens;
  tokens.reserve(list.size());
  for (const json::value& item : list) {
    int64_t token = -1;
    if (!ReadInteger(item, &token) || token < 0 || token >= vocabulary) {
      fields.Fail("prompt", Cat("token ids from 0 to ", vocabulary - 1), &item);
      return {};
    }
    tokens.push_back(static_cast<TokenId>(token));
  }
  return tokens;
}

// A string, a list of strings, a list of token ids, or a list of such lists.
void ReadPrompts(JsonFields& fields, const RequestRules& rules, std::vector<Prompt>* prompts) {
  constexpr std::string_view kExpected = "a string, a list of strings, a list of token ids, or a list of such lists";
  const json::value* value = fields.Find("prompt");
  if (!value) return fields.Fail("prompt", kExpected, nullptr);
  if (const auto* text = value->if_string()) {
    prompts->push_back({.text = std::string(text->data(), text->size())});
    return;
  }
  const auto* list = value->if_array();
  if (!list || list->empty() || list->size() > kPromptTokensMax) return fields.Fail("prompt", kExpected, value);
  if (list->front().is_number()) {
    prompts->push_back({.tokens = ReadTokens(fields, *list, rules.vocabulary), .is_tokens = true});
    return;
  }
  if (list->size() > rules.prompts_max) {
    return fields.Fail(
        "prompt", InvalidArgument("prompt: expected at most ", rules.prompts_max, " prompts, found ", list->size()));
  }
  const bool strings = list->front().is_string();
  for (const json::value& item : *list) {
    if (const auto* text = item.if_string(); text && strings) {
      prompts->push_back({.text = std::string(text->data(), text->size())});
    } else if (const auto* tokens = item.if_array(); tokens && !strings) {
      prompts->push_back({.tokens = ReadTokens(fields, *tokens, rules.vocabulary), .is_tokens = true});
    } else {
      return fields.Fail("prompt", kExpected, &item);
    }
  }
}

}  // namespace

absl::StatusOr<GenerationRequest> ParseGenerationRequest(Endpoint endpoint, std::string_view body,
                                                         const RequestRules& rules) {
  BATON_ASSIGN_OR_RETURN(const json::value document, ParseJsonObject(body));
  JsonFields fields(document.get_object());
  GenerationRequest request;
  request.endpoint = endpoint;
  request.add_special_tokens = endpoint == Endpoint::kCompletions;  // a chat template writes them itself
  fields.String("model", kNameBytesMax, &request.model);
  RefuseUnsupported(fields);
  ReadSampling(fields, rules, &request);
  ReadLimits(fields, rules, &request);
  ReadOutput(fields, &request);
  BATON_RETURN_IF_ERROR(fields.status());
  if (endpoint == Endpoint::kChat) {
    BATON_RETURN_IF_ERROR(ReadConversation(fields, rules, &request.conversation));
  } else {
    ReadPrompts(fields, rules, &request.prompts);
    if (request.prompts.size() * static_cast<size_t>(request.n) > rules.sequences_max) {
      fields.Fail("n", InvalidArgument("n: expected at most ", rules.sequences_max, " choices of all prompts, found ",
                                       request.n, " of ", request.prompts.size()));
    }
  }
  BATON_RETURN_IF_ERROR(fields.status());
  return request;
}

absl::StatusOr<TokenizeRequest> ParseTokenizeRequest(std::string_view body, const RequestRules& rules) {
  BATON_ASSIGN_OR_RETURN(const json::value document, ParseJsonObject(body));
  JsonFields fields(document.get_object());
  TokenizeRequest request;
  fields.String("model", kNameBytesMax, &request.model);
  request.is_chat = fields.Find("messages") != nullptr;
  request.add_special_tokens = !request.is_chat;
  fields.Bool("add_special_tokens", &request.add_special_tokens);
  if (request.is_chat) {
    BATON_RETURN_IF_ERROR(ReadConversation(fields, rules, &request.conversation));
  } else {
    const json::value* prompt = fields.Find("prompt");
    if (!prompt || !prompt->is_string()) fields.Fail("prompt", "a string, or a field 'messages'", prompt);
    if (prompt && prompt->is_string()) request.prompt.assign(prompt->get_string().data(), prompt->get_string().size());
  }
  BATON_RETURN_IF_ERROR(fields.status());
  return request;
}

absl::StatusOr<DetokenizeRequest> ParseDetokenizeRequest(std::string_view body, const RequestRules& rules) {
  BATON_ASSIGN_OR_RETURN(const json::value document, ParseJsonObject(body));
  JsonFields fields(document.get_object());
  DetokenizeRequest request;
  fields.String("model", kNameBytesMax, &request.model);
  if (!fields.Find("tokens")) fields.Fail("tokens", "a list of token ids", nullptr);
  fields.Tokens("tokens", kPromptTokensMax, rules.vocabulary, &request.tokens);
  BATON_RETURN_IF_ERROR(fields.status());
  return request;
}

}  // namespace baton
