// Methods of str but those that split: StringMethods of jinja_builtins.h. Argument 0 is the string itself.
#include <algorithm>
#include <array>

#include "text/jinja_builtins.h"
#include "text/jinja_format.h"
#include "text/jinja_operators.h"
#include "text/jinja_text.h"

namespace baton::jinja {

namespace {

using Values = std::vector<Value>;
using Result = absl::StatusOr<Value>;

absl::Status ExpectText(const Value& value, std::string_view method) {
  if (value.is_undefined()) return UndefinedError(value);
  if (value.is_string()) return absl::OkStatus();
  return InvalidArgument(method, " expects str, found ", value.TypeName());
}

Result StripEnds(Runtime& runtime, Values& a, bool left, bool right) {
  const std::string& text = a[0].string();
  BATON_RETURN_IF_ERROR(runtime.ChargeBytes(text.size()));
  if (a[1].is_none()) return Value::String(std::string(Strip(text, left, right)));
  BATON_RETURN_IF_ERROR(ExpectText(a[1], "strip"));
  BATON_RETURN_IF_ERROR(runtime.ChargeBytes(a[1].string().size()));
  return Value::String(std::string(StripAny(text, a[1].string(), left, right)));
}

Result StripBoth(Runtime& runtime, Values& a) { return StripEnds(runtime, a, true, true); }
Result StripLeft(Runtime& runtime, Values& a) { return StripEnds(runtime, a, true, false); }
Result StripRight(Runtime& runtime, Values& a) { return StripEnds(runtime, a, false, true); }

template <std::string (*transform)(std::string_view)>
Result Transform(Runtime& runtime, Values& a) {
  BATON_RETURN_IF_ERROR(runtime.ChargeBytes(a[0].string().size()));
  return Value::String(transform(a[0].string()));
}

std::string SwapCase(std::string_view text) {
  std::string out;
  for (size_t position = 0; position < text.size();) {
    const size_t start = position;
    const char32_t c = DecodeCodePoint(text, position);
    const std::string_view letter = text.substr(start, position - start);
    out += IsUpper(c) ? ToLower(letter) : ToUpper(letter);
  }
  return out;
}

// The part text[start:end] that searches look at, in bytes; nothing where `start` is past the end.
absl::StatusOr<std::optional<std::pair<size_t, size_t>>> SearchRange(Runtime& runtime, const std::string& text,
                                                                     const Value& start, const Value& end) {
  BATON_RETURN_IF_ERROR(runtime.ChargeBytes(text.size()));
  if (start.is_none() && end.is_none()) return std::pair<size_t, size_t>(0, text.size());
  for (const Value& value : {start, end}) {
    if (!value.is_none() && !value.is_integral()) return InvalidArgument("expected an int, found ", value.TypeName());
  }
  const auto length = static_cast<int64_t>(CountCodePoints(text));
  auto resolve = [&](const Value& value, int64_t missing) {
    if (value.is_none()) return missing;
    return value.integer() < 0 ? std::max<int64_t>(value.integer() + length, 0) : value.integer();
  };
  const int64_t first = resolve(start, 0);
  const int64_t last = std::min(resolve(end, length), length);
  if (first > last) return std::nullopt;
  auto offset = [&](int64_t index) {
    size_t position = 0;
    for (int64_t i = 0; i < index; ++i) DecodeCodePoint(text, position);
    return position;
  };
  return std::pair<size_t, size_t>(offset(first), offset(last));
}

Result MatchesEnd(Runtime& runtime, Values& a, bool at_start) {
  const std::string_view name = at_start ? "startswith" : "endswith";
  BATON_ASSIGN_OR_RETURN(const auto range, SearchRange(runtime, a[0].string(), a[2], a[3]));
  const Values candidates = a[1].is(Kind::kTuple) ? a[1].items() : Values{a[1]};
  for (const Value& candidate : candidates) {
    BATON_RETURN_IF_ERROR(ExpectText(candidate, name));
    if (!range.has_value()) continue;
    const std::string_view part = std::string_view(a[0].string()).substr(range->first, range->second - range->first);
    if (at_start ? part.starts_with(candidate.string()) : part.ends_with(candidate.string())) return Value::Bool(true);
  }
  return Value::Bool(false);
}

Result StartsWith(Runtime& runtime, Values& a) { return MatchesEnd(runtime, a, true); }
Result EndsWith(Runtime& runtime, Values& a) { return MatchesEnd(runtime, a, false); }

// The place of a[1] in code points, or -1.
absl::StatusOr<int64_t> Search(Runtime& runtime, Values& a, bool from_end) {
  BATON_RETURN_IF_ERROR(ExpectText(a[1], "find"));
  BATON_ASSIGN_OR_RETURN(const auto range, SearchRange(runtime, a[0].string(), a[2], a[3]));
  if (!range.has_value()) return -1;
  const std::string_view part = std::string_view(a[0].string()).substr(range->first, range->second - range->first);
  if (from_end) BATON_RETURN_IF_ERROR(runtime.Charge((1 + part.size() / 16) * (1 + a[1].string().size() / 16)));
  const size_t found = from_end ? part.rfind(a[1].string()) : FindText(part, a[1].string());
  if (found == part.npos) return -1;
  return static_cast<int64_t>(CountCodePoints(std::string_view(a[0].string()).substr(0, range->first + found)));
}

template <bool from_end, bool must_exist>
Result Find(Runtime& runtime, Values& a) {
  BATON_ASSIGN_OR_RETURN(const int64_t place, Search(runtime, a, from_end));
  if (must_exist && place < 0) return InvalidArgument("the text that index looks for is not in the string");
  return Value::Integer(place);
}

Result CountParts(Runtime& runtime, Values& a) {
  BATON_RETURN_IF_ERROR(ExpectText(a[1], "count"));
  BATON_ASSIGN_OR_RETURN(const auto range, SearchRange(runtime, a[0].string(), a[2], a[3]));
  if (!range.has_value()) return Value::Integer(0);
  const std::string_view part = std::string_view(a[0].string()).substr(range->first, range->second - range->first);
  const std::string& wanted = a[1].string();
  if (wanted.empty()) return Value::Integer(static_cast<int64_t>(CountCodePoints(part)) + 1);
  int64_t count = 0;
  for (size_t i = FindText(part, wanted); i != part.npos; i = FindText(part, wanted, i + wanted.size())) ++count;
  return Value::Integer(count);
}

// Before each character and at the end, for an empty text to replace.
std::string Interleave(std::string_view text, std::string_view insert, int64_t count) {
  std::string out;
  size_t position = 0;
  for (; position < text.size(); --count) {
    if (count == 0) break;
    out += insert;
    const size_t start = position;
    DecodeCodePoint(text, position);
    out += text.substr(start, position - start);
  }
  if (count != 0) out += insert;
  return out.append(text.substr(position));
}

Result Replace(Runtime& runtime, Values& a) {
  BATON_RETURN_IF_ERROR(ExpectText(a[1], "replace"));
  BATON_RETURN_IF_ERROR(ExpectText(a[2], "replace"));
  if (!a[3].is_integral()) return InvalidArgument("replace expects an int as count, found ", a[3].TypeName());
  const std::string& text = a[0].string();
  const std::string& from = a[1].string();
  const std::string& to = a[2].string();
  int64_t count = a[3].integer();
  const size_t most = from.empty() ? text.size() + 1 : text.size() / from.size();
  BATON_RETURN_IF_ERROR(runtime.ChargeBytes(text.size()));
  if (most > 0 && to.size() > from.size()) {  // what it could grow to, at the cost of an exact count
    size_t parts = most;
    if (!from.empty()) {
      parts = 0;
      for (size_t i = FindText(text, from); i != text.npos; i = FindText(text, from, i + from.size())) ++parts;
    }
    if (count >= 0) parts = std::min(parts, static_cast<size_t>(count));
    size_t growth = 0;
    if (__builtin_mul_overflow(parts, to.size(), &growth)) growth = ~size_t{0} / 4;
    BATON_RETURN_IF_ERROR(runtime.ChargeBytes(growth));
  }
  if (from.empty()) return Value::String(Interleave(text, to, count));
  std::string out;
  size_t start = 0;
  for (size_t i = FindText(text, from); i != text.npos && count != 0; i = FindText(text, from, start), --count) {
    out.append(text, start, i - start);
    out += to;
    start = i + from.size();
  }
  return Value::String(out.append(text, start));
}

Result Join(Runtime& runtime, Values& a) {
  BATON_ASSIGN_OR_RETURN(const Values items, Iterate(runtime, a[1]));
  std::string out;
  for (size_t i = 0; i < items.size(); ++i) {
    BATON_RETURN_IF_ERROR(ExpectText(items[i], "join"));
    if (i > 0) out += a[0].string();
    out += items[i].string();
    BATON_RETURN_IF_ERROR(out.size() > runtime.limits().output_bytes ? runtime.ChargeBytes(out.size())
                                                                     : absl::OkStatus());
  }
  BATON_RETURN_IF_ERROR(runtime.ChargeBytes(out.size()));
  return Value::String(std::move(out));
}

Result Format(Runtime& runtime, Values& a) {
  Arguments arguments{a[1].items(), {}};
  for (const auto& [name, value] : a[2].dict().entries()) arguments.named.emplace_back(name.string(), value);
  return FormatBraces(runtime, a[0].string(), arguments);
}

Result FormatMap(Runtime& runtime, Values& a) {
  if (!a[1].is_dict()) return InvalidArgument("format_map expects a dict, found ", a[1].TypeName());
  Arguments arguments;
  for (const auto& [name, value] : a[1].dict().entries()) {
    if (name.is_string()) arguments.named.emplace_back(name.string(), value);
  }
  return FormatBraces(runtime, a[0].string(), arguments);
}

Result RemovePrefix(Runtime& runtime, Values& a) {
  BATON_RETURN_IF_ERROR(ExpectText(a[1], "removeprefix"));
  BATON_RETURN_IF_ERROR(runtime.ChargeBytes(a[0].string().size()));
  const bool has = a[0].string().starts_with(a[1].string());
  return Value::String(a[0].string().substr(has ? a[1].string().size() : 0));
}

Result RemoveSuffix(Runtime& runtime, Values& a) {
  BATON_RETURN_IF_ERROR(ExpectText(a[1], "removesuffix"));
  BATON_RETURN_IF_ERROR(runtime.ChargeBytes(a[0].string().size()));
  const bool has = a[0].string().ends_with(a[1].string());
  return Value::String(a[0].string().substr(0, a[0].string().size() - (has ? a[1].string().size() : 0)));
}

// Every character has the property, and there is one.
template <bool (*property)(char32_t)>
Result All(Runtime& runtime, Values& a) {
  const std::string& text = a[0].string();
  BATON_RETURN_IF_ERROR(runtime.ChargeBytes(text.size()));
  for (size_t position = 0; position < text.size();) {
    if (!property(DecodeCodePoint(text, position))) return Value::Bool(false);
  }
  return Value::Bool(!text.empty());
}

bool IsAlphanumeric(char32_t c) { return IsAlpha(c) || IsNumeric(c); }
bool IsAscii(char32_t c) { return c < 0x80; }

Result IsAsciiText(Runtime& runtime, Values& a) {
  return a[0].string().empty() ? Value::Bool(true) : All<IsAscii>(runtime, a);
}

template <bool wants_upper>
Result HasCase(Runtime& runtime, Values& a) {
  BATON_ASSIGN_OR_RETURN(const bool result, CallTest(runtime, wants_upper ? "upper" : "lower", a[0], Arguments()));
  return Value::Bool(result);
}

// Pads to a[1] characters; `left`: the share of the padding that goes to the left.
template <char side>
Result Pad(Runtime& runtime, Values& a) {
  if (!a[1].is_integral()) return InvalidArgument("expected an int as width, found ", a[1].TypeName());
  std::string fill = " ";
  if (!a[2].is_undefined()) {
    if (!a[2].is_string() || CountCodePoints(a[2].string()) != 1) return InvalidArgument("expected one fill character");
    fill = a[2].string();
  }
  const std::string& text = a[0].string();
  BATON_RETURN_IF_ERROR(runtime.ChargeBytes(text.size()));
  const int64_t width = a[1].integer();
  const int64_t missing = width - static_cast<int64_t>(CountCodePoints(text));
  if (missing <= 0 || width <= 0) return Value::String(text);
  if (missing > static_cast<int64_t>(runtime.limits().output_bytes)) return runtime.ChargeBytes(~size_t{0} / 4);
  BATON_RETURN_IF_ERROR(runtime.ChargeBytes(static_cast<size_t>(missing) * fill.size()));
  const int64_t left = side == '<' ? 0 : side == '>' ? missing : missing / 2 + (missing & width & 1);
  std::string out;
  for (int64_t i = 0; i < left; ++i) out += fill;
  out += text;
  for (int64_t i = left; i < missing; ++i) out += fill;
  return Value::String(std::move(out));
}

Result ZeroFill(Runtime& runtime, Values& a) {
  const std::string& text = a[0].string();
  const bool has_sign = text.starts_with('-') || text.starts_with('+');
  Values parts{Value::String(text.substr(has_sign ? 1 : 0)), a[1], Value::String("0")};
  if (has_sign && a[1].is(Kind::kInteger) && a[1].integer() > 0) parts[1] = Value::Integer(a[1].integer() - 1);
  BATON_ASSIGN_OR_RETURN(const Value padded, Pad<'>'>(runtime, parts));
  return Value::String(text.substr(0, has_sign ? 1 : 0) + padded.string());
}

constexpr std::array kMethods = {
    Builtin{"strip", "/self chars=none", StripBoth},
    Builtin{"lstrip", "/self chars=none", StripLeft},
    Builtin{"rstrip", "/self chars=none", StripRight},
    Builtin{"upper", "/self", Transform<ToUpper>},
    Builtin{"lower", "/self", Transform<ToLower>},
    Builtin{"casefold", "/self", Transform<ToLower>},
    Builtin{"title", "/self", Transform<ToTitle>},
    Builtin{"capitalize", "/self", Transform<ToCapitalized>},
    Builtin{"swapcase", "/self", Transform<SwapCase>},
    Builtin{"startswith", "/self prefix start=none end=none", StartsWith},
    Builtin{"endswith", "/self suffix start=none end=none", EndsWith},
    Builtin{"find", "/self sub start=none end=none", Find<false, false>},
    Builtin{"rfind", "/self sub start=none end=none", Find<true, false>},
    Builtin{"index", "/self sub start=none end=none", Find<false, true>},
    Builtin{"rindex", "/self sub start=none end=none", Find<true, true>},
    Builtin{"count", "/self sub start=none end=none", CountParts},
    Builtin{"replace", "/self old new count=-1", Replace},
    Builtin{"join", "/self iterable", Join},
    Builtin{"format", "/self * **", Format},
    Builtin{"format_map", "/self mapping", FormatMap},
    Builtin{"removeprefix", "/self prefix", RemovePrefix},
    Builtin{"removesuffix", "/self suffix", RemoveSuffix},
    Builtin{"isalpha", "/self", All<IsAlpha>},
    Builtin{"isalnum", "/self", All<IsAlphanumeric>},
    Builtin{"isdigit", "/self", All<IsDigit>},
    Builtin{"isdecimal", "/self", All<IsDecimal>},
    Builtin{"isnumeric", "/self", All<IsNumeric>},
    Builtin{"isspace", "/self", All<IsSpace>},
    Builtin{"isascii", "/self", IsAsciiText},
    Builtin{"islower", "/self", HasCase<false>},
    Builtin{"isupper", "/self", HasCase<true>},
    Builtin{"ljust", "/self width fillchar=?", Pad<'<'>},
    Builtin{"rjust", "/self width fillchar=?", Pad<'>'>},
    Builtin{"center", "/self width fillchar=?", Pad<'^'>},
    Builtin{"zfill", "/self width", ZeroFill},
};

}  // namespace

std::span<const Builtin> StringMethods() { return kMethods; }

}  // namespace baton::jinja
