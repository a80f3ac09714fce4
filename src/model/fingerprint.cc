#include "model/fingerprint.h"

#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

#include "core/tensor_recipe.h"

namespace baton {
namespace {

constexpr int64_t kSampleBytes = 64;
constexpr int64_t kSamples = 16;  // of one tensor

class Hasher {
 public:
  Hasher() : state_(XXH3_createState(), XXH3_freeState) { XXH3_128bits_reset(state_.get()); }

  void AddBytes(const void* data, size_t bytes) { XXH3_128bits_update(state_.get(), data, bytes); }
  template <typename Number>
  void Add(Number number) requires std::is_arithmetic_v<Number> {
    AddBytes(&number, sizeof(number));
  }
  void Add(std::string_view text) {
    Add(static_cast<uint64_t>(text.size()));
    AddBytes(text.data(), text.size());
  }
  std::string Hex() const {
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state_.get()));
    std::string out;
    for (const unsigned char byte : canonical.digest) {
      out.push_back("0123456789abcdef"[byte >> 4]);
      out.push_back("0123456789abcdef"[byte & 15]);
    }
    return out;
  }

 private:
  std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> state_;
};

void AddConfig(const ModelConfig& config, Hasher& hasher) {
  hasher.Add(config.architecture);
  for (const int32_t number : {config.num_layers, config.hidden_size, config.intermediate_size, config.num_heads,
                               config.num_kv_heads, config.head_dim, config.vocabulary}) {
    hasher.Add(number);
  }
  hasher.Add(config.rms_norm_epsilon);
  hasher.Add(config.rope_interleaved);
  for (const float frequency : config.rope_inverse_frequencies) hasher.Add(frequency);
  hasher.Add(static_cast<uint8_t>(config.quantization.scheme));
}

void AddSample(const TensorView& tensor, int64_t at, int64_t bytes, Hasher& hasher) {
  if (tensor.recipe == nullptr) return hasher.AddBytes(tensor.data + at, bytes);
  std::array<uint8_t, kSamples * kSampleBytes> made;
  const int64_t begin = at / tensor.recipe->element_bytes * tensor.recipe->element_bytes;  // of a whole element
  const int64_t size = (at - begin + bytes + 3) / 4 * 4;
  MakeElements(*tensor.recipe, begin, std::span(made).first(size));
  hasher.AddBytes(made.data() + (at - begin), bytes);
}

void AddTensor(std::string_view name, const TensorView& tensor, Hasher& hasher) {
  hasher.Add(name);
  hasher.Add(TraitsOf(tensor.dtype).name);
  hasher.Add(static_cast<uint64_t>(tensor.shape.size()));
  for (const int64_t extent : tensor.shape) hasher.Add(extent);
  hasher.Add(tensor.bytes);
  if (tensor.bytes <= kSamples * kSampleBytes) return AddSample(tensor, 0, tensor.bytes, hasher);
  const int64_t last = tensor.bytes - kSampleBytes;
  for (int64_t i = 0; i < kSamples; ++i) {
    AddSample(tensor, last / (kSamples - 1) * i, kSampleBytes, hasher);
  }
  AddSample(tensor, last, kSampleBytes, hasher);
}

}  // namespace

std::string FingerprintModel(const ModelConfig& config, const TensorMap& tensors) {
  std::vector<const TensorMap::value_type*> ordered;
  for (const auto& entry : tensors) ordered.push_back(&entry);
  std::sort(ordered.begin(), ordered.end(), [](const auto* a, const auto* b) { return a->first < b->first; });
  Hasher hasher;
  AddConfig(config, hasher);
  for (const auto* entry : ordered) AddTensor(entry->first, entry->second, hasher);
  return hasher.Hex();
}

}  // namespace baton
