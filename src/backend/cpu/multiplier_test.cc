// Products of every weight type and instruction set against sums in double precision of the decoded weights.
#include "backend/cpu/multiplier.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "backend/cpu/float16.h"

namespace baton::cpu {
namespace {

constexpr DType kTypes[] = {DType::kF32,  DType::kF16,  DType::kBF16, DType::kQ8_0, DType::kQ4_0, DType::kQ4_1,
                            DType::kQ5_0, DType::kQ5_1, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K};

// A random matrix in GGUF's encoding, and what it means.
struct Matrix {
  Matrix(DType dtype, int64_t rows, int64_t columns, uint32_t seed) : random(seed) {
    view.dtype = dtype;
    view.shape = {rows, columns};
    const DTypeTraits traits = TraitsOf(dtype);
    for (int64_t i = 0; i < rows * columns / traits.block_elements; ++i) AddBlock(dtype, traits);
    view.data = bytes.data();
    view.bytes = static_cast<int64_t>(bytes.size());
  }

  uint16_t RandomHalf(float low, float high) {
    return FloatToHalf(std::uniform_real_distribution<float>(low, high)(random));
  }
  void AddBytes(const void* data, size_t size) {
    bytes.insert(bytes.end(), static_cast<const uint8_t*>(data), static_cast<const uint8_t*>(data) + size);
  }

  // As ggml defines the types: weight i of a 32-block has its low bits in byte i % 16, low nibble first.
  void AddBlock(DType dtype, const DTypeTraits& traits) {
    if (traits.block_elements == 1) return AddPlain(dtype);
    if (traits.block_elements == 256) return AddSuperBlock(dtype, traits);
    const uint16_t scale = RandomHalf(0.005f, 0.02f);
    const uint16_t minimum = RandomHalf(-0.2f, 0.1f);
    const bool has_minimum = dtype == DType::kQ4_1 || dtype == DType::kQ5_1;
    const bool fifth = dtype == DType::kQ5_0 || dtype == DType::kQ5_1;
    AddBytes(&scale, 2);
    if (has_minimum) AddBytes(&minimum, 2);
    const uint32_t fifth_bits = fifth ? static_cast<uint32_t>(random()) : 0;
    if (fifth) AddBytes(&fifth_bits, 4);
    uint8_t data[32];
    for (uint8_t& byte : data) byte = static_cast<uint8_t>(random());
    AddBytes(data, dtype == DType::kQ8_0 ? 32 : 16);
    for (int i = 0; i < 32; ++i) {
      int q = i < 16 ? data[i] & 15 : data[i - 16] >> 4;
      q += static_cast<int>((fifth_bits >> i) & 1) * 16;
      if (dtype == DType::kQ8_0) q = static_cast<int8_t>(data[i]);
      if (dtype == DType::kQ4_0) q -= 8;
      if (dtype == DType::kQ5_0) q -= 16;
      values.push_back(double{HalfToFloat(scale)} * q + (has_minimum ? double{HalfToFloat(minimum)} : 0.0));
    }
  }
  // 256 weights of a K type: any bytes are one, but for its scales.
  void AddSuperBlock(DType dtype, const DTypeTraits& traits) {
    std::vector<uint8_t> block(traits.block_bytes);
    for (uint8_t& byte : block) byte = static_cast<uint8_t>(random());
    const bool q6 = dtype == DType::kQ6_K;
    const float scale = q6 ? 1e-4f : 3e-4f;
    const uint16_t halves[2] = {RandomHalf(scale / 2, scale), RandomHalf(scale, 3 * scale)};
    std::memcpy(block.data() + (q6 ? 208 : 0), halves, q6 ? 2 : 4);
    AddBytes(block.data(), block.size());
    for (int i = 0; i < 256; ++i) values.push_back(SuperBlockValue(dtype, block.data(), i));
  }
  // ggml's definition of weight i.
  static double SuperBlockValue(DType dtype, const uint8_t* block, int i) {
    uint16_t bits;
    const int group = i / 32, j = i % 32;
    if (dtype == DType::kQ6_K) {
      std::memcpy(&bits, block + 208, 2);
      const int half = i / 128, run = i / 32 % 4;
      const int low = block[half * 64 + run % 2 * 32 + j] >> (run / 2 * 4) & 15;
      const int high = block[128 + half * 32 + j] >> (run * 2) & 3;
      return double{HalfToFloat(bits)} * static_cast<int8_t>(block[192 + i / 16]) * (low + 16 * high - 32);
    }
    std::memcpy(&bits, block, 2);
    const double scale = HalfToFloat(bits);
    std::memcpy(&bits, block + 2, 2);
    const double minimum = HalfToFloat(bits);
    const uint8_t* packed = block + 4;
    const int s = group < 4 ? packed[group] & 63 : (packed[group + 4] & 15) + (packed[group - 4] >> 6) * 16;
    const int m = group < 4 ? packed[group + 4] & 63 : (packed[group + 4] >> 4) + (packed[group] >> 6) * 16;
    const bool fifth = dtype == DType::kQ5_K;
    int q = block[(fifth ? 48 : 16) + group / 2 * 32 + j] >> (group % 2 * 4) & 15;
    if (fifth) q += (block[16 + j] >> group & 1) * 16;
    return scale * s * q - minimum * m;
  }
  void AddPlain(DType dtype) {
    const float value = std::normal_distribution<float>(0, 0.05f)(random);
    if (dtype == DType::kF32) {
      AddBytes(&value, 4);
      values.push_back(value);
      return;
    }
    const uint16_t bits =
        dtype == DType::kF16 ? FloatToHalf(value) : static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16);
    AddBytes(&bits, 2);
    values.push_back(dtype == DType::kF16 ? HalfToFloat(bits) : Bf16ToFloat(bits));
  }

