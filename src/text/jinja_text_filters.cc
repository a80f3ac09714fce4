// Filters that make text: TextFilters of jinja_builtins.h. Each takes any value as its str().
#include <algorithm>
#include <array>

#include "text/jinja_builtins.h"
#include "text/jinja_format.h"
#include "text/jinja_json.h"
#include "text/jinja_operators.h"
#include "text/jinja_print.h"
#include "text/jinja_text.h"

namespace baton::jinja {

namespace {

using Values = std::vector<Value>;
using Result = absl::StatusOr<Value>;

// `transform` (a std::string of a text) applied to the str() of the filtered value.
template <typename Transform>
Result MapText(Runtime& runtime, const Value& value, Transform transform) {
  BATON_ASSIGN_OR_RETURN(const std::string text, ToText(runtime, value));
  std::string out(transform(text));
  BATON_RETURN_IF_ERROR(runtime.ChargeBytes(out.size()));
  return Value::String(std::move(out));
}

absl::StatusOr<int64_t> IntegerOf(const Value& value, std::string_view what) {
  if (value.is_integral()) return value.integer();
  return InvalidArgument(what, " expects int, found ", value.TypeName());
}

Result Text(Runtime& runtime, Values& a) {
  if (a[0].is_string()) return a[0];
  return MapText(runtime, a[0], [](const std::string& text) { return text; });
}

Result Trim(Runtime& runtime, Values& a) {
  if (a[1].is_none()) return MapText(runtime, a[0], [](std::string_view text) { return Strip(text); });
  if (!a[1].is_string()) return InvalidArgument("trim expects str, found ", a[1].TypeName());
  return MapText(runtime, a[0], [&](std::string_view text) { return StripAny(text, a[1].string()); });
}

Result Upper(Runtime& runtime, Values& a) { return MapText(runtime, a[0], ToUpper); }
Result Lower(Runtime& runtime, Values& a) { return MapText(runtime, a[0], ToLower); }
Result Capitalize(Runtime& runtime, Values& a) { return MapText(runtime, a[0], ToCapitalized); }

// Unlike str.title(), words also go on after an apostrophe.
std::string TitleWords(std::string_view text) {
  std::string out;
  size_t start = 0;
  auto flush = [&](size_t end) {
    size_t rest = start;
    if (end > start) {
      const char32_t first = DecodeCodePoint(text, rest);
      std::string head;
      AppendCodePoint(head, first);
      out += ToUpper(head) + ToLower(text.substr(rest, end - rest));
    }
  };
  for (size_t position = 0; position < text.size();) {
    const size_t here = position;
    const char32_t c = DecodeCodePoint(text, position);
    if (c != '-' && c != '(' && c != '{' && c != '[' && c != '<' && !IsSpace(c)) continue;
    flush(here);
    out.append(text.substr(here, position - here));
    start = position;
  }
  flush(text.size());
  return out;
}

Result Title(Runtime& runtime, Values& a) { return MapText(runtime, a[0], TitleWords); }

std::string EscapeHtml(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&#34;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out.push_back(c);
    }
  }
  return out;
}

Result Escape(Runtime& runtime, Values& a) { return MapText(runtime, a[0], EscapeHtml); }

Result Replace(Runtime& runtime, Values& a) {
  BATON_ASSIGN_OR_RETURN(std::string text, ToText(runtime, a[0]));
  BATON_ASSIGN_OR_RETURN(std::string from, ToText(runtime, a[1]));
  BATON_ASSIGN_OR_RETURN(std::string to, ToText(runtime, a[2]));
  BATON_ASSIGN_OR_RETURN(const int64_t count, IntegerOf(a[3].is_none() ? Value::Integer(-1) : a[3], "replace"));
  Arguments arguments{{Value::String(std::move(from)), Value::String(std::move(to)), Value::Integer(count)}, {}};
  return Call(runtime, *FindMethod(Value::String(std::move(text)), "replace"), std::move(arguments));
}

