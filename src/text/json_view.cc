#include "text/json_view.h"

#include <boost/json.hpp>

namespace baton {
namespace {

constexpr size_t kMaxShown = 80;

std::string Describe(const boost::json::value* value) {
  if (value == nullptr) return "nothing";
  if (value->is_object()) {
    const boost::json::value* type = value->as_object().if_contains("type");
    if (type != nullptr && type->is_string()) return Cat("an object of type ", Describe(type));
    return "an object";
  }
  if (value->is_array()) return Cat("a list of ", value->as_array().size());
  std::string text = boost::json::serialize(*value);
  if (text.size() > kMaxShown) text = text.substr(0, kMaxShown) + "...";
  return text;
}

}  // namespace

absl::StatusOr<boost::json::value> ParseJson(std::string_view text, std::string_view name,
                                             boost::json::storage_ptr storage) {
  boost::json::parse_options options;
  options.max_depth = kMaxJsonDepth;
  boost::json::error_code error;
  boost::json::value value =
      boost::json::parse(boost::json::string_view(text.data(), text.size()), error, std::move(storage), options);
  if (error) {
    return InvalidArgument(name, ": expected JSON (UTF-8, at most ", kMaxJsonDepth,
                           " levels deep), found: ", error.message());
  }
  return value;
}

JsonView JsonView::operator[](std::string_view key) const {
  std::string path = Cat(path_, ".", key);
  if (!is_object()) return JsonView(nullptr, std::move(path));
  return JsonView(value_->as_object().if_contains(boost::json::string_view(key.data(), key.size())), std::move(path));
}

absl::StatusOr<std::string_view> JsonView::String() const {
  if (!is_string()) return Refuse("a string");
  const boost::json::string& text = value_->as_string();
  return std::string_view(text.data(), text.size());
}

absl::StatusOr<int64_t> JsonView::Integer() const {
  if (value_ == nullptr || !value_->is_int64()) return Refuse("an integer");
  return value_->as_int64();
}

absl::StatusOr<bool> JsonView::Bool(bool if_absent) const {
  if (absent()) return if_absent;
  if (!value_->is_bool()) return Refuse("true or false");
  return value_->as_bool();
}

absl::StatusOr<const boost::json::object*> JsonView::Object() const {
  if (!is_object()) return Refuse("an object");
  return &value_->as_object();
}

absl::StatusOr<const boost::json::array*> JsonView::Array() const {
  if (!is_array()) return Refuse("a list");
  return &value_->as_array();
}

absl::StatusOr<std::vector<JsonView>> JsonView::Elements() const {
  BATON_ASSIGN_OR_RETURN(const boost::json::array* array, Array());
  std::vector<JsonView> out;
  out.reserve(array->size());
  for (size_t i = 0; i < array->size(); ++i) out.emplace_back(&(*array)[i], Cat(path_, "[", i, "]"));
  return out;
}

absl::Status JsonView::Refuse(std::string_view expected) const {
  return InvalidArgument(path_, ": expected ", expected, ", found ", Describe(value_));
}

}  // namespace baton