  std::mt19937 random;
  TensorView view;
  std::vector<uint8_t> bytes;
  std::vector<double> values;  // [rows][columns]
};

// The indices of a column that keep their value: in each 24 blocks, one for each nine.
std::vector<bool> OutliersIn(const float* x, int64_t columns) {
  std::vector<bool> outlier(columns, false);
  for (int64_t first = 0; first < columns; first += 24 * 32) {
    const int64_t end = std::min<int64_t>(columns, first + 24 * 32);
    for (int64_t count = ((end - first) / 32 + 8) / 9; count > 0; --count) {
      int64_t most = -1;
      for (int64_t i = first; i < end; ++i) {
        if (!outlier[i] && (most < 0 || std::fabs(x[i]) > std::fabs(x[most]))) most = i;
      }
      outlier[most] = true;
    }
  }
  return outlier;
}

// What the kernels multiply by: the input itself, or its rounding to 8 bits (16 for 8-bit weights) in blocks of 32,
// outliers apart.
std::vector<double> RoundInput(const Kernels& kernels, DType dtype, const std::vector<float>& x, int64_t columns) {
  std::vector<double> rounded(x.begin(), x.end());
  if (dtype == DType::kBF16 && std::string_view(kernels.name) == "avx512bf16") {
    for (double& value : rounded) {  // to nearest, ties to even
      const uint32_t bits = std::bit_cast<uint32_t>(static_cast<float>(value));
      value = std::bit_cast<float>((bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000u);
    }
  }
  if (TraitsOf(dtype).block_elements == 1) return rounded;
  const float range = dtype == DType::kQ8_0 ? 32767.0f : 127.0f;
  std::vector<bool> kept(x.size(), false);
  for (size_t first = 0; first < x.size() && dtype != DType::kQ8_0; first += columns) {
    const std::vector<bool> outliers = OutliersIn(x.data() + first, columns);
    std::copy(outliers.begin(), outliers.end(), kept.begin() + static_cast<int64_t>(first));
  }
  for (size_t block = 0; block < x.size(); block += 32) {
    float max = 0;
    for (size_t i = block; i < block + 32; ++i) max = kept[i] ? max : std::max(max, std::fabs(x[i]));
    for (size_t i = block; i < block + 32; ++i) {
      if (!kept[i]) rounded[i] = max == 0 ? 0 : std::nearbyint(x[i] * (range / max)) * double{max / range};
    }
  }
  return rounded;
}

std::vector<float> RandomInput(int64_t size, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<float> x(size);
  for (float& value : x) value = std::normal_distribution<float>()(random);
  if (size > 64) std::fill_n(x.begin() + 32, 32, 0.0f);  // a block without a scale
  for (int64_t i = 7; i < size; i += 91) x[i] *= 30;     // outliers
  return x;
}

std::unique_ptr<PackedWeight> Pack(std::span<const LinearSource> sources, Arena& arena, ThreadPool& pool) {
  auto packed = PackedWeight::Pack(sources, arena, pool);
  EXPECT_TRUE(packed.ok()) << packed.status();
  return *std::move(packed);
}

class MultiplierTest : public testing::TestWithParam<DType> {};

TEST_P(MultiplierTest, EqualsTheDefinition) {
  for (const Kernels* kernels : KernelsHere()) {
    const bool super = TraitsOf(GetParam()).block_elements == 256;
    for (auto [rows, columns] : {std::pair<int64_t, int64_t>{16, 32}, {40, 96}, {7, 64}, {33, 1600}}) {
      if (super) columns = (columns + 255) / 256 * 256;
      ThreadPool pool(2);
      Arena arena;
      Multiplier multiplier(*kernels, pool);
      const Matrix matrix(GetParam(), rows, columns, 5);
      const auto weight = Pack(std::vector<LinearSource>{{matrix.view}}, arena, pool);
      for (int64_t tokens : {1, 2, 3, 5, 8, 9, 14, 31, 300}) {
        if (tokens > 31 && rows > 16) continue;
        const std::vector<float> x = RandomInput(tokens * columns, 9);
        const std::vector<double> rounded = RoundInput(*kernels, GetParam(), x, columns);
        std::vector<float> out(tokens * (rows + 3), NAN);
        multiplier.Multiply(*weight, x.data(), columns, tokens, out.data(), rows + 3);
        for (int64_t t = 0; t < tokens; ++t) {
          for (int64_t row = 0; row < rows; ++row) {
            double sum = 0;
            double magnitude = 0;
            for (int64_t k = 0; k < columns; ++k) {
              const double product = matrix.values[row * columns + k] * rounded[t * columns + k];
              sum += product;
              magnitude += std::fabs(product);
            }
            ASSERT_NEAR(out[t * (rows + 3) + row], sum, magnitude * 3e-6 + 1e-6)
                << kernels->name << " " << rows << "x" << columns << " token " << t << " of " << tokens << " row "
                << row;
          }
          for (int i = 0; i < 3; ++i) ASSERT_TRUE(std::isnan(out[t * (rows + 3) + rows + i])) << "written past the end";
        }
      }
    }
  }
}

TEST_P(MultiplierTest, BitsDoNotDependOnBatchOrThreads) {
  constexpr int64_t kRows = 80, kColumns = 1024, kTokens = 300;
  const Matrix matrix(GetParam(), kRows, kColumns, 6);
  const std::vector<float> x = RandomInput(kTokens * kColumns, 10);
  for (const Kernels* kernels : KernelsHere()) {
    std::vector<float> expected(kTokens * kRows);
    for (int threads = 1; threads <= 3; ++threads) {
      ThreadPool pool(threads);
      Arena arena;
      Multiplier multiplier(*kernels, pool);
      const auto weight = Pack(std::vector<LinearSource>{{matrix.view}}, arena, pool);
      if (threads == 1) {
        for (int64_t t = 0; t < kTokens; ++t) {
          multiplier.Multiply(*weight, x.data() + t * kColumns, kColumns, 1, expected.data() + t * kRows, kRows);
        }
      }
      for (int64_t tokens : {2, 4, 5, 7, 8, 10, 27, 257, 263, 300}) {
        if (tokens > 27 && kernels == &PlainKernels()) continue;  // slow
        std::vector<float> out(tokens * kRows, NAN);
        multiplier.Multiply(*weight, x.data(), kColumns, tokens, out.data(), kRows);
        ASSERT_EQ(std::memcmp(out.data(), expected.data(), out.size() * sizeof(float)), 0)
            << kernels->name << " " << threads << " threads, " << tokens << " tokens";
      }
    }
  }
}

// AVX2 and AVX-512 differ in width alone; only BF16 has instructions that round.
TEST_P(MultiplierTest, VectorPathsGiveTheSameBits) {
  constexpr int64_t kRows = 48, kColumns = 1024, kTokens = 37;
  const Matrix matrix(GetParam(), kRows, kColumns, 6);
  const std::vector<float> x = RandomInput(kTokens * kColumns, 10);
  std::vector<float> expected;
  for (const Kernels* kernels : KernelsHere()) {
    if (kernels == &PlainKernels()) continue;
    if (GetParam() == DType::kBF16 && std::string_view(kernels->name) == "avx512bf16") continue;
    ThreadPool pool(2);
    Arena arena;
    Multiplier multiplier(*kernels, pool);
    const auto weight = Pack(std::vector<LinearSource>{{matrix.view}}, arena, pool);
    std::vector<float> out(kTokens * kRows, NAN);
    multiplier.Multiply(*weight, x.data(), kColumns, kTokens, out.data(), kRows);
    if (expected.empty()) expected = out;
    ASSERT_EQ(std::memcmp(out.data(), expected.data(), out.size() * sizeof(float)), 0) << kernels->name;
  }
}

TEST_P(MultiplierTest, StackedSourcesWithBias) {
  constexpr int64_t kColumns = 256;
  const Matrix first(GetParam(), 20, kColumns, 1);
  const Matrix second(DType::kQ8_0, 9, kColumns, 2);
  const Matrix third(DType::kQ8_0, 13, kColumns, 3);
  const Matrix bias(DType::kF32, 1, 13, 4);
  LinearSource biased = {third.view};
  biased.bias = bias.view;
  biased.bias.shape = {13};
  for (const Kernels* kernels : KernelsHere()) {
    ThreadPool pool(2);
    Arena arena;
    Multiplier multiplier(*kernels, pool);
    const auto weight = Pack(std::vector<LinearSource>{{first.view}, {second.view}, biased}, arena, pool);
    EXPECT_EQ(weight->rows(), 42);
    const std::vector<float> x = RandomInput(3 * kColumns, 11);
    std::vector<float> out(3 * 42, NAN);
    multiplier.Multiply(*weight, x.data(), kColumns, 3, out.data(), 42);
    int64_t offset = 0;
    for (const Matrix* matrix : {&first, &second, &third}) {
      const std::vector<double> rounded = RoundInput(*kernels, matrix->view.dtype, x, kColumns);
      for (int64_t t = 0; t < 3; ++t) {
        for (int64_t row = 0; row < matrix->view.rows(); ++row) {
          double sum = matrix == &third ? bias.values[row] : 0;
          for (int64_t k = 0; k < kColumns; ++k) {
            sum += matrix->values[row * kColumns + k] * rounded[t * kColumns + k];
          }
          EXPECT_NEAR(out[t * 42 + offset + row], sum, 1e-3) << kernels->name << " row " << offset + row;
        }
      }
      offset += matrix->view.rows();
    }
    for (int64_t row : {0, 15, 19}) {
      std::vector<float> decoded(kColumns);
      weight->DequantizeRow(row, decoded.data());
      for (int64_t k = 0; k < kColumns; ++k) EXPECT_NEAR(decoded[k], first.values[row * kColumns + k], 1e-6);
    }
  }
}

TEST_P(MultiplierTest, NotANumberIsNotLost) {
  if (TraitsOf(GetParam()).block_elements == 1) return;  // plain arithmetic keeps it
  const int64_t columns = TraitsOf(GetParam()).block_elements == 256 ? 256 : 96;
  const Matrix matrix(GetParam(), 16, columns, 1);
  for (const Kernels* kernels : KernelsHere()) {
    ThreadPool pool(1);
    Arena arena;
    Multiplier multiplier(*kernels, pool);
    const auto weight = Pack(std::vector<LinearSource>{{matrix.view}}, arena, pool);
    for (int position : {0, 40, 95}) {
      for (float bad : {NAN, -NAN, INFINITY}) {
        std::vector<float> x = RandomInput(columns, 3);
        x[position] = bad;
        std::vector<float> out(16, 0.0f);
        multiplier.Multiply(*weight, x.data(), columns, 1, out.data(), 16);
        for (float value : out) EXPECT_FALSE(std::isfinite(value)) << kernels->name << " " << position;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, MultiplierTest, testing::ValuesIn(kTypes),
                         [](const auto& info) { return std::string(TraitsOf(info.param).name); });

TEST(PackedWeight, RefusesWhatItCannotPack) {
  ThreadPool pool(1);
  Arena arena;
  const Matrix matrix(DType::kQ8_0, 16, 64, 1);
  auto pack = [&](auto change) {
    LinearSource source = {matrix.view};
    change(source);
    return PackedWeight::Pack(std::span(&source, 1), arena, pool).status();
  };
  EXPECT_EQ(pack([](LinearSource&) {}), absl::OkStatus());
  const absl::Status unknown = pack([](LinearSource& source) { source.weight.dtype = DType::kF8E4M3; });
  EXPECT_EQ(unknown.code(), absl::StatusCode::kUnimplemented);
  EXPECT_NE(Message(unknown).find("F8_E4M3"), std::string_view::npos);
  EXPECT_EQ(pack([](LinearSource& source) { --source.weight.bytes; }).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(pack([](LinearSource& source) {
              source.weight.shape = {32, 32, 1};
            }).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(pack([](LinearSource& source) {
              source.weight.shape = {16, 50};
            }).code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace baton::cpu
