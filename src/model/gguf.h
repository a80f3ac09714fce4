// Reader of GGUF files (llama.cpp's format, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), versions 2 and
// 3, little-endian: typed metadata and tensors, as views into the bytes.
//
// Threading: immutable once parsed. Ownership: strings and tensors point into the bytes that were parsed.
// Errors: InvalidArgument with the place and what was expected; Unimplemented for types of tensors that are not known.
// Every length is checked against what is left of the file before it is used.
// Limits: kGgufMaxEntries metadata entries, as many tensors, arrays of arrays 4 deep, alignment up to 1 MiB.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <unordered_map>
#include <variant>
#include <vector>

#include "base/status.h"
#include "core/tensor.h"

namespace baton {

inline constexpr int64_t kGgufMaxEntries = 1 << 16;

enum class GgufType : uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64
};

struct GgufArray {
  GgufType element = GgufType::kUint8;
  int64_t count = 0;
  std::vector<std::string_view> strings;  // [count] when element is kString
  std::span<const uint8_t> numbers;       // encoded, when element is a number or a bool
  // Arrays of arrays are checked and skipped.
};

// Numbers of every width come as the widest of their kind.
using GgufValue = std::variant<uint64_t, int64_t, double, bool, std::string_view, GgufArray>;

struct GgufTensor {
  std::string_view name;
  TensorView view;
};

class GgufFile {
 public:
  // kHeaderOnly: tensors are described, their data pointers are null and the data need not be there.
  enum class Contents : uint8_t { kWhole, kHeaderOnly };
  static absl::StatusOr<GgufFile> Parse(std::span<const uint8_t> bytes, Contents contents = Contents::kWhole);

  const GgufValue* Find(std::string_view key) const;
  // The value of a key as what the caller needs; InvalidArgument names the key when it is missing or of another kind.
  absl::StatusOr<int64_t> Integer(std::string_view key) const;
  absl::StatusOr<double> Float(std::string_view key) const;
  absl::StatusOr<std::string_view> String(std::string_view key) const;
  absl::StatusOr<const GgufArray*> Strings(std::string_view key) const;
  absl::StatusOr<std::vector<int64_t>> Integers(std::string_view key) const;  // an array

  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  const std::unordered_map<std::string_view, GgufValue>& metadata() const { return metadata_; }

 private:
  std::unordered_map<std::string_view, GgufValue> metadata_;
  std::vector<GgufTensor> tensors_;
};

}  // namespace baton
