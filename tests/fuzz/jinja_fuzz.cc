// Folders: text
// Any bytes as a chat template, rendered over a fixed conversation: an error or a text, never a crash.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "text/chat_template.h"

namespace {

constexpr std::string_view kMessages = R"([
  {"role": "system", "content": "Be brief. <b>\u00e9\u65e5</b>"},
  {"role": "user", "content": [{"type": "text", "text": "What's 2 + 2?"}, {"type": "image"}]},
  {"role": "assistant", "content": null, "reasoning_content": "2+2", "tool_calls": [
    {"id": "abcdef123", "type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": 2.5}}}]},
  {"role": "tool", "tool_call_id": "abcdef123", "name": "add", "content": "4"},
  {"role": "assistant", "content": "<think>\nsure\n</think>\n\n4"}])";
constexpr std::string_view kTools = R"([{"type": "function", "function": {"name": "add", "description": "Adds.",
  "parameters": {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": ["number", "null"],
  "enum": [1, null]}}, "required": ["a"]}}}])";
constexpr std::string_view kArguments =
    R"({"xs": [3, 1, 2], "s": "Hello, World", "n": -7, "f": 2.5, "d": {"k": [1, {}]},
  "words": ["b", "A"], "enable_thinking": false})";

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto chat = baton::ChatTemplate::Parse({reinterpret_cast<const char*>(data), size});
  if (!chat.ok()) return 0;
  const baton::ChatTemplateInput input{.messages_json = kMessages,
                                       .tools_json = kTools,
                                       .template_arguments_json = kArguments,
                                       .bos_token = "<s>",
                                       .eos_token = "</s>",
                                       .now = std::chrono::system_clock::time_point(std::chrono::seconds(1732406400))};
  const auto text = chat->Render(input);
  if (text.ok() && text->size() > (16 << 20)) std::abort();  // the limit that the header promises
  return 0;
}
