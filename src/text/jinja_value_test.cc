#include "text/jinja_value.h"

#include <gtest/gtest.h>

#include "text/jinja_json.h"
#include "text/jinja_operators.h"
#include "text/jinja_print.h"
#include "text/jinja_text.h"

namespace baton::jinja {
namespace {

Value Json(std::string_view text) {
  auto value = ParseJson(text, "a value");
  EXPECT_TRUE(value.ok()) << value.status();
  return value.ok() ? *value : Value();
}

TEST(JinjaValue, DictsKeepTheirOrderAndReplaceEqualKeys) {
  Dict dict;
  dict.Set("b", Value::Integer(1));
  dict.Set(Value::Integer(1), Value::Integer(2));
  dict.Set("a", Value::Integer(3));
  dict.Set("b", Value::Integer(4));
  dict.Set(Value::Bool(true), Value::Integer(5));  // equal to 1
  ASSERT_EQ(dict.size(), 3u);
  EXPECT_EQ(dict.entries()[0].second.integer(), 4);
  EXPECT_EQ(dict.entries()[1].second.integer(), 5);
  EXPECT_EQ(dict.Find("zz"), nullptr);
}

TEST(JinjaValue, PrintsAsPythonDoes) {
  Runtime runtime(Limits(), {});
  const Value value = Json(R"([1, 1.0, 1e22, 1e-5, null, true, "it's", "\u200b\n", {"a": []}, 0.1])");
  EXPECT_EQ(*ToText(runtime, value), R"([1, 1.0, 1e+22, 1e-05, None, True, "it's", '\u200b\n', {'a': []}, 0.1])");
  EXPECT_EQ(*ToText(runtime, Value()), "");
}

TEST(JinjaValue, JsonRoundTrips) {
  Runtime runtime(Limits(), {});
  const std::string text = R"({"a": [1, 2.5, "\"\\\n\u0001é"], "b": {"c": null}, "d": 3.141592653589793})";
  EXPECT_EQ(*WriteJson(runtime, Json(text), JsonStyle()), text);
  EXPECT_EQ(*WriteJson(runtime, Json("[1, {}]"), {.indent = " ", .item_separator = ","}), "[\n 1,\n {}\n]");
}

TEST(JinjaValue, RefusesBadJson) {
  for (const char* text : {"", "[1,]", "{\"a\"}", "[1] 2", "\"\xff\"", "nul", "[\"\\ud800\"]"}) {
    EXPECT_FALSE(ParseJson(text, "messages").ok()) << text;
  }
  const std::string deep(200, '[');
  EXPECT_FALSE(ParseJson(deep + std::string(200, ']'), "messages").ok());
}

TEST(JinjaValue, EndlessComparisonsRunOutOfSteps) {
  Runtime runtime({.steps = 100'000}, {});
  Value a = Value::List({});
  Value b = Value::List({});
  for (int i = 0; i < 60; ++i) {
    a = Value::List({a, a});
    b = Value::List({b, b});
  }
  EXPECT_FALSE(AreEqual(runtime, a, b).ok());
}

TEST(JinjaText, CasesAndCategories) {
  EXPECT_EQ(ToUpper("straße é"), "STRASSE É");
  EXPECT_EQ(ToTitle("it's ok"), "It'S Ok");
  EXPECT_EQ(Strip("\u3000 a\u00a0"), "a");
  EXPECT_TRUE(IsAlpha(U'日'));
  EXPECT_FALSE(IsPrintable(0x200B));
  EXPECT_EQ(FormatDouble(1e15), "1000000000000000.0");
  EXPECT_EQ(FormatDouble(1e16), "1e+16");
}

}  // namespace
}  // namespace baton::jinja