Result Indent(Runtime& runtime, Values& a) {
  if (a[0].is_undefined()) return UndefinedError(a[0]);
  if (!a[0].is_string()) return InvalidArgument("indent expects str, found ", a[0].TypeName());
  std::string space;
  if (a[1].is_string()) {
    space = a[1].string();
  } else {
    BATON_ASSIGN_OR_RETURN(const int64_t width, IntegerOf(a[1], "indent"));
    if (width > 1000) return InvalidArgument("indent expects a width up to 1000, found ", width);
    space.assign(static_cast<size_t>(std::max<int64_t>(width, 0)), ' ');
  }
  const bool blank = IsTrue(a[3]);
  const std::string text = a[0].string() + "\n";
  const auto lines = SplitLines(text, false);
  BATON_RETURN_IF_ERROR(runtime.ChargeBytes(text.size() + lines.size() * space.size()));
  std::string out = IsTrue(a[2]) ? space : "";
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out.push_back('\n');
    if (i > 0 && (blank || !lines[i].empty())) out += space;
    out += lines[i];
  }
  return Value::String(std::move(out));
}

Result WordCount(Runtime& runtime, Values& a) {
  BATON_ASSIGN_OR_RETURN(const std::string text, ToText(runtime, a[0]));
  int64_t words = 0;
  bool in_word = false;
  for (size_t position = 0; position < text.size();) {
    const char32_t c = DecodeCodePoint(text, position);
    const bool word = c == '_' || IsAlpha(c) || IsNumeric(c);
    words += word && !in_word ? 1 : 0;
    in_word = word;
  }
  return Value::Integer(words);
}

Result Truncate(Runtime& runtime, Values& a) {
  if (a[0].is_undefined()) return a[0];
  if (!a[0].is_string()) return InvalidArgument("truncate expects str, found ", a[0].TypeName());
  BATON_ASSIGN_OR_RETURN(const int64_t length, IntegerOf(a[1], "truncate"));
  BATON_ASSIGN_OR_RETURN(const int64_t leeway, IntegerOf(a[4].is_none() ? Value::Integer(5) : a[4], "truncate"));
  const std::string end = a[3].is_undefined() ? "..." : a[3].is_string() ? a[3].string() : "";
  if (!a[3].is_undefined() && !a[3].is_string())
    return InvalidArgument("truncate expects str, found ", a[3].TypeName());
  const auto end_length = static_cast<int64_t>(CountCodePoints(end));
  if (length < end_length) return InvalidArgument("truncate expects a length of at least ", end_length);
  if (leeway < 0) return InvalidArgument("truncate expects a leeway that is not negative");
  BATON_RETURN_IF_ERROR(runtime.ChargeBytes(a[0].string().size()));
  const std::u32string text = ToCodePoints(a[0].string());
  int64_t limit = 0;
  if (__builtin_add_overflow(length, leeway, &limit) || static_cast<int64_t>(text.size()) <= limit) return a[0];
  std::u32string head = text.substr(0, static_cast<size_t>(length - end_length));
  if (!IsTrue(a[2])) head = head.substr(0, head.rfind(U' '));
  return Value::String(FromCodePoints(head) + end);
}

Result Center(Runtime& runtime, Values& a) {
  BATON_ASSIGN_OR_RETURN(std::string text, ToText(runtime, a[0]));
  return Call(runtime, *FindMethod(Value::String(std::move(text)), "center"), {{a[1]}, {}});
}

std::string QuoteUrl(std::string_view text, bool in_query) {
  std::string out;
  for (const char c : text) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (letter || std::string_view("_.-~").find(c) != std::string_view::npos || (c == '/' && !in_query)) {
      out.push_back(c);
    } else if (c == ' ' && in_query) {
      out.push_back('+');
    } else {
      const auto byte = static_cast<unsigned char>(c);
      out += {'%', "0123456789ABCDEF"[byte >> 4], "0123456789ABCDEF"[byte & 15]};
    }
  }
  return out;
}

