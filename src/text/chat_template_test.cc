#include "text/chat_template.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace baton {
namespace {

constexpr std::string_view kMessages = R"([{"role": "user", "content": "Hi"}])";

// The text, or the error's message.
std::string Render(std::string_view source, ChatTemplateInput input = {.messages_json = kMessages}) {
  const auto chat = ChatTemplate::Parse(source);
  if (!chat.ok()) return std::string(Message(chat.status()));
  const auto text = chat->Render(input);
  return text.ok() ? *text : std::string(Message(text.status()));
}

TEST(ChatTemplate, RendersMessages) {
  EXPECT_EQ(
      Render("{% for m in messages %}<{{ m.role }}>{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}<a>"
             "{% endif %}"),
      "<user>Hi<a>");
}

TEST(ChatTemplate, PassesEveryVariable) {
  const ChatTemplateInput input{.messages_json = "[]",
                                .tools_json = R"([{"b": 1, "a": "é"}])",
                                .template_arguments_json = R"({"enable_thinking": false})",
                                .add_generation_prompt = false,
                                .bos_token = "<s>"};
  EXPECT_EQ(Render("{{ bos_token }}{{ eos_token is defined }}{{ tools | tojson }}{{ documents }}{{ enable_thinking }}"
                   "{{ add_generation_prompt }}",
                   input),
            R"(<s>False[{"b": 1, "a": "é"}]NoneFalseFalse)");
}

TEST(ChatTemplate, ArgumentsDoNotReplaceTheConversation) {
  const ChatTemplateInput input{.messages_json = "[]", .template_arguments_json = R"({"messages": [1], "x": 2})"};
  EXPECT_EQ(Render("{{ messages }}{{ x }}", input), "[]2");
}

TEST(ChatTemplate, PassesRaisedMessagesOn) {
  EXPECT_EQ(Render("{{ raise_exception('Roles must alternate') }}"), "Roles must alternate");
}

TEST(ChatTemplate, ErrorsHaveLines) {
  EXPECT_EQ(Render("\n{% if %}"), "chat template line 2: expected an expression, found '%}'");
  EXPECT_EQ(Render("a\n\n{{ x.y }}"), "chat template line 3: 'x' is undefined");
  EXPECT_EQ(Render("", {.messages_json = "{}"}), "expected messages as a list, found dict");
}

TEST(ChatTemplate, RefusesMutation) {
  EXPECT_NE(Render("{{ messages.append(1) }}").find("not safe"), std::string::npos);
}

// Each hostile template is stopped by the limit that its error names.
TEST(ChatTemplate, LimitsStopHostileTemplates) {
  const std::pair<std::string, std::string> cases[] = {
      {"{% for a in range(100001) %}{% endfor %}", "range has more items than the limit"},
      {"{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "steps"},
      {"{% set ns = namespace(s='ab') %}{% for i in range(99) %}{% set ns.s = ns.s * 9 %}{% endfor %}", "bytes"},
      {"{{ 'x' * 99999999999 }}", "bytes"},
      {"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "macros call each other deeper than the limit"},
      {"{% set ns = namespace(l=[]) %}{% for i in range(200) %}{% set ns.l = [ns.l] %}{% endfor %}", "nested deeper"},
      {"{% set ns = namespace() %}{% set ns.me = ns %}{{ ns }}", "contains itself"},
      {"{{ " + std::string(3000, '(') + "1", "nested deeper than the limit"},
      {"{{ 1" + std::string(3000, '+') + "1 }}", "nested deeper than the limit"},
      {"{{ x" +
           [] {
             std::string chain;
             for (int i = 0; i < 3000; ++i) chain += ".a";
             return chain;
           }() +
           " }}",
       "deeper than the limit"},
      {"{{ '%99999999d' % 1 }}", "width"},
      {"{% macro m(a=m()) %}{% endmacro %}{{ m() }}", "macros call each other"},
  };
  for (const auto& [source, expected] : cases) {
    EXPECT_NE(Render(source).find(expected), std::string::npos) << source.substr(0, 80) << ": " << Render(source);
  }
}

// Without the limit it would overflow the stack. The refused level is lazy, and nobody reads it here.
TEST(ChatTemplate, FiltersInsideFiltersStop) {
  EXPECT_EQ(Render("{{ 'a' | map(*(['map'] * 10000)) | list }}"), "[<generator>]");
}

TEST(ChatTemplate, RendersFromManyThreads) {
  const auto chat = ChatTemplate::Parse(
      "{% macro f(x) %}{{ x | upper }}{% endmacro %}{% set ns = namespace(n=0) %}"
      "{% for m in messages %}{% set ns.n = ns.n + 1 %}{{ f(m.content) }}{{ ns.n }}{% endfor %}");
  ASSERT_TRUE(chat.ok());
  std::vector<std::thread> threads;
  std::vector<int> wrong(4);
  for (int& count : wrong) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) {
        const auto text = chat->Render({.messages_json = kMessages});
        count += text.ok() && *text == "HI1" ? 0 : 1;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4));
}

TEST(ChatTemplate, FormatsTheInjectedClock) {
  const ChatTemplateInput input{.messages_json = "[]",
                                .now = std::chrono::system_clock::time_point(std::chrono::hours(24 * 365))};
  EXPECT_EQ(Render("{{ strftime_now('%Y') }}", input).substr(0, 3), "197");
}

}  // namespace
}  // namespace baton
