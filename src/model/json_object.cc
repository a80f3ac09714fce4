#include "model/json_object.h"

#include <limits>

namespace baton {
namespace {

namespace json = boost::json;

std::string Shown(const json::value& value) {
  constexpr size_t kMost = 80;
  if (value.is_object()) return "an object";
  if (value.is_array()) return "a list";
  std::string text = json::serialize(value);
  if (text.size() > kMost) text = text.substr(0, kMost) + "…";
  return text;
}

std::optional<int64_t> AsInteger(const json::value& value) {
  if (const int64_t* number = value.if_int64()) return *number;
  if (const uint64_t* number = value.if_uint64();
      number != nullptr && *number <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return static_cast<int64_t>(*number);
  }
  return std::nullopt;
}

}  // namespace

absl::StatusOr<json::value> ParseJson(std::string_view text, std::string_view what) {
  json::parse_options options;
  options.max_depth = kMaxJsonDepth;
  json::error_code error;
  json::value value = json::parse({text.data(), text.size()}, error, {}, options);
  if (error) return InvalidArgument(what, ": not valid JSON: ", error.message());
  return value;
}

absl::StatusOr<JsonObject> JsonObject::From(const json::value& value, std::string_view what) {
  const json::object* object = value.if_object();
  if (object == nullptr) return InvalidArgument(what, ": expected an object, found ", Shown(value));
  return JsonObject(object, what);
}

const json::value* JsonObject::Find(std::string_view key) const {
  const json::value* value = object_->if_contains({key.data(), key.size()});
  return value == nullptr || value->is_null() ? nullptr : value;
}

absl::Status JsonObject::Wrong(std::string_view key, std::string_view expected) const {
  const json::value* value = Find(key);
  if (value == nullptr) return InvalidArgument(what_, ": '", key, "' is missing: expected ", expected);
  return InvalidArgument(what_, ": '", key, "': expected ", expected, ", found ", Shown(*value));
}

absl::StatusOr<int64_t> JsonObject::Integer(std::string_view key, int64_t least, int64_t most) const {
  if (const json::value* value = Find(key)) {
    const std::optional<int64_t> number = AsInteger(*value);
    if (number && *number >= least && *number <= most) return *number;
  }
  return Wrong(key, Cat("an integer from ", least, " to ", most));
}

absl::StatusOr<int32_t> JsonObject::Integer32(std::string_view key, int32_t least) const {
  BATON_ASSIGN_OR_RETURN(const int64_t number, Integer(key, least, std::numeric_limits<int32_t>::max()));
  return static_cast<int32_t>(number);
}

absl::StatusOr<int32_t> JsonObject::Integer32(std::string_view key, int32_t least, int32_t otherwise) const {
  return Has(key) ? Integer32(key, least) : otherwise;
}

absl::StatusOr<double> JsonObject::Float(std::string_view key) const {
  if (const json::value* value = Find(key)) {
    if (const double* number = value->if_double()) return *number;
    if (const std::optional<int64_t> number = AsInteger(*value)) return static_cast<double>(*number);
  }
  return Wrong(key, "a number");
}

absl::StatusOr<double> JsonObject::Float(std::string_view key, double otherwise) const {
  return Has(key) ? Float(key) : otherwise;
}

absl::StatusOr<bool> JsonObject::Bool(std::string_view key, bool otherwise) const {
  const json::value* value = Find(key);
  if (value == nullptr) return otherwise;
  if (const bool* flag = value->if_bool()) return *flag;
  return Wrong(key, "true or false");
}

absl::StatusOr<std::string> JsonObject::String(std::string_view key) const {
  if (const json::value* value = Find(key)) {
    if (const json::string* text = value->if_string()) return std::string(text->data(), text->size());
  }
  return Wrong(key, "a string");
}

absl::StatusOr<std::string> JsonObject::String(std::string_view key, std::string_view otherwise) const {
  if (!Has(key)) return std::string(otherwise);
  return String(key);
}

absl::StatusOr<std::vector<std::string>> JsonObject::Strings(std::string_view key) const {
  std::vector<std::string> out;
  const json::value* value = Find(key);
  if (value == nullptr) return out;
  if (!value->is_array()) return Wrong(key, "a list of strings");
  for (const json::value& element : value->get_array()) {
    if (!element.is_string()) return Wrong(key, "a list of strings");
    out.emplace_back(element.get_string().data(), element.get_string().size());
  }
  return out;
}

absl::StatusOr<JsonObject> JsonObject::Object(std::string_view key) const {
  const json::value* value = Find(key);
  if (value == nullptr) return Wrong(key, "an object");
  return From(*value, Cat(what_, ": '", key, "'"));
}

absl::StatusOr<std::vector<int32_t>> JsonObject::IntegerOrList(std::string_view key) const {
  std::vector<int32_t> out;
  const json::value* value = Find(key);
  if (value == nullptr) return out;
  const auto add = [&](const json::value& element) {
    const std::optional<int64_t> number = AsInteger(element);
    if (!number || *number < 0 || *number > std::numeric_limits<int32_t>::max()) return false;
    out.push_back(static_cast<int32_t>(*number));
    return true;
  };
  if (!value->is_array()) {
    if (!add(*value)) return Wrong(key, "an integer or a list of integers");
    return out;
  }
  for (const json::value& element : value->get_array()) {
    if (!add(element)) return Wrong(key, "a list of integers");
  }
  return out;
}

}  // namespace baton
