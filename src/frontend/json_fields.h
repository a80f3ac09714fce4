// Reads the fields of a JSON object that a stranger sent: every value is checked, the first error is kept.
//
//   JsonFields fields(object);
//   fields.Number("temperature", 0, 2, &temperature);
//   BATON_RETURN_IF_ERROR(fields.status());
//
// Internal to this folder: it drags Boost.JSON in.
// Threading: one thread. Ownership: looks into the object, which must outlive it.
// Errors: InvalidArgument that names the field, what was expected and what was found. Absent and null fields leave the
//   caller's value as it is.
#pragma once

#include <algorithm>
#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "core/ids.h"

namespace baton {

// The value as JSON, shortened, for messages.
std::string Excerpt(const boost::json::value& value);
// An integer, or a number with nothing behind the point.
bool ReadInteger(const boost::json::value& value, int64_t* out);

// Parses a whole document that must be an object.
absl::StatusOr<boost::json::value> ParseJsonObject(std::string_view text);

class JsonFields {
 public:
  explicit JsonFields(const boost::json::object& object, std::string prefix = "")
      : object_(object), prefix_(std::move(prefix)) {}

  // The value, unless it is absent or null.
  const boost::json::value* Find(std::string_view name) const;

  template <typename Float>
  void Number(std::string_view name, double min, double max, Float* out) {
    double number = 0;
    if (ReadNumber(name, min, max, false, &number)) *out = static_cast<Float>(number);
  }
  // min itself is not allowed. What a Float cannot tell from min becomes the next number that it can.
  template <typename Float>
  void NumberAbove(std::string_view name, double min, double max, Float* out) {
    double number = 0;
    if (!ReadNumber(name, min, max, true, &number)) return;
    const Float least = std::nextafter(static_cast<Float>(min), std::numeric_limits<Float>::max());
    *out = std::max(static_cast<Float>(number), least);
  }
  template <typename Int>
  void Integer(std::string_view name, int64_t min, int64_t max, Int* out) {
    int64_t number = 0;
    if (ReadWhole(name, min, max, &number)) *out = static_cast<Int>(number);
  }
  void Bool(std::string_view name, bool* out);
  void String(std::string_view name, size_t bytes_max, std::string* out);
  // Token ids inside the vocabulary.
  void Tokens(std::string_view name, size_t count_max, int32_t vocabulary, std::vector<TokenId>* out);

  // Keeps the first error only.
  void Fail(std::string_view name, std::string_view expected, const boost::json::value* found);
  void Fail(std::string_view name, absl::Status status);
  const absl::Status& status() const { return status_; }

 private:
  bool ReadNumber(std::string_view name, double min, double max, bool open, double* out);
  bool ReadWhole(std::string_view name, int64_t min, int64_t max, int64_t* out);

  const boost::json::object& object_;
  const std::string prefix_;  // of names in messages, for example "messages[2]."
  absl::Status status_;
};

}  // namespace baton
