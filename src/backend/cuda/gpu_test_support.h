// Helpers of the GPU tests: device arrays with poisoned contents, fresh random numbers, E4M3 and BF16 on the host,
// errors against references in double.
#pragma once

#include <cuda_fp16.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "device/cuda_device.h"

namespace baton::cuda {

inline uint64_t FreshSeed() {
  static std::random_device device;
  const uint64_t seed = (uint64_t{device()} << 32) | device();
  std::printf("[ seed     ] %llu\n", static_cast<unsigned long long>(seed));
  return seed;
}

// Device memory of `count` elements; contents are 0xff bytes (NaN in every format) until uploaded.
template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(int64_t count) : count_(count) {
    auto memory = CudaMemory::Allocate(CudaMemory::Kind::kDevice, count * static_cast<int64_t>(sizeof(T)), "a test");
    EXPECT_TRUE(memory.ok()) << memory.status();
    memory_ = *std::move(memory);
    Poison();
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(static_cast<int64_t>(values.size())) {
    Upload(values);
  }
  void Poison() {
    EXPECT_EQ(cudaMemset(memory_.data(), 0xff, count_ * sizeof(T)), cudaSuccess);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);  // streams of kernels do not wait for it
  }
  void Upload(const std::vector<T>& values) {
    EXPECT_EQ(cudaMemcpy(memory_.data(), values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice),
              cudaSuccess);
  }
  std::vector<T> Download() const {
    std::vector<T> values(count_);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    EXPECT_EQ(cudaMemcpy(values.data(), memory_.data(), count_ * sizeof(T), cudaMemcpyDeviceToHost), cudaSuccess);
    return values;
  }
  T* get() const { return memory_.as<T>(); }
  template <typename U>
  U* as() const {
    return memory_.as<U>();
  }

 private:
  int64_t count_;
  CudaMemory memory_;
};

inline float Bf16ToFloat(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }
inline uint16_t FloatToBf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
inline float HalfToFloat(uint16_t half) {
  const int exponent = (half >> 10) & 31;
  const int mantissa = half & 1023;
  const float magnitude = exponent == 0    ? std::ldexp(static_cast<float>(mantissa), -24)
                          : exponent == 31 ? std::numeric_limits<float>::quiet_NaN()
                                           : std::ldexp(static_cast<float>(1024 + mantissa), exponent - 25);
  return half & 0x8000 ? -magnitude : magnitude;
}
inline float DecodeFp8(uint8_t bits) {
  const int exponent = (bits >> 3) & 15;
  const int mantissa = bits & 7;
  if (exponent == 15 && mantissa == 7) return std::numeric_limits<float>::quiet_NaN();
  const float magnitude = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                                        : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
  return bits & 0x80 ? -magnitude : magnitude;
}
inline float Fp8ToFloat(uint8_t bits) {
  static const std::vector<float> table = [] {
    std::vector<float> values;
    for (int code = 0; code < 256; ++code) values.push_back(DecodeFp8(static_cast<uint8_t>(code)));
    return values;
  }();
  return table[bits];
}
// To nearest, ties to even, saturating: by search, independent of the code under test.
inline uint8_t FloatToFp8(float value) {
  const float magnitude = std::fabs(value);
  int best = 0;
  float best_distance = std::numeric_limits<float>::infinity();
  int low = 0;
  int high = 126;
  while (low < high) {  // the largest code not above
    const int middle = (low + high + 1) / 2;
    (Fp8ToFloat(static_cast<uint8_t>(middle)) <= magnitude ? low : high) =
        Fp8ToFloat(static_cast<uint8_t>(middle)) <= magnitude ? middle : middle - 1;
  }
  for (int code : {low, low + 1}) {
    if (code > 126) continue;
    const float distance = std::fabs(Fp8ToFloat(static_cast<uint8_t>(code)) - magnitude);
    if (distance < best_distance || (distance == best_distance && code % 2 == 0)) {
      best = code;
      best_distance = distance;
    }
  }
  return static_cast<uint8_t>(best | (std::signbit(value) ? 0x80 : 0));
}

// Channel scales as the kernels take them: FP16 in units of 1/1024.
struct ChannelScales {
  ChannelScales(std::vector<float> wanted) : values(std::move(wanted)), device(static_cast<int64_t>(values.size())) {
    std::vector<uint16_t> bits;
    for (float& value : values) {
      const __half half = __float2half(value * 1024.0f);
      value = __half2float(half) / 1024.0f;
      bits.push_back(std::bit_cast<uint16_t>(half));
    }
    device.Upload(bits);
  }
  static constexpr float kUnit = 1.0f / 1024.0f;
  std::vector<float> values;  // as rounded
  DeviceArray<uint16_t> device;
};

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  float Normal(float deviation = 1.0f) { return deviation * normal_(engine_); }
  float Uniform(float low, float high) { return low + (high - low) * static_cast<float>(engine_() >> 11) * 0x1p-53f; }
  int64_t Below(int64_t n) { return static_cast<int64_t>(engine_() % static_cast<uint64_t>(n)); }
  std::vector<uint16_t> Bf16(int64_t n, float deviation = 1.0f) {
    std::vector<uint16_t> out(n);
    for (uint16_t& x : out) x = FloatToBf16(Normal(deviation));
    return out;
  }
  std::vector<uint8_t> Fp8(int64_t n) {
    static const std::vector<uint8_t> table = [] {
      std::mt19937_64 engine(1);
      std::normal_distribution<float> normal;
      std::vector<uint8_t> out(4096);
      for (uint8_t& x : out) x = FloatToFp8(normal(engine));
      return out;
    }();
    std::vector<uint8_t> out(n);
    for (uint8_t& x : out) x = table[engine_() & 4095];
    return out;
  }
  std::vector<float> Floats(int64_t n, float low, float high) {
    std::vector<float> out(n);
    for (float& x : out) x = Uniform(low, high);
    return out;
  }

 private:
  std::mt19937_64 engine_;
  std::normal_distribution<float> normal_;
};

// ‖out − reference‖ / ‖reference‖, infinite when anything is not a number.
class RelativeError {
 public:
  void Add(double out, double reference) {
    const double difference = out - reference;
    if (!(std::fabs(difference) < 1e30)) bad_ = true;
    error_ += difference * difference;
    norm_ += reference * reference;
  }
  double value() const { return bad_ ? std::numeric_limits<double>::infinity() : std::sqrt(error_ / (norm_ + 1e-300)); }

 private:
  bool bad_ = false;
  double error_ = 0;
  double norm_ = 0;
};

}  // namespace baton::cuda
