// A model's way to write a conversation as text: its chat template and the texts of its special tokens.
//
// Threading: const calls from any thread. Ownership: a value. Errors: InvalidArgument, about the template or what it
// was
//   given; a model without a template refuses every conversation.
#pragma once

#include <optional>
#include <string>

#include "base/status.h"
#include "core/tokenizer_data.h"
#include "frontend/openai_request.h"
#include "text/chat_template.h"

namespace baton {

class ChatFormatter {
 public:
  static absl::StatusOr<ChatFormatter> Create(const TokenizerData& data);
  absl::StatusOr<std::string> Render(const Conversation& conversation) const;

 private:
  ChatFormatter() = default;

  std::optional<ChatTemplate> template_;
  std::string bos_token_, eos_token_, unk_token_, pad_token_;
};

}  // namespace baton
