#include "frontend/json_fields.h"

#include <boost/json/monotonic_resource.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serializer.hpp>

#include "frontend/api_error.h"

namespace baton {
namespace {

constexpr size_t kDepthMax = 64;
constexpr size_t kExcerptBytes = 60;

boost::json::string_view ToView(std::string_view text) { return {text.data(), text.size()}; }

}  // namespace

std::string Excerpt(const boost::json::value& value) {
  if (value.is_double()) return Cat(value.get_double());
  char buffer[kExcerptBytes];
  boost::json::serializer serializer;
  serializer.reset(&value);
  const auto part = serializer.read(buffer, sizeof(buffer));
  std::string out(part.data(), part.size());
  if (!serializer.done()) out += "…";
  return out;
}

bool ReadInteger(const boost::json::value& value, int64_t* out) {
  if (const auto* number = value.if_int64()) {
    *out = *number;
    return true;
  }
  const auto* number = value.if_double();
  if (!number || std::trunc(*number) != *number || std::abs(*number) > 9e15) return false;
  *out = static_cast<int64_t>(*number);
  return true;
}

absl::StatusOr<boost::json::value> ParseJsonObject(std::string_view text) {
  boost::json::parse_options options;
  options.max_depth = kDepthMax;
  boost::json::error_code error;
  boost::json::value value = boost::json::parse(
      ToView(text), error, boost::json::make_shared_resource<boost::json::monotonic_resource>(), options);
  if (error == boost::json::error::too_deep) {
    return InvalidArgument("the body's JSON is nested deeper than the limit of ", kDepthMax);
  }
  if (error) return InvalidArgument("the body is not valid JSON: ", error.message());
  if (!value.is_object()) return InvalidArgument("expected a JSON object as body, found ", Excerpt(value));
  return value;
}

const boost::json::value* JsonFields::Find(std::string_view name) const {
  const boost::json::value* value = object_.if_contains(ToView(name));
  return value && !value->is_null() ? value : nullptr;
}

void JsonFields::Fail(std::string_view name, std::string_view expected, const boost::json::value* found) {
  Fail(name, InvalidArgument(prefix_, name, ": expected ", expected, ", found ", found ? Excerpt(*found) : "nothing"));
}

void JsonFields::Fail(std::string_view name, absl::Status status) {
  if (status_.ok()) status_ = WithParam(std::move(status), prefix_ + std::string(name));
}

bool JsonFields::ReadNumber(std::string_view name, double min, double max, bool open, double* out) {
  const boost::json::value* value = Find(name);
  if (!value) return false;
  double number = std::numeric_limits<double>::quiet_NaN();
  if (value->is_number()) number = value->to_number<double>();
  if (number <= max && (open ? number > min : number >= min)) {
    *out = number;
    return true;
  }
  Fail(name, Cat("a number ", open ? "above " : "from ", min, " to ", max), value);
  return false;
}

bool JsonFields::ReadWhole(std::string_view name, int64_t min, int64_t max, int64_t* out) {
  const boost::json::value* value = Find(name);
  if (!value) return false;
  if (ReadInteger(*value, out) && *out >= min && *out <= max) return true;
  const bool open_ended = max >= std::numeric_limits<int32_t>::max();
  Fail(name, open_ended ? Cat("an integer of at least ", min) : Cat("an integer from ", min, " to ", max), value);
  return false;
}

void JsonFields::Bool(std::string_view name, bool* out) {
  const boost::json::value* value = Find(name);
  if (!value) return;
  if (!value->is_bool()) return Fail(name, "true or false", value);
  *out = value->get_bool();
}

void JsonFields::String(std::string_view name, size_t bytes_max, std::string* out) {
  const boost::json::value* value = Find(name);
  if (!value) return;
  const auto* text = value->if_string();
  if (!text || text->size() > bytes_max) return Fail(name, Cat("a string of at most ", bytes_max, " bytes"), value);
  out->assign(text->data(), text->size());
}

void JsonFields::Tokens(std::string_view name, size_t count_max, int32_t vocabulary, std::vector<TokenId>* out) {
  const boost::json::value* value = Find(name);
  if (!value) return;
  const auto* list = value->if_array();
  if (!list || list->size() > count_max) {
    return Fail(name, Cat("a list of at most ", count_max, " token ids"), value);
  }
  out->clear();
  out->reserve(list->size());
  for (const auto& item : *list) {
    int64_t token = -1;
    if (!ReadInteger(item, &token) || token < 0 || token >= vocabulary) {
      return Fail(name, Cat("token ids from 0 to ", vocabulary - 1), &item);
    }
    out->push_back(static_cast<TokenId>(token));
  }
}

}  // namespace baton
