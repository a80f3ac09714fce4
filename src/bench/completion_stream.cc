#include "bench/completion_stream.h"

#include <boost/json.hpp>

namespace baton {
namespace {

namespace json = boost::json;

const json::value* Find(const json::value& value, std::string_view key) {
  const json::object* object = value.if_object();
  return object == nullptr ? nullptr : object->if_contains(key);
}

int64_t Number(const json::value* value) {
  const int64_t* number = value == nullptr ? nullptr : value->if_int64();
  return number == nullptr ? 0 : *number;
}

std::string_view Text(const json::value* value) {
  const json::string* text = value == nullptr ? nullptr : value->if_string();
  return text == nullptr ? std::string_view() : std::string_view(text->data(), text->size());
}

std::string MessageOf(const json::value& error) {
  if (const std::string_view message = Text(Find(error, "message")); !message.empty()) return std::string(message);
  return json::serialize(error).substr(0, 200);
}

void ReadChoice(const json::value& choice, StreamEvent& event) {
  const json::value* reason = Find(choice, "finish_reason");
  const bool finish = reason != nullptr && reason->is_string();
  const json::value* text = Find(choice, "text");
  const json::value* delta = Find(choice, "delta");
  bool content = false;
  if (text != nullptr) {
    content = !Text(text).empty() || !finish;
  } else if (delta != nullptr) {
    const bool role_only = Find(*delta, "role") != nullptr && Text(Find(*delta, "content")).empty();
    const json::value* part = Find(*delta, "content");
    const bool has_text = !Text(part).empty() || !Text(Find(*delta, "reasoning_content")).empty();
    content = has_text || (part != nullptr && !finish && !role_only);
  }
  event.has_content |= content;
  event.is_finish |= finish;
}

void ReadUsage(const json::value& usage, StreamEvent& event) {
  event.has_usage = true;
  event.prompt_tokens = Number(Find(usage, "prompt_tokens"));
  event.completion_tokens = Number(Find(usage, "completion_tokens"));
  if (const json::value* details = Find(usage, "prompt_tokens_details"); details != nullptr) {
    event.cached_tokens = Number(Find(*details, "cached_tokens"));
  }
}

}  // namespace

absl::StatusOr<StreamEvent> ParseStreamEvent(std::string_view data) {
  StreamEvent event;
  if (data == "[DONE]") {
    event.is_done = true;
    return event;
  }
  unsigned char buffer[4096];
  json::monotonic_resource memory(buffer, sizeof(buffer));
  boost::system::error_code code;
  const json::value value = json::parse({data.data(), data.size()}, code, &memory);
  if (code || !value.is_object()) {
    return DataLoss("event stream: expected a JSON object or [DONE], found '", data.substr(0, 60), "'");
  }
  if (const json::value* error = Find(value, "error"); error != nullptr) event.error = MessageOf(*error);
  if (const json::value* choices = Find(value, "choices"); choices != nullptr && choices->is_array()) {
    for (const json::value& choice : choices->get_array()) ReadChoice(choice, event);
  }
  if (const json::value* usage = Find(value, "usage"); usage != nullptr && usage->is_object()) ReadUsage(*usage, event);
  return event;
}

std::string ErrorMessage(std::string_view body) {
  boost::system::error_code code;
  const json::value value = json::parse({body.data(), body.size()}, code);
  if (!code) {
    if (const json::value* error = Find(value, "error"); error != nullptr) return MessageOf(*error);
  }
  return std::string(body.substr(0, 200));
}

}  // namespace baton
