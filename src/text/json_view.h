// A value within a JSON document together with its path, so that every complaint says where.
//
// Threading: const. Ownership: the document must outlive its views. Errors: "PATH: expected X, found Y".
#pragma once

#include <boost/json/value.hpp>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace baton {

inline constexpr size_t kMaxJsonDepth = 32;

// `name` stands first in messages: "tokenizer.json".
absl::StatusOr<boost::json::value> ParseJson(std::string_view text, std::string_view name,
                                             boost::json::storage_ptr storage);

class JsonView {
 public:
  // `value` may be null for something that is not there; it is treated like JSON's null.
  JsonView(const boost::json::value* value, std::string path) : value_(value), path_(std::move(path)) {}

  bool absent() const { return value_ == nullptr || value_->is_null(); }
  bool is_string() const { return value_ != nullptr && value_->is_string(); }
  bool is_array() const { return value_ != nullptr && value_->is_array(); }
  bool is_object() const { return value_ != nullptr && value_->is_object(); }
  const std::string& path() const { return path_; }

  JsonView operator[](std::string_view key) const;  // absent when this is no object
  absl::StatusOr<std::string_view> String() const;
  absl::StatusOr<int64_t> Integer() const;
  absl::StatusOr<bool> Bool(bool if_absent) const;
  absl::StatusOr<const boost::json::object*> Object() const;
  absl::StatusOr<const boost::json::array*> Array() const;
  absl::StatusOr<std::vector<JsonView>> Elements() const;

  // "PATH: expected EXPECTED, found FOUND".
  absl::Status Refuse(std::string_view expected) const;

 private:
  const boost::json::value* value_;
  std::string path_;
};

}  // namespace baton
