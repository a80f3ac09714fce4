#include "frontend/chat_formatter.h"

#include <string_view>
#include <utility>

#include "frontend/api_error.h"

namespace baton {
namespace {

std::optional<std::string_view> UnlessEmpty(const std::string& text) {
  if (text.empty()) return std::nullopt;
  return text;
}

}  // namespace

absl::StatusOr<ChatFormatter> ChatFormatter::Create(const TokenizerData& data) {
  ChatFormatter formatter;
  if (!data.chat_template.empty()) {
    BATON_ASSIGN_OR_RETURN(formatter.template_, ChatTemplate::Parse(data.chat_template));
  }
  formatter.bos_token_ = data.bos_token;
  formatter.eos_token_ = data.eos_token;
  formatter.unk_token_ = data.unk_token;
  formatter.pad_token_ = data.pad_token;
  return formatter;
}

absl::StatusOr<std::string> ChatFormatter::Render(const Conversation& conversation) const {
  if (!template_) {
    return WithParam(InvalidArgument("this model has no chat template; use /v1/completions"), "messages");
  }
  auto text = template_->Render({.messages_json = conversation.messages_json,
                                 .template_arguments_json = conversation.arguments_json,
                                 .add_generation_prompt = conversation.add_generation_prompt,
                                 .bos_token = UnlessEmpty(bos_token_),
                                 .eos_token = UnlessEmpty(eos_token_),
                                 .unk_token = UnlessEmpty(unk_token_),
                                 .pad_token = UnlessEmpty(pad_token_)});
  if (!text.ok()) return WithParam(text.status(), "messages");
  return text;
}

}  // namespace baton
