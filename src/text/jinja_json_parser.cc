// ParseJson: Boost.JSON's tokenizer fills values directly, numbers keep all their digits, and nesting needs no stack.
#include <boost/json/basic_parser_impl.hpp>
#include <charconv>
#include <vector>

#include "text/jinja_json.h"

namespace baton::jinja {

namespace {

constexpr size_t kMaxDepth = 100;

// What basic_parser calls. True: go on.
struct Handler {
  static constexpr std::size_t max_object_size = static_cast<std::size_t>(-1);
  static constexpr std::size_t max_array_size = static_cast<std::size_t>(-1);
  static constexpr std::size_t max_key_size = static_cast<std::size_t>(-1);
  static constexpr std::size_t max_string_size = static_cast<std::size_t>(-1);
  using error_code = boost::json::error_code;
  using string_view = boost::json::string_view;

  struct Level {
    bool is_object = false;
    Dict dict;
    std::vector<Value> items;
    std::string key;
  };
  std::vector<Level> levels;
  std::string text;
  Value result;

  bool Add(Value value) {
    if (levels.empty()) {
      result = std::move(value);
    } else if (levels.back().is_object) {
      levels.back().dict.Set(levels.back().key, std::move(value));
    } else {
      levels.back().items.push_back(std::move(value));
    }
    return true;
  }
  bool Append(string_view part) {
    text.append(part.data(), part.size());
    return true;
  }
  bool Open(bool is_object) {
    levels.emplace_back().is_object = is_object;
    return true;
  }

  bool on_document_begin(error_code&) { return true; }
  bool on_document_end(error_code&) { return true; }
  bool on_object_begin(error_code&) { return Open(true); }
  bool on_object_end(std::size_t, error_code&) {
    Value value = Value::FromDict(std::move(levels.back().dict));
    levels.pop_back();
    return Add(std::move(value));
  }
  bool on_array_begin(error_code&) { return Open(false); }
  bool on_array_end(std::size_t, error_code&) {
    Value value = Value::List(std::move(levels.back().items));
    levels.pop_back();
    return Add(std::move(value));
  }
  bool on_key_part(string_view part, std::size_t, error_code&) { return Append(part); }
  bool on_key(string_view part, std::size_t, error_code&) {
    Append(part);
    levels.back().key = std::exchange(text, {});
    return true;
  }
  bool on_string_part(string_view part, std::size_t, error_code&) { return Append(part); }
  bool on_string(string_view part, std::size_t, error_code&) {
    Append(part);
    return Add(Value::String(std::exchange(text, {})));
  }
  bool on_number_part(string_view part, error_code&) { return Append(part); }
  bool on_int64(std::int64_t value, string_view, error_code&) {
    text.clear();
    return Add(Value::Integer(value));
  }
  bool on_uint64(std::uint64_t value, string_view, error_code&) {
    text.clear();
    return Add(Value::Double(static_cast<double>(value)));
  }
  // The digits are read again: Boost's own conversion may be off in the last place.
  bool on_double(double value, string_view part, error_code&) {
    Append(part);
    std::from_chars(text.data(), text.data() + text.size(), value);
    text.clear();
    return Add(Value::Double(value));
  }
  bool on_bool(bool value, error_code&) { return Add(Value::Bool(value)); }
  bool on_null(error_code&) { return Add(Value::None()); }
  bool on_comment_part(string_view, error_code&) { return true; }
  bool on_comment(string_view, error_code&) { return true; }
};

}  // namespace

absl::StatusOr<Value> ParseJson(std::string_view text, std::string_view what) {
  boost::json::parse_options options;
  options.max_depth = kMaxDepth;
  boost::json::basic_parser<Handler> parser(options);
  boost::json::error_code error;
  const size_t used = parser.write_some(false, text.data(), text.size(), error);
  if (!error && used < text.size()) error = boost::json::error::extra_data;
  if (error) {
    return InvalidArgument("expected ", what, " as valid JSON (", kMaxDepth,
                           " levels at most), found an error near byte ", used, ": ", error.message());
  }
  return std::move(parser.handler().result);
}

}  // namespace baton::jinja
