// WriteJson: json.dumps.
#include <cmath>

#include "text/jinja_json.h"
#include "text/jinja_operators.h"
#include "text/jinja_text.h"

namespace baton::jinja {

namespace {

class Writer {
 public:
  Writer(Runtime& runtime, const JsonStyle& style) : runtime_(runtime), style_(style) {}

  absl::Status Write(const Value& value, int level) {
    BATON_RETURN_IF_ERROR(runtime_.Charge(1));
    if (out_.size() > runtime_.limits().output_bytes) return runtime_.ChargeBytes(out_.size());
    switch (value.kind()) {
      case Kind::kNone:
      case Kind::kBool:
      case Kind::kInteger:
      case Kind::kDouble:
        out_ += Scalar(value);
        return absl::OkStatus();
      case Kind::kString:
        return WriteString(value.string());
      case Kind::kList:
      case Kind::kTuple:
        return WriteList(value.items(), level);
      case Kind::kDict:
        return WriteDict(value.dict(), level);
      case Kind::kUndefined:
        return InvalidArgument("expected a value to write as JSON, found an undefined one: ", value.UndefinedMessage());
      default:
        return InvalidArgument("a ", value.TypeName(), " can't be written as JSON");
    }
  }

  absl::StatusOr<std::string> Take() {
    BATON_RETURN_IF_ERROR(runtime_.ChargeBytes(out_.size()));
    return std::move(out_);
  }

 private:
  static std::string Scalar(const Value& value) {
    if (value.is_none()) return "null";
    if (value.is(Kind::kBool)) return value.boolean() ? "true" : "false";
    if (value.is(Kind::kInteger)) return Cat(value.integer());
    if (std::isnan(value.number())) return "NaN";
    if (std::isinf(value.number())) return value.number() < 0 ? "-Infinity" : "Infinity";
    return FormatDouble(value.number());
  }

  void AppendEscape(char32_t c) {
    constexpr char kDigits[] = "0123456789abcdef";
    out_ += "\\u";
    for (int shift = 12; shift >= 0; shift -= 4) out_.push_back(kDigits[c >> shift & 15]);
  }

  void AppendCharacter(char32_t c) {
    constexpr std::string_view kSpecial = "\"\\\n\r\t\b\f";
    constexpr std::string_view kLetters = "\"\\nrtbf";
    if (const size_t found = c < 0x80 ? kSpecial.find(static_cast<char>(c)) : kSpecial.npos; found != kSpecial.npos) {
      out_.push_back('\\');
      out_.push_back(kLetters[found]);
    } else if (c < 0x20 || (style_.ensure_ascii && c > 0x7E && c < 0x10000)) {
      AppendEscape(c);
    } else if (style_.ensure_ascii && c >= 0x10000) {
      AppendEscape(0xD800 + ((c - 0x10000) >> 10));
      AppendEscape(0xDC00 + ((c - 0x10000) & 0x3FF));
    } else {
      AppendCodePoint(out_, c);
    }
  }

  absl::Status WriteString(std::string_view text) {
    BATON_RETURN_IF_ERROR(runtime_.ChargeBytes(text.size()));
    out_.push_back('"');
    for (size_t position = 0; position < text.size();) AppendCharacter(DecodeCodePoint(text, position));
    out_.push_back('"');
    return absl::OkStatus();
  }

  absl::Status NewLine(int level) {
    if (!style_.indent.has_value()) return absl::OkStatus();
    BATON_RETURN_IF_ERROR(runtime_.ChargeBytes(style_.indent->size() * static_cast<size_t>(level)));
    out_.push_back('\n');
    for (int i = 0; i < level; ++i) out_ += *style_.indent;
    return absl::OkStatus();
  }

  absl::Status WriteList(const std::vector<Value>& items, int level) {
    out_.push_back('[');
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_ += style_.item_separator;
      BATON_RETURN_IF_ERROR(NewLine(level + 1));
      BATON_RETURN_IF_ERROR(Write(items[i], level + 1));
    }
    if (!items.empty()) BATON_RETURN_IF_ERROR(NewLine(level));
    out_.push_back(']');
    return absl::OkStatus();
  }

  absl::Status SortByKey(std::vector<Dict::Entry>& entries) {
    std::vector<Value> keys;
    for (const auto& [key, value] : entries) keys.push_back(key);
    BATON_ASSIGN_OR_RETURN(const std::vector<size_t> order, SortedOrder(runtime_, keys, false));
    std::vector<Dict::Entry> sorted;
    for (const size_t place : order) sorted.push_back(entries[place]);
    entries = std::move(sorted);
    return absl::OkStatus();
  }

  absl::Status WriteDict(const Dict& dict, int level) {
    std::vector<Dict::Entry> entries = dict.entries();
    if (style_.sort_keys) BATON_RETURN_IF_ERROR(SortByKey(entries));
    out_.push_back('{');
    for (size_t i = 0; i < entries.size(); ++i) {
      const Value& key = entries[i].first;
      if (i > 0) out_ += style_.item_separator;
      BATON_RETURN_IF_ERROR(NewLine(level + 1));
      if (key.is(Kind::kTuple) || key.is_undefined()) {
        return InvalidArgument("a ", key.TypeName(), " can't be a key in JSON");
      }
      BATON_RETURN_IF_ERROR(WriteString(key.is_string() ? key.string() : Scalar(key)));
      out_ += style_.key_separator;
      BATON_RETURN_IF_ERROR(Write(entries[i].second, level + 1));
    }
    if (!entries.empty()) BATON_RETURN_IF_ERROR(NewLine(level));
    out_.push_back('}');
    return absl::OkStatus();
  }

  Runtime& runtime_;
  const JsonStyle& style_;
  std::string out_;
};

}  // namespace

absl::StatusOr<std::string> WriteJson(Runtime& runtime, const Value& value, const JsonStyle& style) {
  Writer writer(runtime, style);
  BATON_RETURN_IF_ERROR(writer.Write(value, 0));
  return writer.Take();
}

}  // namespace baton::jinja