Result UrlEncode(Runtime& runtime, Values& a) {
  const bool iterable = a[0].is_dict() || a[0].is_sequence() || a[0].is(Kind::kGenerator) || a[0].is_undefined();
  if (!iterable) return MapText(runtime, a[0], [](std::string_view text) { return QuoteUrl(text, false); });
  std::vector<Value> pairs;
  if (a[0].is_dict()) {
    for (const auto& [key, value] : a[0].dict().entries()) pairs.push_back(Value::Tuple({key, value}));
  } else {
    BATON_ASSIGN_OR_RETURN(pairs, Iterate(runtime, a[0]));
  }
  std::string out;
  for (const Value& pair : pairs) {
    BATON_ASSIGN_OR_RETURN(const std::vector<Value> parts, Iterate(runtime, pair));
    if (parts.size() != 2) return InvalidArgument("urlencode expects pairs, found ", parts.size(), " values");
    BATON_ASSIGN_OR_RETURN(const std::string key, ToText(runtime, parts[0]));
    BATON_ASSIGN_OR_RETURN(const std::string value, ToText(runtime, parts[1]));
    if (!out.empty()) out.push_back('&');
    out += QuoteUrl(key, true) + "=" + QuoteUrl(value, true);
    BATON_RETURN_IF_ERROR(runtime.ChargeBytes(out.size()));
  }
  return Value::String(std::move(out));
}

Result Format(Runtime& runtime, Values& a) {
  if (!a[1].items().empty() && a[2].dict().size() > 0) {
    return InvalidArgument("format expects positional or named arguments, not both");
  }
  BATON_ASSIGN_OR_RETURN(const std::string text, ToText(runtime, a[0]));
  return FormatPercent(runtime, text, a[2].dict().size() > 0 ? a[2] : a[1]);
}

// Python: a string is a level of indentation itself, a number its count of spaces.
absl::Status SetIndent(const Value& value, JsonStyle& style) {
  if (value.is_none()) return absl::OkStatus();
  style.item_separator = ",";
  if (value.is_string()) {
    style.indent = value.string();
    return absl::OkStatus();
  }
  BATON_ASSIGN_OR_RETURN(const int64_t width, IntegerOf(value, "tojson's indent"));
  if (width > 1000) return InvalidArgument("tojson expects an indent up to 1000, found ", width);
  style.indent = std::string(static_cast<size_t>(std::max<int64_t>(width, 0)), ' ');
  return absl::OkStatus();
}

// Hugging Face's tojson: json.dumps without Jinja's HTML escapes.
Result ToJson(Runtime& runtime, Values& a) {
  JsonStyle style{.ensure_ascii = IsTrue(a[1]), .sort_keys = IsTrue(a[4])};
  BATON_RETURN_IF_ERROR(SetIndent(a[2], style));
  if (!a[3].is_none()) {
    BATON_ASSIGN_OR_RETURN(const std::vector<Value> parts, Iterate(runtime, a[3]));
    if (parts.size() != 2 || !parts[0].is_string() || !parts[1].is_string()) {
      return InvalidArgument("tojson expects two strings as separators");
    }
    style.item_separator = parts[0].string();
    style.key_separator = parts[1].string();
  }
  BATON_ASSIGN_OR_RETURN(std::string text, WriteJson(runtime, a[0], style));
  return Value::String(std::move(text));
}

constexpr std::array kFilters = {
    Builtin{"string", "value", Text},
    Builtin{"safe", "value", Text},
    Builtin{"trim", "value chars=none", Trim},
    Builtin{"upper", "s", Upper},
    Builtin{"lower", "s", Lower},
    Builtin{"title", "s", Title},
    Builtin{"capitalize", "s", Capitalize},
    Builtin{"escape", "value", Escape},
    Builtin{"e", "value", Escape},
    Builtin{"forceescape", "value", Escape},
    Builtin{"replace", "s old new count=none", Replace},
    Builtin{"indent", "s width=4 first=false blank=false", Indent},
    Builtin{"wordcount", "s", WordCount},
    Builtin{"truncate", "s length=255 killwords=false end=? leeway=none", Truncate},
    Builtin{"center", "value width=80", Center},
    Builtin{"urlencode", "value", UrlEncode},
    Builtin{"format", "value * **", Format},
    Builtin{"tojson", "x ensure_ascii=false indent=none separators=none sort_keys=false", ToJson},
};

}  // namespace

std::span<const Builtin> TextFilters() { return kFilters; }

}  // namespace baton::jinja
