#include "text/chat_template.h"

#include "text/jinja_interpreter.h"
#include "text/jinja_json.h"
#include "text/jinja_parser.h"

namespace baton {

using jinja::Dict;
using jinja::Value;

struct ChatTemplate::Tree {
  jinja::Body body;
};

namespace {

// A list, or None where there is no text.
absl::StatusOr<Value> ParseList(std::string_view text, std::string_view name) {
  if (text.empty()) return Value::None();
  BATON_ASSIGN_OR_RETURN(Value value, jinja::ParseJson(text, name));
  if (value.is(jinja::Kind::kList) || value.is_none()) return value;
  return InvalidArgument("expected ", name, " as a list, found ", value.TypeName());
}

absl::Status AddArguments(std::string_view text, Dict& variables) {
  if (text.empty()) return absl::OkStatus();
  BATON_ASSIGN_OR_RETURN(const Value value, jinja::ParseJson(text, "chat_template_kwargs"));
  if (value.is_none()) return absl::OkStatus();
  if (!value.is_dict()) return InvalidArgument("expected chat_template_kwargs as an object, found ", value.TypeName());
  for (const auto& [name, argument] : value.dict().entries()) variables.Set(name, argument);
  return absl::OkStatus();
}

void AddToken(std::string_view name, const std::optional<std::string_view>& token, Dict& variables) {
  if (token.has_value()) variables.Set(name, Value::String(std::string(*token)));
}

absl::StatusOr<Dict> MakeVariables(const ChatTemplateInput& input) {
  Dict variables;
  AddToken("bos_token", input.bos_token, variables);
  AddToken("eos_token", input.eos_token, variables);
  AddToken("unk_token", input.unk_token, variables);
  AddToken("pad_token", input.pad_token, variables);
  BATON_RETURN_IF_ERROR(AddArguments(input.template_arguments_json, variables));
  BATON_ASSIGN_OR_RETURN(Value messages, ParseList(input.messages_json, "messages"));
  if (messages.is_none()) messages = Value::List({});
  variables.Set("messages", std::move(messages));
  BATON_ASSIGN_OR_RETURN(Value tools, ParseList(input.tools_json, "tools"));
  variables.Set("tools", std::move(tools));
  BATON_ASSIGN_OR_RETURN(Value documents, ParseList(input.documents_json, "documents"));
  variables.Set("documents", std::move(documents));
  variables.Set("add_generation_prompt", Value::Bool(input.add_generation_prompt));
  return variables;
}

}  // namespace

absl::StatusOr<ChatTemplate> ChatTemplate::Parse(std::string_view source) {
  BATON_ASSIGN_OR_RETURN(jinja::Body body, jinja::ParseTemplate(source));
  return ChatTemplate(std::make_shared<const Tree>(Tree{std::move(body)}));
}

absl::StatusOr<std::string> ChatTemplate::Render(const ChatTemplateInput& input) const {
  BATON_ASSIGN_OR_RETURN(const Dict variables, MakeVariables(input));
  jinja::Runtime runtime(jinja::Limits(), input.now);
  absl::StatusOr<std::string> text = jinja::Interpreter(runtime, variables).Run(tree_->body);
  if (text.ok() || runtime.raised) return text;
  return InvalidArgument("chat template line ", runtime.line, ": ", Message(text.status()));
}

}  // namespace baton
