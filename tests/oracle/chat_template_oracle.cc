// Folders: text
// Renders chat templates for the Python tests. One JSON object a line on stdin: {"template", "messages", "tools",
// "documents", "arguments": JSON texts as strings, "bos_token", "eos_token", "unk_token", "pad_token": strings,
// "add_generation_prompt": bool, "now": seconds}. One a line on stdout: {"text"} or {"error", "compile": bool}.
#include <boost/json.hpp>
#include <chrono>
#include <iostream>
#include <optional>
#include <string>

#include "text/chat_template.h"

namespace {

namespace json = boost::json;

json::object ErrorOf(const absl::Status& status, bool compile) {
  return {{"error", std::string(baton::Message(status))}, {"compile", compile}};
}

std::optional<std::string> StringOf(const json::object& request, const char* name) {
  const json::value* value = request.if_contains(name);
  if (value == nullptr || !value->is_string()) return std::nullopt;
  return std::string(value->as_string().data(), value->as_string().size());
}

json::object Answer(const json::object& request) {
  const auto chat = baton::ChatTemplate::Parse(StringOf(request, "template").value_or(""));
  if (!chat.ok()) return ErrorOf(chat.status(), true);
  const std::string messages = StringOf(request, "messages").value_or("");
  const std::string tools = StringOf(request, "tools").value_or("");
  const std::string documents = StringOf(request, "documents").value_or("");
  const std::string arguments = StringOf(request, "arguments").value_or("");
  const auto bos = StringOf(request, "bos_token");
  const auto eos = StringOf(request, "eos_token");
  const auto unk = StringOf(request, "unk_token");
  const auto pad = StringOf(request, "pad_token");
  const json::value* prompt = request.if_contains("add_generation_prompt");
  const json::value* now = request.if_contains("now");
  baton::ChatTemplateInput input{
      .messages_json = messages,
      .tools_json = tools,
      .documents_json = documents,
      .template_arguments_json = arguments,
      .add_generation_prompt = prompt != nullptr && prompt->as_bool(),
      .bos_token = bos,
      .eos_token = eos,
      .unk_token = unk,
      .pad_token = pad,
  };
  if (now != nullptr) input.now = std::chrono::system_clock::time_point(std::chrono::seconds(now->as_int64()));
  const auto text = chat->Render(input);
  if (!text.ok()) return ErrorOf(text.status(), false);
  return {{"text", *text}};
}

}  // namespace

int main() {
  json::parse_options options;
  options.max_depth = 200;
  std::string line;
  while (std::getline(std::cin, line)) {
    std::cout << json::serialize(Answer(json::parse(line, {}, options).as_object())) << "\n" << std::flush;
  }
  return 0;
}
