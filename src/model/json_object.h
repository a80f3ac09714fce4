// Reads JSON that comes from model files: every access says what key it wants and of what kind, and gets a value or an
// error that names both. Boost.JSON stays behind the few files that include this.
//
// Threading: none of its own. Ownership: a JsonObject points into the value that ParseJson returned.
// Errors: InvalidArgument with file or object, key, what was expected and what was found. Limits: kMaxJsonDepth.
#pragma once

#include <boost/json.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace baton {

inline constexpr int kMaxJsonDepth = 16;

// `what` names the text in errors: "config.json".
absl::StatusOr<boost::json::value> ParseJson(std::string_view text, std::string_view what);

class JsonObject {
 public:
  static absl::StatusOr<JsonObject> From(const boost::json::value& value, std::string_view what);

  // Null when the key is missing or its value is null: configurations use both for "the default".
  const boost::json::value* Find(std::string_view key) const;
  bool Has(std::string_view key) const { return Find(key) != nullptr; }

  absl::StatusOr<int64_t> Integer(std::string_view key, int64_t least, int64_t most) const;
  absl::StatusOr<int32_t> Integer32(std::string_view key, int32_t least) const;
  absl::StatusOr<int32_t> Integer32(std::string_view key, int32_t least, int32_t otherwise) const;
  absl::StatusOr<double> Float(std::string_view key) const;  // integers too
  absl::StatusOr<double> Float(std::string_view key, double otherwise) const;
  absl::StatusOr<bool> Bool(std::string_view key, bool otherwise) const;
  absl::StatusOr<std::string> String(std::string_view key) const;
  absl::StatusOr<std::string> String(std::string_view key, std::string_view otherwise) const;
  absl::StatusOr<std::vector<std::string>> Strings(std::string_view key) const;  // empty when missing
  absl::StatusOr<JsonObject> Object(std::string_view key) const;
  // A list of integers of at least 0, or one alone; empty when missing.
  absl::StatusOr<std::vector<int32_t>> IntegerOrList(std::string_view key) const;

  const boost::json::object& object() const { return *object_; }
  const std::string& what() const { return what_; }
  absl::Status Wrong(std::string_view key, std::string_view expected) const;

 private:
  JsonObject(const boost::json::object* object, std::string_view what) : object_(object), what_(what) {}

  const boost::json::object* object_;
  std::string what_;
};

}  // namespace baton
