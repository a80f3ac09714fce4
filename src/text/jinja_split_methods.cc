// Methods of str that take it apart: SplitMethods of jinja_builtins.h. Argument 0 is the string itself.
#include <algorithm>
#include <array>

#include "text/jinja_builtins.h"
#include "text/jinja_operators.h"
#include "text/jinja_text.h"

namespace baton::jinja {

namespace {

using Values = std::vector<Value>;
using Result = absl::StatusOr<Value>;
using Parts = std::vector<std::string_view>;

Result ToList(Runtime& runtime, const Parts& parts) {
  BATON_RETURN_IF_ERROR(runtime.Charge(parts.size()));
  Values items;
  for (const std::string_view part : parts) items.push_back(Value::String(std::string(part)));
  return Value::List(std::move(items));
}

// Between runs of white space, from the left; at most `limit` splits, the rest keeps its white space.
Parts SplitSpace(std::string_view text, int64_t limit) {
  Parts parts;
  text = Strip(text, true, false);
  while (!text.empty()) {
    if (limit-- == 0) {
      parts.push_back(text);
      break;
    }
    size_t end = 0;
    while (end < text.size()) {
      size_t next = end;
      if (IsSpace(DecodeCodePoint(text, next))) break;
      end = next;
    }
    parts.push_back(text.substr(0, end));
    text = Strip(text.substr(end), true, false);
  }
  return parts;
}

// The same from the right; parts come last first.
Parts SplitSpaceFromRight(std::string_view text, int64_t limit) {
  Parts parts;
  text = Strip(text, false, true);
  while (!text.empty()) {
    if (limit-- == 0) {
      parts.push_back(text);
      break;
    }
    size_t start = 0;  // of the last word
    for (size_t position = 0; position < text.size();) {
      if (IsSpace(DecodeCodePoint(text, position))) start = position;
    }
    parts.push_back(text.substr(start));
    text = Strip(text.substr(0, start), false, true);
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

Parts SplitBy(std::string_view text, std::string_view separator, int64_t limit) {
  Parts parts;
  while (limit-- != 0) {
    const size_t found = FindText(text, separator);
    if (found == text.npos) break;
    parts.push_back(text.substr(0, found));
    text.remove_prefix(found + separator.size());
  }
  parts.push_back(text);
  return parts;
}

Parts SplitByFromRight(std::string_view text, std::string_view separator, int64_t limit) {
  Parts parts;
  while (limit-- != 0) {
    const size_t found = text.rfind(separator);
    if (found == text.npos) break;
    parts.push_back(text.substr(found + separator.size()));
    text = text.substr(0, found);
  }
  parts.push_back(text);
  std::reverse(parts.begin(), parts.end());
  return parts;
}

absl::Status CheckSeparator(const Value& separator) {
  if (separator.is_undefined()) return UndefinedError(separator);
  if (!separator.is_string()) return InvalidArgument("split expects str, found ", separator.TypeName());
  return separator.string().empty() ? InvalidArgument("split expects a separator that is not empty") : absl::OkStatus();
}

// A backward search compares the whole separator at each place.
absl::Status ChargeBackwardSearch(Runtime& runtime, std::string_view text, std::string_view separator) {
  return runtime.Charge((1 + text.size() / 16) * (1 + separator.size() / 16));
}

template <bool from_right>
Result Split(Runtime& runtime, Values& a) {
  const std::string& text = a[0].string();
  if (!a[2].is_integral()) return InvalidArgument("split expects an int, found ", a[2].TypeName());
  const int64_t limit = a[2].integer() < 0 ? -1 : a[2].integer();
  BATON_RETURN_IF_ERROR(runtime.ChargeBytes(text.size()));
  if (a[1].is_none()) {
    if (from_right && limit >= 0) {  // each part walks the text again
      const uint64_t parts = std::min<uint64_t>(static_cast<uint64_t>(limit), text.size() / 2) + 1;
      BATON_RETURN_IF_ERROR(runtime.Charge(parts * (1 + text.size() / 16)));
    }
    // Without a limit the direction makes no difference, and from the left it takes one pass.
    return ToList(runtime, from_right && limit >= 0 ? SplitSpaceFromRight(text, limit) : SplitSpace(text, limit));
  }
  BATON_RETURN_IF_ERROR(CheckSeparator(a[1]));
  if (from_right) BATON_RETURN_IF_ERROR(ChargeBackwardSearch(runtime, text, a[1].string()));
  return ToList(runtime,
                from_right ? SplitByFromRight(text, a[1].string(), limit) : SplitBy(text, a[1].string(), limit));
}

Result Lines(Runtime& runtime, Values& a) {
  BATON_RETURN_IF_ERROR(runtime.ChargeBytes(a[0].string().size()));
  return ToList(runtime, SplitLines(a[0].string(), IsTrue(a[1])));
}

template <bool from_right>
Result Partition(Runtime& runtime, Values& a) {
  BATON_RETURN_IF_ERROR(runtime.ChargeBytes(a[0].string().size()));
  BATON_RETURN_IF_ERROR(CheckSeparator(a[1]));
  const std::string& text = a[0].string();
  const std::string& separator = a[1].string();
  if (from_right) BATON_RETURN_IF_ERROR(ChargeBackwardSearch(runtime, text, separator));
  const size_t found = from_right ? text.rfind(separator) : FindText(text, separator);
  if (found == text.npos) {
    const Value whole = a[0];
    const Value empty = Value::String("");
    return from_right ? Value::Tuple({empty, empty, whole}) : Value::Tuple({whole, empty, empty});
  }
  return Value::Tuple(
      {Value::String(text.substr(0, found)), a[1], Value::String(text.substr(found + separator.size()))});
}

constexpr std::array kMethods = {
    Builtin{"split", "self sep=none maxsplit=-1", Split<false>},
    Builtin{"rsplit", "self sep=none maxsplit=-1", Split<true>},
    Builtin{"splitlines", "self keepends=false", Lines},
    Builtin{"partition", "/self sep", Partition<false>},
    Builtin{"rpartition", "/self sep", Partition<true>},
};

}  // namespace

std::span<const Builtin> SplitMethods() { return kMethods; }

}  // namespace baton::jinja
