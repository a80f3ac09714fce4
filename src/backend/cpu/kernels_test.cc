// The kernels between the products, of every instruction set, against their definitions in double precision.
#include "backend/cpu/kernels.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "backend/cpu/float16.h"
#include "backend/cpu/int8_row.h"

namespace baton::cpu {
namespace {

class KernelsTest : public testing::TestWithParam<const Kernels*> {
 protected:
  std::vector<float> Random(int64_t size, float spread = 1) {
    std::vector<float> x(size);
    for (float& value : x) value = std::normal_distribution<float>(0, spread)(random_);
    return x;
  }
  std::mt19937 random_{42};
};

TEST_P(KernelsTest, Norm) {
  for (int64_t size : {8, 12, 576, 1027}) {
    const std::vector<float> residual = Random(size);
    const std::vector<float> delta = Random(size);
    const std::vector<float> weight = Random(size);
    for (bool add : {false, true}) {
      std::vector<float> updated = residual;
      std::vector<float> out(size + 1, NAN);
      GetParam()->norm({updated.data(), add ? delta.data() : nullptr, weight.data(), size, 1e-5f, out.data()});
      double squares = 0;
      for (int64_t i = 0; i < size; ++i) {
        const double x = double{residual[i]} + (add ? delta[i] : 0.0f);
        ASSERT_NEAR(updated[i], x, 1e-6);
        squares += x * x;
      }
      for (int64_t i = 0; i < size; ++i) {
        ASSERT_NEAR(out[i], updated[i] / std::sqrt(squares / static_cast<double>(size) + 1e-5) * weight[i], 1e-5);
      }
      EXPECT_TRUE(std::isnan(out[size]));
    }
  }
}

TEST_P(KernelsTest, Rotate) {
  for (int dim : {8, 40, 64, 128}) {
    for (bool interleaved : {false, true}) {
      const int half = dim / 2;
      const std::vector<float> x = Random(3 * dim);
      std::vector<float> cosines(half), sines(half);
      for (int i = 0; i < half; ++i) {
        cosines[i] = std::cos(0.3f * static_cast<float>(i + 1));
        sines[i] = std::sin(0.3f * static_cast<float>(i + 1));
      }
      std::vector<float> rotated = x;
      rotated.push_back(7);
      GetParam()->rotate(rotated.data(), 3, dim, cosines.data(), sines.data(), interleaved);
      for (int head = 0; head < 3; ++head) {
        for (int i = 0; i < half; ++i) {
          const int a = head * dim + (interleaved ? 2 * i : i);
          const int b = head * dim + (interleaved ? 2 * i + 1 : i + half);
          ASSERT_NEAR(rotated[a], double{x[a]} * cosines[i] - double{x[b]} * sines[i], 1e-6) << dim << interleaved;
          ASSERT_NEAR(rotated[b], double{x[a]} * sines[i] + double{x[b]} * cosines[i], 1e-6) << dim << interleaved;
        }
      }
      EXPECT_EQ(rotated.back(), 7);
    }
  }
}

TEST_P(KernelsTest, SwiGlu) {
  for (int64_t size : {1, 7, 8, 100, 1536}) {
    const std::vector<float> gate = Random(size, 8);
    const std::vector<float> up = Random(size);
    std::vector<float> out(size + 1, NAN);
    GetParam()->swiglu(gate.data(), up.data(), size, out.data());
    for (int64_t i = 0; i < size; ++i) {
      const double expected = gate[i] / (1 + std::exp(-double{gate[i]})) * up[i];
      ASSERT_NEAR(out[i], expected, std::fabs(expected) * 1e-6 + 1e-7) << gate[i];
    }
    EXPECT_TRUE(std::isnan(out[size]));
  }
  const float extremes[] = {-1e30f, -200.0f, -88.5f, 0.0f, 88.5f, 200.0f, 1e30f, NAN};
  const std::vector<float> ones(8, 1.0f);
  float out[8];
  GetParam()->swiglu(extremes, ones.data(), 8, out);
  for (int i = 0; i < 3; ++i) EXPECT_NEAR(out[i], 0, 1e-6) << extremes[i];
  for (int i = 3; i < 7; ++i) EXPECT_EQ(out[i], extremes[i]);
  EXPECT_TRUE(std::isnan(out[7]));
}

TEST_P(KernelsTest, StoreHalf) {
  for (int64_t size : {1, 8, 64, 101}) {
    std::vector<float> x = Random(size, 100);
    x[0] = 1e6f;
    std::vector<uint16_t> out(size + 1, 0x1234);
    GetParam()->store_half(x.data(), size, out.data());
    for (int64_t i = 0; i < size; ++i) ASSERT_EQ(out[i], FloatToHalf(x[i])) << x[i];
    EXPECT_EQ(out[size], 0x1234);
  }
}

TEST_P(KernelsTest, StoreInt8) {
  for (int64_t size : {8, 64, 104}) {
    for (float spread : {0.0f, 1.0f, 1e4f}) {
      const std::vector<float> x = Random(size, spread);
      std::vector<uint8_t> out(size + 5, 0x12);
      GetParam()->store_int8(x.data(), size, out.data());
      float max = 0, scale;
      for (float value : x) max = std::max(max, std::fabs(value));
      std::memcpy(&scale, out.data() + size, 4);
      EXPECT_EQ(scale, max / 127.0f);
      for (int64_t i = 0; i < size; ++i) {
        ASSERT_NEAR(static_cast<int8_t>(out[i]) * double{scale}, x[i], 0.5001 * scale) << i;
      }
      EXPECT_EQ(out[size + 4], 0x12);
    }
  }
  std::vector<float> bad(8, 1.0f);
  bad[5] = NAN;
  uint8_t out[12];
  float scale;
  GetParam()->store_int8(bad.data(), 8, out);
  std::memcpy(&scale, out + 8, 4);
  EXPECT_TRUE(std::isnan(scale));  // not lost
}

// What element i of a K row of KvType::kI8 means.
double KeyElement(const uint8_t* row, int64_t size, int64_t i) {
  uint32_t tail;
  std::memcpy(&tail, row + size, 4);
  const double scale = std::bit_cast<float>(tail << 16);
  const int high = i == (tail >> 16 & 255) ? static_cast<int8_t>(tail >> 24) : 0;
  return scale * (static_cast<int8_t>(row[i]) + 128 * high);
}

TEST_P(KernelsTest, StoreInt8KeyKeepsTheLargestApart) {
  for (int64_t size : {8, 64, 104, 256}) {
    for (float largest : {0.0f, 1.0f, 20.0f, 300.0f, 1e6f}) {
      for (int64_t at : {int64_t{0}, size / 2 + 3, size - 1}) {
        std::vector<float> x = Random(size);
        float others = 0;
        for (float& value : x) value = std::clamp(value, -0.9f, 0.9f);
        x[at] = at % 2 == 0 ? largest : -largest;
        for (int64_t i = 0; i < size; ++i) others = i == at ? others : std::max(others, std::fabs(x[i]));
        std::vector<uint8_t> out(size + 5, 0x12);
        GetParam()->store_int8_key(x.data(), size, out.data());
        // BF16 rounds the scale up by at most 1/128.
        const double step = std::max(others, largest / 128) / 127.0 * 1.008;
        for (int64_t i = 0; i < size; ++i) {
          ASSERT_NEAR(KeyElement(out.data(), size, i), x[i], 0.5001 * step) << size << " " << largest << " " << i;
        }
        EXPECT_EQ(out[size + 4], 0x12);
      }
    }
  }
  for (float bad : {NAN, INFINITY}) {
    std::vector<float> x(8, 1.0f);
    x[5] = bad;
    uint8_t out[12];
    GetParam()->store_int8_key(x.data(), 8, out);
    EXPECT_FALSE(std::isfinite(KeyElement(out, 8, 5)));  // not lost
  }
}

// One KV head's cache with its blocks scattered; whatever is not a token is NaN.
struct Cache {
  Cache(int tokens, int dim, int block_size, KvType kv, std::mt19937& random)
      : dim(dim), block_size(block_size), kv(kv), row_bytes(dim * kElementBytes[static_cast<int>(kv)]) {
    if (kv == KvType::kI8) row_bytes += 4;
    const int blocks = (tokens + block_size - 1) / block_size;
    block_bytes = 2 * block_size * row_bytes + 64;
    bytes.assign((blocks + 3) * block_bytes, 0xff);                    // NaN in both types
    for (int i = 0; i < blocks; ++i) table.push_back(blocks + 1 - i);  // not in memory order
    for (int token = 0; token < tokens; ++token) {
      for (int v = 0; v < 2; ++v) {
        uint8_t* row = bytes.data() + table[token / block_size] * block_bytes + v * block_size * row_bytes +
                       token % block_size * row_bytes;
        const float scale = std::uniform_real_distribution<float>(0.01f, 0.02f)(random);
        if (kv == KvType::kI8) std::memcpy(row + dim, &scale, 4);
        for (int d = 0; d < dim; ++d)
          values[v].push_back(Put(std::normal_distribution<float>()(random), scale, d, row));
        if (kv != KvType::kI8 || v == 1) continue;
        const uint32_t tail =
            KeyTail(std::bit_cast<uint32_t>(scale) & 0xffff0000u, token % dim, static_cast<int>(random() % 7) - 3);
        std::memcpy(row + dim, &tail, 4);
        for (int d = 0; d < dim; ++d) values[0][token * dim + d] = KeyElement(row, dim, d);
      }
    }
  }
  // Element d of a row; returns what it means.
  double Put(float value, float scale, int d, uint8_t* row) {
    const uint16_t half = FloatToHalf(value);
    switch (kv) {
      case KvType::kF32:
        std::memcpy(row + d * 4, &value, 4);
        return value;
      case KvType::kF16:
        std::memcpy(row + d * 2, &half, 2);
        return HalfToFloat(half);
      case KvType::kI8:
        row[d] = static_cast<uint8_t>(std::clamp(static_cast<int>(value * 60), -127, 127));
        return static_cast<int8_t>(row[d]) * double{scale};
    }
    return NAN;
  }
  static constexpr int kElementBytes[] = {4, 2, 1};  // by KvType
  int dim, block_size;
  KvType kv;
  int64_t row_bytes, block_bytes;
  std::vector<uint8_t> bytes;
  std::vector<int32_t> table;
  std::vector<double> values[2];  // K and V: [token][dim]
};

// Queries [first, first + count) of q, in one call; or, of one query, each `together` sections in a call of their own.
void Attend(const Kernels& kernels, const Cache& cache, const std::vector<float>& q, int heads, int first, int count,
            std::vector<float>& out, int together = 0) {
  const int64_t stride = heads * cache.dim;
  std::vector<float> scratch(AttentionScratchFloats(count, heads, cache.dim) + 16, NAN);
  AttentionArgs args;
  args.q = q.data() + first * stride;
  args.out = out.data() + first * stride;
  args.q_stride = args.out_stride = stride;
  args.queries = count;
  args.heads = heads;
  args.head_dim = cache.dim;
  args.first_position = first;
  args.scale = 0.125f;
  args.k = cache.bytes.data();
  args.v = cache.bytes.data() + cache.block_size * cache.row_bytes;
  args.block_bytes = cache.block_bytes;
  args.block_table = cache.table.data();
  args.block_size = cache.block_size;
  args.row_bytes = static_cast<int>(cache.row_bytes);
  args.kv = cache.kv;
  args.scratch = reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(scratch.data()) + 63) / 64 * 64);
  if (together == 0) return kernels.attention(args);
  const int sections = first / kAttentionSection + 1;
  const int64_t floats = PartialFloats(heads, cache.dim);
  std::vector<float> partials(sections * floats, NAN);
  for (args.first_section = 0; args.first_section < sections; args.first_section += together) {
    args.sections = std::min(together, sections - args.first_section);
    args.partials = partials.data() + args.first_section * floats;
    kernels.attention(args);
  }
  kernels.merge_sections(partials.data(), sections, heads, cache.dim, args.out);
}

