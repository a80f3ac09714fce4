#include "model/safetensors.h"

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model/byte_reader.h"
#include "model/json_object.h"

namespace baton {
namespace {

namespace json = boost::json;

constexpr size_t kMaxDimensions = 8;

absl::StatusOr<DType> TypeNamed(std::string_view name, std::string_view tensor) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kF8E4M3}) {
    if (TraitsOf(dtype).name == name) return dtype;
  }
  return Unimplemented("safetensors tensor '", tensor, "' has type '", name,
                       "'; supported are F32, F16, BF16 and F8_E4M3");
}

// Fills in shape and size.
absl::Status ReadShape(const JsonObject& entry, std::string_view tensor, TensorView& view) {
  const json::value* shape = entry.Find("shape");
  if (shape == nullptr || !shape->is_array() || shape->get_array().size() > kMaxDimensions) {
    return entry.Wrong("shape", Cat("a list of at most ", kMaxDimensions, " integers"));
  }
  uint64_t elements = 1;
  for (const json::value& value : shape->get_array()) {
    const int64_t* extent = value.if_int64();
    // 2^52 elements are more than any file holds, and their bytes still no overflow.
    if (extent == nullptr || *extent <= 0 || static_cast<uint64_t>(*extent) > (uint64_t{1} << 52) / elements) {
      return InvalidArgument("safetensors tensor '", tensor, "': expected extents of at least 1 that fit a file");
    }
    elements *= static_cast<uint64_t>(*extent);
    view.shape.push_back(*extent);
  }
  view.bytes = DTypeRowBytes(view.dtype, static_cast<int64_t>(elements));
  return absl::OkStatus();
}

absl::Status ReadOffsets(const JsonObject& entry, std::string_view tensor, std::span<const uint8_t> data,
                         TensorView& view) {
  const json::value* offsets = entry.Find("data_offsets");
  const json::array* pair = offsets == nullptr ? nullptr : offsets->if_array();
  if (pair == nullptr || pair->size() != 2 || !(*pair)[0].is_int64() || !(*pair)[1].is_int64()) {
    return entry.Wrong("data_offsets", "two integers");
  }
  const int64_t begin = (*pair)[0].get_int64(), end = (*pair)[1].get_int64();
  if (begin < 0 || end < begin || static_cast<uint64_t>(end) > data.size()) {
    return InvalidArgument("safetensors tensor '", tensor, "': bytes ", begin, " to ", end,
                           " are not within the file's ", data.size(), " bytes of data: is the download complete?");
  }
  if (end - begin != view.bytes) {
    return InvalidArgument("safetensors tensor '", tensor, "': expected ", view.bytes, " bytes for ",
                           DescribeTensor(view), ", found ", end - begin);
  }
  view.data = data.data() + begin;
  return absl::OkStatus();
}

absl::StatusOr<TensorView> ReadTensor(std::string_view name, const json::value& value, std::span<const uint8_t> data) {
  BATON_ASSIGN_OR_RETURN(const JsonObject entry, JsonObject::From(value, Cat("safetensors tensor '", name, "'")));
  TensorView view;
  BATON_ASSIGN_OR_RETURN(const std::string type, entry.String("dtype"));
  BATON_ASSIGN_OR_RETURN(view.dtype, TypeNamed(type, name));
  BATON_RETURN_IF_ERROR(ReadShape(entry, name, view));
  BATON_RETURN_IF_ERROR(ReadOffsets(entry, name, data, view));
  return view;
}

absl::Status CheckOverlap(const TensorMap& tensors) {
  std::vector<const TensorMap::value_type*> ordered;
  for (const auto& entry : tensors) ordered.push_back(&entry);
  std::sort(ordered.begin(), ordered.end(),
            [](const auto* a, const auto* b) { return a->second.data < b->second.data; });
  for (size_t i = 1; i < ordered.size(); ++i) {
    if (ordered[i]->second.data - ordered[i - 1]->second.data < ordered[i - 1]->second.bytes) {
      return InvalidArgument("safetensors tensors '", ordered[i - 1]->first, "' and '", ordered[i]->first, "' overlap");
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TensorMap> ParseSafetensors(std::span<const uint8_t> bytes) {
  ByteReader reader(bytes);
  const uint64_t length = reader.Read<uint64_t>();
  if (!reader.ok())
    return InvalidArgument("not a safetensors file: it has ", bytes.size(), " bytes, expected 8 or more");
  if (length > kMaxSafetensorsHeader) {
    return InvalidArgument("not a safetensors file: its header would have ", length, " bytes, at most ",
                           kMaxSafetensorsHeader, " are accepted");
  }
  const std::string_view header = reader.ReadString(length);
  if (!reader.ok()) {
    return InvalidArgument("safetensors header of ", length, " bytes in a file of ", bytes.size(),
                           ": is the download complete?");
  }
  BATON_ASSIGN_OR_RETURN(const json::value parsed, ParseJson(header, "safetensors header"));
  BATON_ASSIGN_OR_RETURN(const JsonObject entries, JsonObject::From(parsed, "safetensors header"));
  TensorMap tensors;
  for (const auto& [key, value] : entries.object()) {
    const std::string name(key.data(), key.size());
    if (name == "__metadata__") continue;
    BATON_ASSIGN_OR_RETURN(TensorView view, ReadTensor(name, value, bytes.subspan(reader.position())));
    tensors.emplace(name, std::move(view));
  }
  BATON_RETURN_IF_ERROR(CheckOverlap(tensors));
  return tensors;
}

}  // namespace baton
