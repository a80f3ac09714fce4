// A model's chat template: messages in, the text of the prompt out. A Jinja template, rendered as Hugging Face's
// apply_chat_template renders it.
//
//   BATON_ASSIGN_OR_RETURN(const ChatTemplate chat, ChatTemplate::Parse(metadata.chat_template));
//   ChatTemplateInput input{.messages_json = body_messages, .add_generation_prompt = true, .bos_token = "<s>"};
//   BATON_ASSIGN_OR_RETURN(const std::string prompt, chat.Render(input));
//
// Threading: immutable after Parse; any number of threads may Render at once. Copies are cheap and share the tree.
// Errors: InvalidArgument. From Parse: the template's own faults, with a line. From Render: a message that the
// template raises (raise_exception) word for word; malformed JSON; anything Jinja or Python would raise, with a line;
// an exceeded limit, by name.
// Limits: jinja_runtime.h and jinja_parser.h: 16 MiB of output, 10 million steps, nesting, recursion, range lengths.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"

namespace baton {

struct ChatTemplateInput {
  // The OpenAI request's own JSON, so that every field that a template may know passes through. Empty: none.
  std::string_view messages_json;                 // a list
  std::string_view tools_json = {};               // a list; none or "null": the template sees none
  std::string_view documents_json = {};           // likewise
  std::string_view template_arguments_json = {};  // chat_template_kwargs: an object, whose members become variables

  bool add_generation_prompt = true;
  // Undefined in the template where the model has none.
  std::optional<std::string_view> bos_token = std::nullopt;
  std::optional<std::string_view> eos_token = std::nullopt;
  std::optional<std::string_view> unk_token = std::nullopt;
  std::optional<std::string_view> pad_token = std::nullopt;
  // What strftime_now formats, in local time.
  std::chrono::system_clock::time_point now = std::chrono::system_clock::now();
};

class ChatTemplate {
 public:
  static absl::StatusOr<ChatTemplate> Parse(std::string_view source);
  absl::StatusOr<std::string> Render(const ChatTemplateInput& input) const;

 private:
  struct Tree;
  explicit ChatTemplate(std::shared_ptr<const Tree> tree) : tree_(std::move(tree)) {}

  std::shared_ptr<const Tree> tree_;
};

}  // namespace baton
