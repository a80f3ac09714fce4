#include "frontend/conversation.h"

#include <algorithm>
#include <array>
#include <boost/json/serialize.hpp>
#include <utility>

#include "frontend/api_error.h"
#include "frontend/json_text.h"

namespace baton {
namespace {

namespace json = boost::json;

constexpr std::array<std::string_view, 7> kRoles = {"system", "developer", "user",   "assistant",
                                                    "tool",   "function",  "ipython"};

std::string ToString(const json::string& text) { return {text.data(), text.size()}; }

// A string, nothing, or a list of parts of which only text is supported; parts are joined by newlines, as vLLM does for
// templates that expect a string.
void ReadContent(JsonFields& fields, std::string* content) {
  const json::value* value = fields.Find("content");
  if (!value) return;
  if (const auto* text = value->if_string()) {
    *content = ToString(*text);
    return;
  }
  const auto* parts = value->if_array();
  if (!parts) return fields.Fail("content", "a string or a list of parts", value);
  for (size_t i = 0; i < parts->size(); ++i) {
    const json::value& part = (*parts)[i];
    const auto* object = part.if_object();
    const json::value* type = object ? object->if_contains("type") : nullptr;
    const json::value* text = object ? object->if_contains("text") : nullptr;
    if (part.is_string()) text = &part;
    const bool is_text = part.is_string() || (type && *type == json::value("text"));
    if (!is_text || !text || !text->is_string()) {
      return fields.Fail("content", "parts {\"type\":\"text\",\"text\":…}: only text is supported", &part);
    }
    if (i > 0) *content += '\n';
    *content += ToString(text->get_string());
  }
}

// The message as the template sees it: all of its fields, with the content as text.
void ReadMessage(JsonFields& fields, const json::object& object, Conversation* conversation) {
  std::string role;
  fields.String("role", 64, &role);
  if (std::find(kRoles.begin(), kRoles.end(), role) == kRoles.end()) {
    fields.Fail("role", "system, developer, user, assistant or tool", object.if_contains("role"));
  }
  std::string content;
  ReadContent(fields, &content);
  std::string& out = conversation->messages_json;
  out += "{\"role\":";
  AppendJsonString(out, role);
  out += ",\"content\":";
  AppendJsonString(out, content);
  for (const auto& [key, value] : object) {
    if (key == "role" || key == "content") continue;
    out += ',';
    AppendJsonString(out, std::string_view(key.data(), key.size()));
    out += ':';
    out += json::serialize(value);
  }
  out += '}';
  conversation->last_role = std::move(role);
  conversation->last_text = std::move(content);
}

}  // namespace

absl::Status ReadConversation(JsonFields& fields, const RequestRules& rules, Conversation* conversation) {
  fields.Bool("add_generation_prompt", &conversation->add_generation_prompt);
  if (const json::value* arguments = fields.Find("chat_template_kwargs")) {
    if (!arguments->is_object()) fields.Fail("chat_template_kwargs", "an object", arguments);
    conversation->arguments_json = json::serialize(*arguments);
  }
  const json::value* value = fields.Find("messages");
  const auto* list = value ? value->if_array() : nullptr;
  if (!list || list->empty() || list->size() > rules.messages_max) {
    fields.Fail("messages", Cat("a list of 1 to ", rules.messages_max, " messages"), value);
    return fields.status();
  }
  conversation->messages_json = "[";
  for (size_t i = 0; i < list->size(); ++i) {
    const std::string place = Cat("messages[", i, "]");
    const auto* object = (*list)[i].if_object();
    if (!object) {
      return WithParam(InvalidArgument(place, ": expected an object, found ", Excerpt((*list)[i])), place);
    }
    JsonFields message(*object, place + ".");
    if (i > 0) conversation->messages_json += ',';
    ReadMessage(message, *object, conversation);
    BATON_RETURN_IF_ERROR(message.status());
  }
  conversation->messages_json += ']';
  return fields.status();
}

}  // namespace baton
