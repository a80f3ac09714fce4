#include "backend/cuda/gemm.h"
#include "backend/cuda/gpu_test_support.h"
#include "backend/cuda/kernels.h"

namespace baton::cuda {
namespace {

// Sampled outputs against sums in double. FP8 sums in the tensor cores are short (see KERNELS in docs): 5e-3.
void CheckProduct(Gemm& gemm, const GemmShape& shape, int64_t rows, Random& random) {
  const int64_t element = shape.fp8 ? 1 : 2;
  std::vector<uint8_t> weight(shape.n * shape.k * element), input(rows * shape.k * element);
  auto fill = [&](std::vector<uint8_t>& bytes) {
    if (shape.fp8) {
      bytes = random.Fp8(static_cast<int64_t>(bytes.size()));
    } else {
      const auto values = random.Bf16(static_cast<int64_t>(bytes.size()) / 2);
      std::memcpy(bytes.data(), values.data(), bytes.size());
    }
  };
  fill(weight);
  fill(input);
  const DeviceArray<uint8_t> device_weight(weight), device_input(input);
  DeviceArray<uint8_t> output(rows * shape.n * (shape.fp32_output ? 4 : 2));
  auto value = [&](const std::vector<uint8_t>& bytes, int64_t i) {
    if (shape.fp8) return double{Fp8ToFloat(bytes[i])};
    uint16_t bits;
    std::memcpy(&bits, bytes.data() + 2 * i, 2);
    return double{Bf16ToFloat(bits)};
  };
  for (const bool tuned : {false, true}) {
    if (tuned) {
      const auto time = gemm.Tune(shape, rows, {device_weight.get()}, device_input.get(), output.get());
      ASSERT_TRUE(time.ok()) << time.status();
    }
    output.Poison();
    const absl::Status status = gemm.Run(shape, device_weight.get(), device_input.get(), rows, output.get());
    ASSERT_TRUE(status.ok()) << status;
    const auto out = output.Download();
    RelativeError error;
    for (int i = 0; i < 500; ++i) {
      const int64_t row = random.Below(rows);
      const int64_t column = random.Below(shape.n);
      double sum = 0;
      for (int64_t k = 0; k < shape.k; ++k)
        sum += value(weight, column * shape.k + k) * value(input, row * shape.k + k);
      float got;
      if (shape.fp32_output) {
        std::memcpy(&got, out.data() + (row * shape.n + column) * 4, 4);
      } else {
        uint16_t bits;
        std::memcpy(&bits, out.data() + (row * shape.n + column) * 2, 2);
        got = Bf16ToFloat(bits);
      }
      error.Add(got, sum);
    }
    EXPECT_LT(error.value(), shape.fp8 ? 6e-3 : 2.5e-3) << rows << " × " << shape.n << " × " << shape.k;
  }
}

// Products of few rows: every output row group, both ways of sharing, all of m.
TEST(SmallGemmTest, MatchesDouble) {
  Random random(FreshSeed());
  const struct {
    int n, k;
  } shapes[] = {{10240, 1024}, {57344, 512}, {8192, 2048}, {28672, 1024},
                {1024, 512},   {6144, 1536}, {2560, 1024}, {14336, 512}};
  for (const auto& shape : shapes) {
    ASSERT_TRUE(HasSmallGemm(shape.n, shape.k, 32)) << shape.n << " × " << shape.k;
    const auto weight = random.Fp8(int64_t{shape.n} * shape.k);
    const auto input = random.Fp8(int64_t{32} * shape.k);
    const DeviceArray<uint8_t> device_weight(weight), device_input(input);
    for (const int m : {1, 5, 8, 9, 24, 32}) {
      DeviceArray<uint16_t> output(int64_t{32} * shape.n);
      for (int run = 0; run < 2; ++run) {
        output.Poison();
        ASSERT_EQ(
            LaunchSmallGemm({device_weight.get(), device_input.get(), output.as<__nv_bfloat16>(), shape.n, shape.k, m},
                            nullptr),
            cudaSuccess);
        const auto out = output.Download();
        RelativeError error;
        for (int64_t i = 0; i < int64_t{32} * shape.n; ++i) {
          const bool written = out[i] != 0xffff;
          ASSERT_EQ(written, i < int64_t{m} * shape.n) << "element " << i;
        }
        for (int i = 0; i < 3000; ++i) {
          const int64_t row = random.Below(m);
          const int64_t column = random.Below(shape.n);
          double sum = 0;
          for (int k = 0; k < shape.k; ++k) {
            sum += double{Fp8ToFloat(weight[column * shape.k + k])} * Fp8ToFloat(input[row * shape.k + k]);
          }
          error.Add(Bf16ToFloat(out[row * shape.n + column]), sum);
        }
        EXPECT_LT(error.value(), 2.5e-3) << m << " × " << shape.n << " × " << shape.k;
      }
    }
  }
}

TEST(GemmTest, MatchesDouble) {
  Random random(FreshSeed());
  auto stream = CudaStream::Create();
  ASSERT_TRUE(stream.ok());
  auto gemm = Gemm::Create(stream->get());
  ASSERT_TRUE(gemm.ok()) << gemm.status();
  for (const int64_t rows : {1, 2, 3, 12, 40, 129, 300}) {
    CheckProduct(**gemm, {.n = 1024, .k = 2048, .fp8 = true}, rows, random);
    CheckProduct(**gemm, {.n = 960, .k = 576}, rows, random);
    CheckProduct(**gemm, {.n = 1000, .k = 576, .fp32_output = true}, rows, random);
  }
  CheckProduct(**gemm, {.n = 512, .k = 28672, .fp8 = true}, 32, random);
}

}  // namespace
}  // namespace baton::cuda
