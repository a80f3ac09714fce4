// What is between the products, in portable C++: the baseline for any machine, and the readable definition of what the
// others compute.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "backend/cpu/float16.h"
#include "backend/cpu/int8_row.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/plain.h"

namespace baton::cpu {
namespace {

void Norm(const NormArgs& args) {
  if (args.delta != nullptr) {
    for (int64_t i = 0; i < args.size; ++i) args.residual[i] += args.delta[i];
  }
  float lanes[8] = {};
  for (int64_t i = 0; i < args.size; ++i) lanes[i % 8] += args.residual[i] * args.residual[i];
  const float sum = ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
  const float factor = 1.0f / std::sqrt(sum / static_cast<float>(args.size) + args.epsilon);
  for (int64_t i = 0; i < args.size; ++i) args.out[i] = args.residual[i] * factor * args.weight[i];
}

void Rotate(float* x, int heads, int head_dim, const float* cosines, const float* sines, bool interleaved) {
  const int half = head_dim / 2;
  const int step = interleaved ? 2 : 1;
  const int pair = interleaved ? 1 : half;
  for (int head = 0; head < heads; ++head, x += head_dim) {
    for (int i = 0; i < half; ++i) {
      const float a = x[i * step];
      const float b = x[i * step + pair];
      x[i * step] = a * cosines[i] - b * sines[i];
      x[i * step + pair] = a * sines[i] + b * cosines[i];
    }
  }
}

void StoreHalf(const float* x, int64_t count, uint16_t* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = FloatToHalf(x[i]);
}

void StoreInt8(const float* x, int64_t count, uint8_t* out) {
  uint32_t largest = 0;  // of the bits, as for quantized input
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::bit_cast<uint32_t>(x[i]) & 0x7fffffffu);
  const float max = std::bit_cast<float>(largest);
  const float scale = max / 127.0f;
  const float inverse = max > 0 ? 127.0f / max : 0.0f;
  for (int64_t i = 0; i < count; ++i) {
    // Adding 1.5 × 2^23 rounds to the nearest integer, ties to even.
    const int q = std::bit_cast<int32_t>(x[i] * inverse + 12582912.0f) - 0x4b400000;
    out[i] = static_cast<uint8_t>(std::clamp(q, -127, 127));
  }
  std::memcpy(out + count, &scale, sizeof(scale));
}

void StoreInt8Key(const float* x, int64_t count, uint8_t* out) {
  auto magnitude = [&](int64_t i) { return std::bit_cast<uint32_t>(x[i]) & 0x7fffffffu; };
  int64_t index = 0;
  for (int64_t i = 1; i < count; ++i) index = magnitude(i) > magnitude(index) ? i : index;
  uint32_t others = 0;
  for (int64_t i = 0; i < count; ++i) others = i == index ? others : std::max(others, magnitude(i));
  const uint32_t bits = KeyScaleBits(std::bit_cast<float>(magnitude(index)), std::bit_cast<float>(others));
  const float scale = std::bit_cast<float>(bits);
  const float inverse = scale > 0 ? 1.0f / scale : 0.0f;
  // Adding 1.5 × 2^23 rounds to the nearest integer, ties to even.
  auto round = [&](int64_t i) { return std::bit_cast<int32_t>(x[i] * inverse + 12582912.0f) - 0x4b400000; };
  for (int64_t i = 0; i < count; ++i) out[i] = static_cast<uint8_t>(std::clamp(round(i), -127, 127));
  const int q = std::clamp(round(index), -16256, 16256);
  const int high = (q + 64) >> 7;
  out[index] = static_cast<uint8_t>(q - 128 * high);
  const uint32_t tail = KeyTail(bits, static_cast<int>(index), high);
  std::memcpy(out + count, &tail, sizeof(tail));
}

void SwiGlu(const float* gate, const float* up, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = gate[i] / (1.0f + Exp(-gate[i])) * up[i];
}

}  // namespace

const Kernels& PlainKernels() {
  static constexpr Kernels kKernels = {
      "plain",
      {0, kPlainTileWidth, kPlainTileWidth, kMaxTileWidth},
      QuantizeTilePlain,
      {MultiplyPlain<PackedKind::kF32>, MultiplyPlain<PackedKind::kF16>, MultiplyPlain<PackedKind::kBF16>,
       MultiplyPlain<PackedKind::kQ8>, MultiplyPlain<PackedKind::kQ4>, MultiplyPlain<PackedKind::kQ4Min>,
       MultiplyPlain<PackedKind::kQ5>, MultiplyPlain<PackedKind::kQ5Min>, MultiplyPlain<PackedKind::kQ4K>,
       MultiplyPlain<PackedKind::kQ5K>, MultiplyPlain<PackedKind::kQ6K>},
      Norm,
      Rotate,
      StoreHalf,
      StoreInt8,
      StoreInt8Key,
      AttentionPlain,
      MergeSectionsPlain,
      SwiGlu,
  };
  return kKernels;
}

}  // namespace baton::cpu