std::vector<double> NaiveAttention(const Cache& cache, const std::vector<float>& q, int heads, int query, int head) {
  const int dim = cache.dim;
  std::vector<double> weights(query + 1), out(dim);
  double sum = 0;
  for (int t = 0; t <= query; ++t) {
    double score = 0;
    for (int d = 0; d < dim; ++d) score += q[(query * heads + head) * dim + d] * cache.values[0][t * dim + d];
    weights[t] = std::exp(score * 0.125);
    sum += weights[t];
  }
  for (int t = 0; t <= query; ++t) {
    for (int d = 0; d < dim; ++d) out[d] += weights[t] / sum * cache.values[1][t * dim + d];
  }
  return out;
}

TEST_P(KernelsTest, AttentionEqualsItsDefinition) {
  for (const auto& [dim, heads, block_size, kTokens] :
       {std::tuple{64, 3, 32, 100}, {128, 8, 16, 70}, {8, 1, 1, 530}, {80, 2, 40, 100}}) {
    for (KvType kv : {KvType::kF32, KvType::kF16, KvType::kI8}) {
      const Cache cache(kTokens, dim, block_size, kv, random_);
      const std::vector<float> q = Random(kTokens * heads * dim);
      std::vector<float> out(kTokens * heads * dim, NAN);
      for (int first = 0; first < kTokens; first += 9) {
        Attend(*GetParam(), cache, q, heads, first, std::min(9, kTokens - first), out);
      }
      for (int query = 0; query < kTokens; ++query) {
        for (int head = 0; head < heads; ++head) {
          const std::vector<double> expected = NaiveAttention(cache, q, heads, query, head);
          for (int d = 0; d < dim; ++d) {
            ASSERT_NEAR(out[(query * heads + head) * dim + d], expected[d], 2e-5)
                << dim << " " << heads << " query " << query;
          }
        }
      }
    }
  }
}

