// The typed look-ups of GgufFile.
#include <limits>
#include <optional>

#include "model/gguf.h"
#include "model/gguf_number.h"

namespace baton {

int64_t GgufWidth(GgufType type) {
  switch (type) {
    case GgufType::kUint8:
    case GgufType::kInt8:
    case GgufType::kBool:
      return 1;
    case GgufType::kUint16:
    case GgufType::kInt16:
      return 2;
    case GgufType::kUint32:
    case GgufType::kInt32:
    case GgufType::kFloat32:
      return 4;
    case GgufType::kUint64:
    case GgufType::kInt64:
    case GgufType::kFloat64:
      return 8;
    case GgufType::kString:
    case GgufType::kArray:
      return 0;
  }
  return 0;
}

GgufValue ReadGgufNumber(ByteReader& reader, GgufType type) {
  switch (type) {
    case GgufType::kUint8:
      return uint64_t{reader.Read<uint8_t>()};
    case GgufType::kInt8:
      return int64_t{reader.Read<int8_t>()};
    case GgufType::kUint16:
      return uint64_t{reader.Read<uint16_t>()};
    case GgufType::kInt16:
      return int64_t{reader.Read<int16_t>()};
    case GgufType::kUint32:
      return uint64_t{reader.Read<uint32_t>()};
    case GgufType::kInt32:
      return int64_t{reader.Read<int32_t>()};
    case GgufType::kFloat32:
      return double{reader.Read<float>()};
    case GgufType::kBool:
      return reader.Read<uint8_t>() != 0;
    case GgufType::kUint64:
      return reader.Read<uint64_t>();
    case GgufType::kInt64:
      return reader.Read<int64_t>();
    case GgufType::kFloat64:
      return reader.Read<double>();
    case GgufType::kString:
    case GgufType::kArray:
      break;
  }
  return uint64_t{0};
}

const GgufValue* GgufFile::Find(std::string_view key) const {
  const auto it = metadata_.find(key);
  return it == metadata_.end() ? nullptr : &it->second;
}

namespace {

absl::Status Missing(std::string_view key, std::string_view kind, bool present) {
  if (present) return InvalidArgument("GGUF key '", key, "': expected ", kind, ", found another type");
  return InvalidArgument("GGUF key '", key, "' is missing: expected ", kind);
}

std::optional<int64_t> AsInteger(const GgufValue& value) {
  if (const auto* number = std::get_if<uint64_t>(&value)) {
    if (*number <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return static_cast<int64_t>(*number);
  } else if (const auto* number = std::get_if<int64_t>(&value)) {
    return *number;
  }
  return std::nullopt;
}

}  // namespace

absl::StatusOr<int64_t> GgufFile::Integer(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value != nullptr) {
    if (const std::optional<int64_t> number = AsInteger(*value)) return *number;
  }
  return Missing(key, "an integer", value != nullptr);
}

absl::StatusOr<double> GgufFile::Float(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value != nullptr) {
    if (const auto* number = std::get_if<double>(value)) return *number;
    if (const std::optional<int64_t> number = AsInteger(*value)) return static_cast<double>(*number);
  }
  return Missing(key, "a number", value != nullptr);
}

absl::StatusOr<std::string_view> GgufFile::String(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value != nullptr) {
    if (const auto* text = std::get_if<std::string_view>(value)) return *text;
  }
  return Missing(key, "a string", value != nullptr);
}

absl::StatusOr<const GgufArray*> GgufFile::Strings(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value != nullptr) {
    if (const auto* array = std::get_if<GgufArray>(value); array != nullptr && array->element == GgufType::kString) {
      return array;
    }
  }
  return Missing(key, "an array of strings", value != nullptr);
}

absl::StatusOr<std::vector<int64_t>> GgufFile::Integers(std::string_view key) const {
  const GgufValue* value = Find(key);
  const auto* array = value == nullptr ? nullptr : std::get_if<GgufArray>(value);
  if (array == nullptr || GgufWidth(array->element) == 0) return Missing(key, "an array of integers", value != nullptr);
  ByteReader reader(array->numbers);
  std::vector<int64_t> out;
  out.reserve(array->count);
  for (int64_t i = 0; i < array->count; ++i) {
    const std::optional<int64_t> number = AsInteger(ReadGgufNumber(reader, array->element));
    if (!number) return Missing(key, "an array of integers", true);
    out.push_back(*number);
  }
  return out;
}

}  // namespace baton
