// What tests of attention share: a KV cache with random contents that the host can read, queries, and exact attention.
#pragma once

#include <algorithm>
#include <numeric>
#include <vector>

#include "backend/cuda/gpu_test_support.h"
#include "backend/cuda/kernels.h"

namespace baton::cuda {

inline constexpr int kLayers = 3;
inline constexpr int kLayer = 1;

// A KV cache with random (never poisoned) contents, read back through the layout's definition.
class Cache {
 public:
  Cache(int kv_heads, int head_dim, bool fp8, int blocks, Random& random)
      : view_{nullptr, kv_heads, kLayers, head_dim, fp8},
        row_bytes_(fp8 ? head_dim : 2 * head_dim),
        device_(int64_t{blocks} * kv_heads * kLayers * 2 * kBlockTokens * row_bytes_) {
    const int64_t bytes = int64_t{blocks} * kv_heads * kLayers * 2 * kBlockTokens * row_bytes_;
    if (fp8) {
      host_ = random.Fp8(bytes);
    } else {
      const auto values = random.Bf16(bytes / 2);
      host_.resize(bytes);
      std::memcpy(host_.data(), values.data(), bytes);
    }
    device_.Upload(host_);
    view_.base = device_.get();
  }
  const KvCacheView& view() const { return view_; }
  DeviceArray<uint8_t>& device() { return device_; }
  std::vector<uint8_t>& host() { return host_; }
  void ReadBack() { host_ = device_.Download(); }

  float At(int block, int head, int plane, int token, int dim) const {
    const int element = view_.fp8 ? 1 : 2;
    const int chunks = row_bytes_ / 16;
    const int byte = dim * element;
    const int chunk = chunks >= 8 ? (byte / 16) ^ (token & 7) : (byte / 16) ^ ((token >> 1) & 3);
    const int64_t at =
        ((((int64_t{block} * view_.kv_heads + head) * kLayers + kLayer) * 2 + plane) * kBlockTokens + token) *
            row_bytes_ +
        chunk * 16 + byte % 16;
    if (view_.fp8) return Fp8ToFloat(host_[at]);
    uint16_t bits;
    std::memcpy(&bits, host_.data() + at, 2);
    return Bf16ToFloat(bits);
  }

 private:
  KvCacheView view_;
  int row_bytes_;
  DeviceArray<uint8_t> device_;
  std::vector<uint8_t> host_;
};

inline std::vector<int32_t> ShuffledBlocks(int count, Random& random) {
  std::vector<int32_t> blocks(count);
  std::iota(blocks.begin(), blocks.end(), 0);
  for (int i = count - 1; i > 0; --i) std::swap(blocks[i], blocks[random.Below(i + 1)]);
  return blocks;
}

// Exact attention of one query row over tokens [0, length).
inline std::vector<double> Reference(const Cache& cache, const int32_t* table, int length, int kv_head,
                                     const float* query) {
  const int dim = cache.view().head_dim;
  std::vector<double> scores(length);
  double top = -1e300;
  for (int t = 0; t < length; ++t) {
    double score = 0;
    for (int d = 0; d < dim; ++d) score += double{query[d]} * cache.At(table[t / 128], kv_head, 0, t % 128, d);
    scores[t] = score;
    top = std::max(top, score);
  }
  std::vector<double> out(dim, 0.0);
  double sum = 0;
  for (int t = 0; t < length; ++t) {
    const double weight = std::exp2(scores[t] - top);
    sum += weight;
    for (int d = 0; d < dim; ++d) out[d] += weight * cache.At(table[t / 128], kv_head, 1, t % 128, d);
  }
  for (double& x : out) x /= sum;
  return out;
}

inline uint16_t FloatToHalfBits(float value) {  // of values that FP16 holds exactly after BF16 rounding, scaled by 2^-4
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const int exponent = static_cast<int>((bits >> 23) & 255) - 127 + 15;
  if (exponent <= 0) return static_cast<uint16_t>((bits >> 16) & 0x8000);
  return static_cast<uint16_t>(((bits >> 16) & 0x8000) | exponent << 10 | ((bits >> 13) & 1023));
}

struct Queries {
  Queries(int rows, int stride, Random& random) : values(int64_t{rows} * stride), bits(int64_t{rows} * stride) {
    for (size_t i = 0; i < values.size(); ++i) {
      bits[i] = FloatToHalfBits(Bf16ToFloat(FloatToBf16(random.Normal(0.18f))));
      values[i] = HalfToFloat(bits[i]);
    }
  }
  std::vector<float> values;
  std::vector<uint16_t> bits;
};

struct Heads {
  int heads, kv_heads, dim;
  bool fp8;
};

}  // namespace baton::cuda
