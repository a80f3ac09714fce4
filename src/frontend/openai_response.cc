#include "frontend/openai_response.h"

#include <algorithm>
#include <utility>

#include "frontend/json_text.h"
#include "text/unicode.h"

namespace baton {
namespace {

int64_t CodePoints(std::string_view text) {
  int64_t count = 0;
  for (const char c : text) count += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  return count;
}

void AppendTokenIds(std::string& out, std::span<const SampledToken> tokens) {
  std::vector<TokenId> ids;
  ids.reserve(tokens.size());
  for (const SampledToken& token : tokens) ids.push_back(token.token);
  AppendJsonTokens(out, ids);
}

// JSON has no infinity: a masked token's log-probability is -9999, as OpenAI's.
void AppendLogprob(std::string& out, float logprob) { AppendJsonNumber(out, std::max(logprob, -9999.0f)); }

}  // namespace

std::string_view FinishReasonText(FinishReason finish) {
  switch (finish) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "abort";
    case FinishReason::kError:
      return "error";
    case FinishReason::kNone:
      break;
  }
  return "";
}

void AppendUsage(std::string& out, const Usage& usage) {
  out += Cat("{\"prompt_tokens\":", usage.prompt_tokens, ",\"completion_tokens\":", usage.completion_tokens,
             ",\"total_tokens\":", usage.prompt_tokens + usage.completion_tokens,
             ",\"prompt_tokens_details\":{\"cached_tokens\":", usage.cached_tokens, "}}");
}

ResponseFormat::ResponseFormat(const Tokenizer& tokenizer, const GenerationRequest& request, std::string id,
                               std::string model, int64_t created)
    : tokenizer_(tokenizer),
      chat_(request.endpoint == Endpoint::kChat),
      logprobs_(request.sampling.top_logprobs >= 0),
      token_ids_(request.return_token_ids),
      n_(request.n) {
  identity_ = "\"id\":";
  AppendJsonString(identity_, id);
  identity_ += Cat(",\"created\":", created, ",\"model\":");
  AppendJsonString(identity_, model);
  chunk_head_ = "data: ";
  AppendHead(chunk_head_, chat_ ? "chat.completion.chunk" : "text_completion");
  chunk_head_ += ",\"choices\":[{\"index\":";
}

void ResponseFormat::AppendHead(std::string& out, std::string_view object) const {
  out.append("{").append(identity_).append(",\"object\":\"").append(object).append("\"");
}

void ResponseFormat::AppendRole(std::string& out, int32_t index, const std::vector<TokenId>* prompt) const {
  out.append(chunk_head_);
  AppendJsonNumber(out, static_cast<int64_t>(index));
  out += ",\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}]";
  if (prompt) {
    out += ",\"prompt_token_ids\":";
    AppendJsonTokens(out, *prompt);
  }
  out += "}\n\n";
}

void ResponseFormat::AppendEnd(std::string& out, const ChoiceEnd& end) const {
  if (end.finish == FinishReason::kNone) {
    out += ",\"finish_reason\":null";
    return;
  }
  out.append(",\"finish_reason\":\"").append(FinishReasonText(end.finish)).append("\",\"stop_reason\":");
  if (end.stop_string) {
    AppendJsonString(out, *end.stop_string);
  } else if (end.stop_token) {
    AppendJsonNumber(out, static_cast<int64_t>(*end.stop_token));
  } else {
    out += "null";
  }
}

void ResponseFormat::AppendChunk(std::string& out, int32_t index, const AnswerPart& part, const ChoiceEnd& end,
                                 int64_t* offset, const Usage* usage, const std::vector<TokenId>* prompt) const {
  out.append(chunk_head_);
  AppendJsonNumber(out, static_cast<int64_t>(index));
  if (chat_) {
    out += ",\"delta\":{";
    if (!part.reasoning.empty()) {
      out += "\"reasoning_content\":\"";
      AppendJsonEscaped(out, part.reasoning);
      out += part.text.empty() ? "\"" : "\",";
    }
    if (part.reasoning.empty() || !part.text.empty()) {
      out += "\"content\":\"";
      AppendJsonEscaped(out, part.text);
      out += '"';
    }
    out += '}';
  } else {
    out += ",\"text\":\"";
    AppendJsonEscaped(out, part.text);
    out += '"';
  }
  if (logprobs_ && !part.tokens.empty()) {
    out += ",\"logprobs\":";
    AppendLogprobs(out, part.tokens, offset, part.is_prompt);
  } else {
    out += ",\"logprobs\":null";
  }
  if (token_ids_) {
    out += ",\"token_ids\":";
    AppendTokenIds(out, part.is_prompt ? std::span<const SampledToken>() : part.tokens);
  }
  AppendEnd(out, end);
  out += "}]";
  if (usage) {
    out += ",\"usage\":";
    AppendUsage(out, *usage);
  }
  if (prompt) {
    out += ",\"prompt_token_ids\":";
    AppendJsonTokens(out, *prompt);
  }
  out += "}\n\n";
}

void ResponseFormat::AppendLast(std::string& out, const Usage* usage, std::string_view explanation) const {
  out += "data: ";
  AppendHead(out, chat_ ? "chat.completion.chunk" : "text_completion");
  out += ",\"choices\":[]";
  if (usage) {
    out += ",\"usage\":";
    AppendUsage(out, *usage);
  }
  if (!explanation.empty()) out.append(",\"baton\":").append(explanation);
  out += "}\n\n";
}

