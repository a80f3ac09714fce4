#include "backend/cuda/gpu_test_support.h"
#include "backend/cuda/kernels.h"

namespace baton::cuda {
namespace {

int Multiprocessors() {
  int count = 0;
  cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, 0);
  return count;
}

struct Case {
  int n, k;
  bool fp8, fp32_output;
  int most_rows;
};

class InvariantGemmTest : public testing::TestWithParam<Case> {
 protected:
  InvariantGemmTest()
      : random_(FreshSeed()),
        weight_(Elements(int64_t{GetParam().n} * GetParam().k)),
        input_(Elements(int64_t{GetParam().most_rows} * GetParam().k)),
        device_weight_(weight_),
        device_input_(input_) {}

  std::vector<uint8_t> Elements(int64_t count) {
    if (GetParam().fp8) return random_.Fp8(count);
    const auto values = random_.Bf16(count);
    std::vector<uint8_t> bytes(count * 2);
    std::memcpy(bytes.data(), values.data(), bytes.size());
    return bytes;
  }
  int element() const { return GetParam().fp8 ? 1 : 2; }
  int64_t row_bytes() const { return int64_t{GetParam().n} * (GetParam().fp32_output ? 4 : 2); }

  // Rows [first, first + m) of the input; whatever lies behind their outputs stays poisoned.
  std::vector<uint8_t> Run(int first, int m, int multiprocessors = 0) {
    const Case& c = GetParam();
    DeviceArray<uint8_t> output((m + 1) * row_bytes());
    EXPECT_EQ(LaunchInvariantGemm({.weight = device_weight_.get(),
                                   .input = device_input_.get() + int64_t{first} * c.k * element(),
                                   .output = output.get(),
                                   .n = c.n,
                                   .k = c.k,
                                   .m = m,
                                   .fp8 = c.fp8,
                                   .fp32_output = c.fp32_output,
                                   .multiprocessors = multiprocessors > 0 ? multiprocessors : Multiprocessors()},
                                  nullptr),
              cudaSuccess);
    std::vector<uint8_t> bytes = output.Download();
    EXPECT_EQ(std::count(bytes.begin() + m * row_bytes(), bytes.end(), 0xff), row_bytes());
    bytes.resize(m * row_bytes());
    return bytes;
  }
  double Value(const std::vector<uint8_t>& bytes, int64_t i) const {
    if (GetParam().fp8) return Fp8ToFloat(bytes[i]);
    uint16_t bits;
    std::memcpy(&bits, bytes.data() + 2 * i, 2);
    return Bf16ToFloat(bits);
  }
  void CheckAgainstDouble(const std::vector<uint8_t>& out, int first, int m) {
    const Case& c = GetParam();
    RelativeError error;
    for (int i = 0; i < 600; ++i) {
      const int64_t row = random_.Below(m);
      const int64_t column = random_.Below(c.n);
      double sum = 0;
      for (int64_t k = 0; k < c.k; ++k)
        sum += Value(weight_, column * c.k + k) * Value(input_, (first + row) * c.k + k);
      float got;
      if (c.fp32_output) {
        std::memcpy(&got, out.data() + (row * c.n + column) * 4, 4);
      } else {
        uint16_t bits;
        std::memcpy(&bits, out.data() + (row * c.n + column) * 2, 2);
        got = Bf16ToFloat(bits);
      }
      error.Add(got, sum);
    }
    EXPECT_LT(error.value(), c.fp32_output ? 1e-3 : 2.5e-3) << m << " rows";
  }

  Random random_;
  std::vector<uint8_t> weight_, input_;
  DeviceArray<uint8_t> device_weight_, device_input_;
};

TEST_P(InvariantGemmTest, OneCtaMatchesDouble) {  // every kernel, its ring refilled: small enough for racecheck
  for (const int m : {1, 9, 33, 65, 129}) CheckAgainstDouble(Run(0, m, 2), 0, m);
}

// A row has the same bits alone, in any batch, in any place of the batch.
TEST_P(InvariantGemmTest, AnyBatchGivesTheSameBits) {
  const int most = GetParam().most_rows;
  const std::vector<uint8_t> all = Run(0, most);
  CheckAgainstDouble(all, 0, most);
  const auto expect_same = [&](int first, int m, int multiprocessors) {
    const std::vector<uint8_t> some = Run(first, m, multiprocessors);
    ASSERT_EQ(std::memcmp(some.data(), all.data() + first * row_bytes(), some.size()), 0)
        << m << " rows from " << first << " on differ from the same among " << most;
  };
  std::vector<int> sizes{96, 127, 128, 129, 255, 256, 257, 400, 512, 1000, 2048};
  for (int m = 1; m <= 66; ++m) sizes.push_back(m);
  for (const int m : sizes) {
    if (m > most) continue;
    expect_same(0, m, 0);
    expect_same(static_cast<int>(random_.Below(most - m + 1)), m, 1 + static_cast<int>(random_.Below(200)));
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, InvariantGemmTest,
                         testing::Values(Case{.n = 2048, .k = 1024, .fp8 = true, .most_rows = 2048},
                                         Case{.n = 1040, .k = 1552, .fp8 = true, .most_rows = 300},
                                         Case{.n = 6144, .k = 4096, .fp8 = true, .most_rows = 520},
                                         Case{.n = 512, .k = 28672, .fp8 = true, .most_rows = 300},
                                         Case{.n = 4096, .k = 576, .most_rows = 1100},
                                         Case{.n = 968, .k = 1000, .most_rows = 600},
                                         Case{.n = 8200, .k = 1544, .fp32_output = true, .most_rows = 520}));

}  // namespace
}  // namespace baton::cuda