TEST_P(KernelsTest, AttentionBitsDoNotDependOnQueriesTogetherBlocksOrSections) {
  constexpr int kTokens = 2 * kAttentionSection + 60, kDim = 64, kHeads = 4;
  const std::vector<float> q = Random(kTokens * kHeads * kDim);
  for (KvType kv : {KvType::kF16, KvType::kI8}) {
    std::vector<float> expected;
    for (int block_size : {1, 7, 32, 128}) {
      std::mt19937 same(3);
      Cache cache(kTokens, kDim, block_size, kv, same);
      for (int together : {1, 5, 8, kTokens}) {
        std::vector<float> out(kTokens * kHeads * kDim, NAN);
        for (int first = 0; first < kTokens; first += together) {
          Attend(*GetParam(), cache, q, kHeads, first, std::min(together, kTokens - first), out);
        }
        if (expected.empty()) expected = out;
        ASSERT_EQ(std::memcmp(out.data(), expected.data(), out.size() * sizeof(float)), 0)
            << "block size " << block_size << ", " << together << " together";
      }
    }
    std::mt19937 same(3);
    const Cache cache(kTokens, kDim, 32, kv, same);
    for (int sections : {1, 2}) {
      std::vector<float> out(kTokens * kHeads * kDim, NAN);
      for (int query = 0; query < kTokens; ++query) Attend(*GetParam(), cache, q, kHeads, query, 1, out, sections);
      ASSERT_EQ(std::memcmp(out.data(), expected.data(), out.size() * sizeof(float)), 0) << sections << " sections";
    }
  }
}

// AVX2 and AVX-512 differ in width alone.
TEST(Kernels, AttentionOfVectorPathsHasTheSameBits) {
  for (int dim : {40, 64, 128}) {
    std::mt19937 random(5);
    const Cache cache(90, dim, 16, KvType::kF16, random);
    std::vector<float> q(90 * 3 * dim);
    for (float& value : q) value = std::normal_distribution<float>()(random);
    std::vector<float> expected;
    for (const Kernels* kernels : KernelsHere()) {
      if (kernels == &PlainKernels()) continue;
      std::vector<float> out(q.size(), NAN);
      for (int first = 0; first < 90; first += 9) Attend(*kernels, cache, q, 3, first, 9, out);
      if (expected.empty()) expected = out;
      ASSERT_EQ(std::memcmp(out.data(), expected.data(), out.size() * sizeof(float)), 0) << kernels->name << dim;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(InstructionSets, KernelsTest, testing::ValuesIn(KernelsHere().begin(), KernelsHere().end()),
                         [](const auto& info) { return std::string(info.param->name); });

}  // namespace
}  // namespace baton::cpu