std::string ResponseFormat::Whole(std::span<const ChoiceText> choices, std::span<const std::vector<TokenId>> prompts,
                                  const Usage& usage, std::string_view explanation) const {
  std::string out;
  AppendHead(out, chat_ ? "chat.completion" : "text_completion");
  out += ",\"choices\":[";
  for (size_t i = 0; i < choices.size(); ++i) {
    if (i > 0) out += ',';
    AppendWholeChoice(out, static_cast<int32_t>(i), choices[i], prompts);
  }
  out += "],\"usage\":";
  AppendUsage(out, usage);
  if (token_ids_ && prompts.size() == 1) {
    out += ",\"prompt_token_ids\":";
    AppendJsonTokens(out, prompts[0]);
  }
  if (!explanation.empty()) out.append(",\"baton\":").append(explanation);
  out += '}';
  return out;
}

void ResponseFormat::AppendWholeChoice(std::string& out, int32_t index, const ChoiceText& choice,
                                       std::span<const std::vector<TokenId>> prompts) const {
  out += Cat("{\"index\":", index);
  if (chat_) {
    out += ",\"message\":{\"role\":\"assistant\",\"content\":";
    AppendJsonString(out, choice.text);
    out += ",\"refusal\":null";
    if (!choice.reasoning.empty()) {
      out += ",\"reasoning_content\":";
      AppendJsonString(out, choice.reasoning);
    }
    out += '}';
  } else {
    out += ",\"text\":";
    AppendJsonString(out, choice.text);
  }
  out += ",\"logprobs\":";
  if (logprobs_) {
    std::vector<SampledToken> tokens = choice.prompt_logprobs;
    tokens.insert(tokens.end(), choice.tokens.begin(), choice.tokens.end());
    int64_t offset = 0;
    AppendLogprobs(out, tokens, &offset, !choice.prompt_logprobs.empty());
  } else {
    out += "null";
  }
  if (token_ids_) {
    out += ",\"token_ids\":";
    AppendTokenIds(out, choice.tokens);
    if (prompts.size() > 1) {
      out += ",\"prompt_token_ids\":";
      AppendJsonTokens(out, prompts[static_cast<size_t>(index / n_)]);
    }
  }
  AppendEnd(out, choice.end);
  out += '}';
}

void ResponseFormat::AppendLogprobs(std::string& out, std::span<const SampledToken> tokens, int64_t* offset,
                                    bool first_is_null) const {
  if (chat_) {
    AppendChatLogprobs(out, tokens);
  } else {
    AppendCompletionLogprobs(out, tokens, offset, first_is_null);
  }
}

void ResponseFormat::AppendChatLogprob(std::string& out, TokenId token, float logprob) const {
  out += "{\"token\":";
  AppendJsonString(out, tokenizer_.TokenText(token));
  out += ",\"logprob\":";
  AppendLogprob(out, logprob);
  out += ",\"bytes\":[";
  bool first = true;
  for (const char byte : tokenizer_.TokenBytes(token)) {
    if (!std::exchange(first, false)) out += ',';
    AppendJsonNumber(out, static_cast<int64_t>(static_cast<unsigned char>(byte)));
  }
  out += ']';
}

void ResponseFormat::AppendChatLogprobs(std::string& out, std::span<const SampledToken> tokens) const {
  out += "{\"content\":[";
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (i > 0) out += ',';
    AppendChatLogprob(out, tokens[i].token, tokens[i].logprob);
    out += ",\"top_logprobs\":[";
    for (size_t j = 0; j < tokens[i].top_logprobs.size(); ++j) {
      if (j > 0) out += ',';
      AppendChatLogprob(out, tokens[i].top_logprobs[j].token, tokens[i].top_logprobs[j].logprob);
      out += '}';
    }
    out += "]}";
  }
  out += "],\"refusal\":null}";
}

// The token's text; parts of characters, which would all look the same, as OpenAI writes them: "bytes:\\xe6\\x97".
std::string ResponseFormat::TokenName(TokenId token) const {
  const std::string_view bytes = tokenizer_.TokenBytes(token);
  if (IsValidUtf8(bytes)) return std::string(bytes);
  std::string name = "bytes:";
  for (const char byte : bytes) {
    constexpr char kHex[] = "0123456789abcdef";
    name += "\\x";
    name += kHex[static_cast<unsigned char>(byte) >> 4];
    name += kHex[byte & 15];
  }
  return name;
}

void ResponseFormat::AppendCompletionLogprobs(std::string& out, std::span<const SampledToken> tokens, int64_t* offset,
                                              bool first_is_null) const {
  std::string texts, logprobs, tops, offsets;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const char* comma = i > 0 ? "," : "";
    texts += comma;
    AppendJsonString(texts, TokenName(tokens[i].token));
    offsets += comma;
    AppendJsonNumber(offsets, *offset);
    *offset += CodePoints(tokenizer_.TokenBytes(tokens[i].token));
    logprobs += comma;
    tops += comma;
    if (i == 0 && first_is_null) {  // nothing comes before a prompt's first token
      logprobs += "null";
      tops += "null";
      continue;
    }
    AppendLogprob(logprobs, tokens[i].logprob);
    tops += '{';
    bool first = true;
    for (const TokenLogprob& top : tokens[i].top_logprobs) {
      if (!std::exchange(first, false)) tops += ',';
      AppendJsonString(tops, TokenName(top.token));
      tops += ':';
      AppendLogprob(tops, top.logprob);
    }
    tops += '}';
  }
  out += "{\"text_offset\":[" + offsets + "],\"token_logprobs\":[" + logprobs + "],\"tokens\":[" + texts +
         "],\"top_logprobs\":[" + tops + "]}";
}

}  // namespace baton
