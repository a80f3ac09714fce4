#include "model/gguf.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "model/byte_reader.h"
#include "model/gguf_number.h"

namespace baton {
namespace {

constexpr int kMaxArrayDepth = 4;
constexpr uint64_t kMaxAlignment = 1 << 20;
constexpr uint32_t kMaxDimensions = 4;

absl::Status Truncated(const ByteReader& reader, std::string_view what) {
  return InvalidArgument("GGUF file ends inside ", what, " at byte ", reader.position(), ": is the download complete?");
}

absl::StatusOr<std::string_view> ReadString(ByteReader& reader, std::string_view what) {
  const uint64_t length = reader.Read<uint64_t>();
  const std::string_view text = reader.ReadString(length);
  if (!reader.ok()) return Truncated(reader, what);
  return text;
}

absl::StatusOr<GgufType> ReadType(ByteReader& reader, std::string_view key) {
  const uint32_t type = reader.Read<uint32_t>();
  if (!reader.ok()) return Truncated(reader, key);
  if (type > static_cast<uint32_t>(GgufType::kFloat64)) {
    return InvalidArgument("GGUF key '", key, "': expected a value type from 0 to 12, found ", type);
  }
  return static_cast<GgufType>(type);
}

absl::StatusOr<GgufArray> ReadArray(ByteReader& reader, std::string_view key, int depth) {
  if (depth > kMaxArrayDepth) {
    return InvalidArgument("GGUF key '", key, "': arrays are nested more than ", kMaxArrayDepth, " deep");
  }
  GgufArray array;
  BATON_ASSIGN_OR_RETURN(array.element, ReadType(reader, key));
  const uint64_t count = reader.Read<uint64_t>();
  // The least that an element can take: a string its length, an array its type and length.
  const int64_t width = array.element == GgufType::kString  ? 8
                        : array.element == GgufType::kArray ? 12
                                                            : GgufWidth(array.element);
  if (!reader.ok() || count > reader.remaining() / static_cast<uint64_t>(width)) return Truncated(reader, key);
  array.count = static_cast<int64_t>(count);
  if (array.element == GgufType::kString) {
    array.strings.reserve(count);
    for (uint64_t i = 0; i < count; ++i) {
      BATON_ASSIGN_OR_RETURN(const std::string_view text, ReadString(reader, key));
      array.strings.push_back(text);
    }
  } else if (array.element == GgufType::kArray) {
    for (uint64_t i = 0; i < count; ++i) BATON_RETURN_IF_ERROR(ReadArray(reader, key, depth + 1).status());
  } else {
    array.numbers = reader.ReadBytes(count * static_cast<uint64_t>(width));
  }
  return array;
}

absl::StatusOr<GgufValue> ReadValue(ByteReader& reader, std::string_view key) {
  BATON_ASSIGN_OR_RETURN(const GgufType type, ReadType(reader, key));
  if (type == GgufType::kString) {
    BATON_ASSIGN_OR_RETURN(const std::string_view text, ReadString(reader, key));
    return GgufValue(text);
  }
  if (type == GgufType::kArray) {
    BATON_ASSIGN_OR_RETURN(GgufArray array, ReadArray(reader, key, 1));
    return GgufValue(std::move(array));
  }
  GgufValue value = ReadGgufNumber(reader, type);
  if (!reader.ok()) return Truncated(reader, key);
  return value;
}

absl::StatusOr<DType> TensorType(uint32_t type, std::string_view tensor) {
  switch (type) {
    case 0:
      return DType::kF32;
    case 1:
      return DType::kF16;
    case 2:
      return DType::kQ4_0;
    case 3:
      return DType::kQ4_1;
    case 6:
      return DType::kQ5_0;
    case 7:
      return DType::kQ5_1;
    case 8:
      return DType::kQ8_0;
    case 12:
      return DType::kQ4_K;
    case 13:
      return DType::kQ5_K;
    case 14:
      return DType::kQ6_K;
    case 30:
      return DType::kBF16;
    default:
      break;
  }
  constexpr std::string_view kOthers[] = {"",
                                          "",
                                          "",
                                          "",
                                          "Q4_2 (removed)",
                                          "Q4_3 (removed)",
                                          "",
                                          "",
                                          "",
                                          "Q8_1",
                                          "Q2_K",
                                          "Q3_K",
                                          "",
                                          "",
                                          "",
                                          "Q8_K",
                                          "IQ2_XXS",
                                          "IQ2_XS",
                                          "IQ3_XXS",
                                          "IQ1_S",
                                          "IQ4_NL",
                                          "IQ3_S",
                                          "IQ2_S",
                                          "IQ4_XS",
                                          "I8",
                                          "I16",
                                          "I32",
                                          "I64",
                                          "F64",
                                          "IQ1_M"};
  const std::string_view name = type < std::size(kOthers) && !kOthers[type].empty() ? kOthers[type] : "unknown";
  return Unimplemented("GGUF tensor '", tensor, "' has type ", type, " (", name,
                       "); supported are F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K and Q6_K");
}

// A tensor as the header describes it; its data is found once all of them are known.
struct TensorInfo {
  GgufTensor tensor;
  uint64_t offset = 0;  // from the start of the data
};

absl::Status ReadShape(ByteReader& reader, GgufTensor& tensor) {
  const uint32_t dimensions = reader.Read<uint32_t>();
  if (!reader.ok()) return Truncated(reader, tensor.name);
  if (dimensions == 0 || dimensions > kMaxDimensions) {
    return InvalidArgument("GGUF tensor '", tensor.name, "': expected 1 to ", kMaxDimensions, " dimensions, found ",
                           dimensions);
  }
  uint64_t elements = 1;
  for (uint32_t i = 0; i < dimensions; ++i) {
    const uint64_t extent = reader.Read<uint64_t>();
    if (!reader.ok()) return Truncated(reader, tensor.name);
    // 2^52 elements are more than any file holds, and times the widest block's bytes still no overflow.
    if (extent == 0 || extent > (uint64_t{1} << 52) / elements) {
      return InvalidArgument("GGUF tensor '", tensor.name, "': impossible extent ", extent, " of dimension ", i);
    }
    elements *= extent;
    tensor.view.shape.push_back(static_cast<int64_t>(extent));
  }
  std::reverse(tensor.view.shape.begin(), tensor.view.shape.end());  // GGUF has the innermost first
  return absl::OkStatus();
}

absl::StatusOr<TensorInfo> ReadTensorInfo(ByteReader& reader) {
  TensorInfo info;
  BATON_ASSIGN_OR_RETURN(info.tensor.name, ReadString(reader, "a tensor's name"));
  BATON_RETURN_IF_ERROR(ReadShape(reader, info.tensor));
  const uint32_t type = reader.Read<uint32_t>();
  info.offset = reader.Read<uint64_t>();
  if (!reader.ok()) return Truncated(reader, info.tensor.name);
  TensorView& view = info.tensor.view;
  BATON_ASSIGN_OR_RETURN(view.dtype, TensorType(type, info.tensor.name));
  const DTypeTraits traits = TraitsOf(view.dtype);
  if (view.columns() % traits.block_elements != 0) {
    return InvalidArgument("GGUF tensor '", info.tensor.name, "': rows of ", view.columns(),
                           " elements do not divide into ", traits.name, " blocks of ", traits.block_elements);
  }
  int64_t elements = 1;
  for (const int64_t extent : view.shape) elements *= extent;
  view.bytes = DTypeRowBytes(view.dtype, elements);
  return info;
}

// Points tensors at their data, and refuses what leaves the file or overlaps.
absl::Status PlaceTensors(std::span<const uint8_t> data, uint64_t alignment, std::vector<TensorInfo>& infos) {
  for (TensorInfo& info : infos) {
    TensorView& view = info.tensor.view;
    if (info.offset % alignment != 0) {
      return InvalidArgument("GGUF tensor '", info.tensor.name, "': offset ", info.offset,
                             " is not a multiple of the alignment ", alignment);
    }
    if (info.offset > data.size() || static_cast<uint64_t>(view.bytes) > data.size() - info.offset) {
      return InvalidArgument("GGUF tensor '", info.tensor.name, "': ", view.bytes, " bytes at offset ", info.offset,
                             " leave the file, which has ", data.size(), " bytes of data: is the download complete?");
    }
    view.data = data.data() + info.offset;
  }
  std::vector<const TensorInfo*> ordered;
  for (const TensorInfo& info : infos) ordered.push_back(&info);
  std::sort(ordered.begin(), ordered.end(),
            [](const TensorInfo* a, const TensorInfo* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < ordered.size(); ++i) {
    if (ordered[i]->offset - ordered[i - 1]->offset < static_cast<uint64_t>(ordered[i - 1]->tensor.view.bytes)) {
      return InvalidArgument("GGUF tensors '", ordered[i - 1]->tensor.name, "' and '", ordered[i]->tensor.name,
                             "' overlap");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> ReadAlignment(const GgufFile& file) {
  if (file.Find("general.alignment") == nullptr) return 32;
  BATON_ASSIGN_OR_RETURN(const int64_t alignment, file.Integer("general.alignment"));
  const uint64_t value = static_cast<uint64_t>(alignment);
  if (alignment < 8 || value > kMaxAlignment || !std::has_single_bit(value)) {
    return InvalidArgument("GGUF key 'general.alignment': expected a power of two from 8 to ", kMaxAlignment,
                           ", found ", alignment);
  }
  return value;
}

struct Header {
  uint64_t tensors = 0;
  uint64_t entries = 0;
};

absl::StatusOr<Header> ReadHeader(ByteReader& reader) {
  const std::string_view magic = reader.ReadString(4);
  if (magic != "GGUF") return InvalidArgument("not a GGUF file: expected it to begin with 'GGUF'");
  const uint32_t version = reader.Read<uint32_t>();
  if (!reader.ok()) return Truncated(reader, "the header");
  if (version == 0x02000000 || version == 0x03000000) {
    return Unimplemented("GGUF file is big-endian: convert it for little-endian machines");
  }
  if (version != 2 && version != 3) {
    return Unimplemented("GGUF version ", version, ": supported are 2 and 3; convert the model again");
  }
  Header header{.tensors = reader.Read<uint64_t>(), .entries = reader.Read<uint64_t>()};
  if (!reader.ok()) return Truncated(reader, "the header");
  if (header.tensors > kGgufMaxEntries || header.entries > kGgufMaxEntries) {
    return InvalidArgument("GGUF header: ", header.tensors, " tensors and ", header.entries,
                           " metadata entries; at most ", kGgufMaxEntries, " of each are accepted");
  }
  return header;
}

}  // namespace

absl::StatusOr<GgufFile> GgufFile::Parse(std::span<const uint8_t> bytes, Contents contents) {
  ByteReader reader(bytes);
  BATON_ASSIGN_OR_RETURN(const Header header, ReadHeader(reader));
  GgufFile file;
  for (uint64_t i = 0; i < header.entries; ++i) {
    BATON_ASSIGN_OR_RETURN(const std::string_view key, ReadString(reader, "a metadata key"));
    BATON_ASSIGN_OR_RETURN(GgufValue value, ReadValue(reader, key));
    if (!file.metadata_.emplace(key, std::move(value)).second) {
      return InvalidArgument("GGUF key '", key, "' is there twice");
    }
  }
  std::vector<TensorInfo> infos;
  for (uint64_t i = 0; i < header.tensors; ++i) {
    BATON_ASSIGN_OR_RETURN(TensorInfo info, ReadTensorInfo(reader));
    infos.push_back(std::move(info));
  }
  BATON_ASSIGN_OR_RETURN(const uint64_t alignment, ReadAlignment(file));
  if (contents == Contents::kWhole && !infos.empty()) {
    const uint64_t start = (reader.position() + alignment - 1) / alignment * alignment;
    if (start > bytes.size()) return Truncated(reader, "the padding before the data");
    BATON_RETURN_IF_ERROR(PlaceTensors(bytes.subspan(start), alignment, infos));
  }
  for (TensorInfo& info : infos) file.tensors_.push_back(std::move(info.tensor));
  return file;
}

}  // namespace baton
