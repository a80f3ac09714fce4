#include "backend/cuda/gpu_test_support.h"
#include "backend/cuda/kernels.h"

namespace baton::cuda {
namespace {

// A row kernel's result in either format, as doubles with scales applied.
struct Output {
  Output(bool fp8, int64_t rows, int64_t width)
      : fp8(fp8), width(width), codes(rows * width), scales(rows), plain(rows * width) {}
  RowOutput Arguments() const {
    return fp8 ? RowOutput{codes.get(), scales.get(), nullptr} : RowOutput{nullptr, nullptr, plain.as<__nv_bfloat16>()};
  }
  bool fp8;
  int64_t width;
  DeviceArray<uint8_t> codes;
  DeviceArray<float> scales;
  DeviceArray<uint16_t> plain;
};

// ‖out − reference‖ / ‖reference‖ of BF16. Of FP8: each element must be the reference rounded to E4M3, with a slack of
// 15 % of half a step for the BF16 rounding before it (a value beside a boundary may go either way); infinite when one
// is not.
double ErrorOf(const Output& output, const std::vector<std::vector<double>>& reference) {
  RelativeError error;
  const std::vector<uint8_t> codes = output.codes.Download();
  const std::vector<float> scales = output.scales.Download();
  const std::vector<uint16_t> plain = output.plain.Download();
  for (size_t row = 0; row < reference.size(); ++row) {
    double peak = 0;
    for (double x : reference[row]) peak = std::max(peak, std::fabs(x));
    const double scale = std::max(peak, 1e-10) / 448;
    if (output.fp8 && !(std::fabs(scales[row] - scale) < 5e-3 * scale)) return std::numeric_limits<double>::infinity();
    for (int64_t k = 0; k < output.width; ++k) {
      const int64_t at = static_cast<int64_t>(row) * output.width + k;
      if (!output.fp8) {
        error.Add(Bf16ToFloat(plain[at]), reference[row][k]);
        continue;
      }
      const double wanted = reference[row][k] / scales[row];
      const double step = std::exp2(std::max(std::floor(std::log2(std::fabs(wanted) + 1e-30)), -6.0) - 3);
      const double got = Fp8ToFloat(codes[at]);
      if (!(std::fabs(got - wanted) < 0.575 * step + 0.004 * std::fabs(wanted))) {
        return std::numeric_limits<double>::infinity();
      }
    }
  }
  return error.value();
}

constexpr double kTolerance = 4e-3;

class RowsTest : public testing::TestWithParam<std::tuple<int, int, bool>> {};

TEST_P(RowsTest, NormAddsScaledDeltaAndQuantizes) {
  const auto [rows, width, fp8] = GetParam();
  Random random(FreshSeed());
  const auto residual = random.Bf16(int64_t{rows} * width);
  const auto delta = random.Bf16(int64_t{rows} * width, 100.0f);
  const auto token = random.Floats(rows, 0.005f, 0.02f);
  const ChannelScales channels(random.Floats(width, 0.5f, 1.5f));
  const std::vector<float>& channel = channels.values;
  const auto bias = random.Floats(width, -0.5f, 0.5f);
  const auto weight = random.Floats(width, 0.5f, 1.5f);
  DeviceArray<uint16_t> device_residual(residual);
  const DeviceArray<uint16_t> device_delta(delta);
  const DeviceArray<float> device_token(token), device_bias(bias), device_weight(weight);
  Output output(fp8, rows, width);
  ASSERT_EQ(LaunchRmsNorm({.residual = device_residual.as<__nv_bfloat16>(),
                           .delta = device_delta.as<__nv_bfloat16>(),
                           .delta_scales = {device_token.get(), channels.device.as<__half>(), ChannelScales::kUnit,
                                            device_bias.get()},
                           .weight = device_weight.get(),
                           .source_rows = nullptr,
                           .output = output.Arguments(),
                           .rows = rows,
                           .width = width,
                           .epsilon = 1e-5f,
                           .write_residual = true},
                          nullptr),
            cudaSuccess);
  std::vector<std::vector<double>> reference(rows, std::vector<double>(width));
  RelativeError residual_error;
  const std::vector<uint16_t> new_residual = device_residual.Download();
  for (int row = 0; row < rows; ++row) {
    double sum = 0;
    for (int k = 0; k < width; ++k) {
      const int64_t at = int64_t{row} * width + k;
      const double x = Bf16ToFloat(residual[at]) + (Bf16ToFloat(delta[at]) * double{token[row]} * channel[k] + bias[k]);
      residual_error.Add(Bf16ToFloat(new_residual[at]), x);
      reference[row][k] =
          Bf16ToFloat(new_residual[at]);  // checked by itself; the norm continues from the rounded value
      sum += reference[row][k] * reference[row][k];
    }
    for (int k = 0; k < width; ++k) reference[row][k] *= weight[k] / std::sqrt(sum / width + 1e-5);
  }
  EXPECT_LT(residual_error.value(), 2.5e-3);
  EXPECT_LT(ErrorOf(output, reference), kTolerance);
}

TEST_P(RowsTest, SwiGlu) {
  const auto [rows, width, fp8] = GetParam();
  Random random(FreshSeed());
  const auto input = random.Bf16(int64_t{rows} * 2 * width, 100.0f);
  const auto token = random.Floats(rows, 0.005f, 0.02f);
  const ChannelScales channels(random.Floats(2 * width, 0.5f, 1.5f));
  const std::vector<float>& channel = channels.values;
  const DeviceArray<uint16_t> device_input(input);
  const DeviceArray<float> device_token(token);
  Output output(fp8, rows, width);
  ASSERT_EQ(LaunchSwiGlu({.gate_up = device_input.as<__nv_bfloat16>(),
                          .scales = {device_token.get(), channels.device.as<__half>(), ChannelScales::kUnit, nullptr},
                          .output = output.Arguments(),
                          .rows = rows,
                          .width = width},
                         nullptr),
            cudaSuccess);
  std::vector<std::vector<double>> reference(rows, std::vector<double>(width));
  for (int row = 0; row < rows; ++row) {
    for (int k = 0; k < width; ++k) {
      const int64_t at = int64_t{row} * 2 * width + k;
      const double gate = Bf16ToFloat(input[at]) * double{token[row]} * channel[k];
      const double up = Bf16ToFloat(input[at + width]) * double{token[row]} * channel[width + k];
      reference[row][k] = gate / (1 + std::exp(-gate)) * up;
    }
  }
  EXPECT_LT(ErrorOf(output, reference), kTolerance);
}

TEST_P(RowsTest, Quantize) {
  const auto [rows, width, fp8] = GetParam();
  Random random(FreshSeed());
  const auto input = random.Bf16(int64_t{rows} * width);
  const DeviceArray<uint16_t> device_input(input);
  Output output(fp8, rows, width);
  ASSERT_EQ(LaunchQuantize(
                {.input = device_input.as<__nv_bfloat16>(), .output = output.Arguments(), .rows = rows, .width = width},
                nullptr),
            cudaSuccess);
  std::vector<std::vector<double>> reference(rows, std::vector<double>(width));
  for (int row = 0; row < rows; ++row) {
    for (int k = 0; k < width; ++k) reference[row][k] = Bf16ToFloat(input[int64_t{row} * width + k]);
  }
  EXPECT_LT(ErrorOf(output, reference), kTolerance);
}

// A given scale is taken as it is, whatever the row holds: what is beyond 448 times it becomes the largest number.
TEST_P(RowsTest, QuantizeByAStaticScaleSaturates) {
  const auto [rows, width, fp8] = GetParam();
  Random random(FreshSeed());
  const auto input = random.Bf16(int64_t{rows} * width);
  const DeviceArray<uint16_t> device_input(input);
  Output output(fp8, rows, width);
  RowOutput arguments = output.Arguments();
  arguments.static_scale = 5.0f / 448;
  constexpr float kFactor = 3.0f;  // as of V's scale: about every tenth element is above 5
  ASSERT_EQ(LaunchQuantize({.input = device_input.as<__nv_bfloat16>(),
                            .output = arguments,
                            .rows = rows,
                            .width = width,
                            .factor = kFactor},
                           nullptr),
            cudaSuccess);
  const std::vector<uint8_t> codes = output.codes.Download();
  const std::vector<uint16_t> plain = output.plain.Download();
  RelativeError error;
  int64_t saturated = 0;
  for (int64_t i = 0; i < int64_t{rows} * width; ++i) {
    const float wanted = Bf16ToFloat(input[i]) * kFactor;
    if (!fp8) {
      error.Add(Bf16ToFloat(plain[i]), wanted);
      continue;
    }
    saturated += (codes[i] & 0x7f) == 0x7e;
    error.Add(Fp8ToFloat(codes[i]), Fp8ToFloat(FloatToFp8(wanted / (5.0f / 448))));
  }
  EXPECT_LT(error.value(), kTolerance);
  if (!fp8) return;
  EXPECT_GT(saturated, int64_t{rows} * width / 30);
  for (const float scale : output.scales.Download()) EXPECT_EQ(scale, 5.0f / 448);
}

INSTANTIATE_TEST_SUITE_P(Shapes, RowsTest,
                         testing::Combine(testing::Values(1, 7, 100), testing::Values(576, 1536, 4096, 8192, 28672),
                                          testing::Bool()));

// Many rows: a CTA goes on from row to row. The widths of 7,168 and its multiples have a SwiGLU kernel of their own.
INSTANTIATE_TEST_SUITE_P(ManyRows, RowsTest,
                         testing::Combine(testing::Values(300), testing::Values(7168, 14336, 28672), testing::Bool()));
INSTANTIATE_TEST_SUITE_P(MoreRows, RowsTest,
                         testing::Combine(testing::Values(1100), testing::Values(2000, 4096, 8192), testing::Bool()));

TEST(RowsTest, NormTakesNamedRowsAndLeavesTheResidual) {
  Random random(FreshSeed());
  constexpr int kWidth = 2048;
  const auto residual = random.Bf16(10 * kWidth);
  const std::vector<int32_t> rows = {9, 0, 4};
  DeviceArray<uint16_t> device_residual(residual);
  const DeviceArray<int32_t> device_rows(rows);
  const DeviceArray<float> weight(std::vector<float>(kWidth, 1.0f));
  Output output(false, 3, kWidth);
  ASSERT_EQ(LaunchRmsNorm({.residual = device_residual.as<__nv_bfloat16>(),
                           .delta = nullptr,
                           .delta_scales = {},
                           .weight = weight.get(),
                           .source_rows = device_rows.get(),
                           .output = output.Arguments(),
                           .rows = 3,
                           .width = kWidth,
                           .epsilon = 1e-5f,
                           .write_residual = false},
                          nullptr),
            cudaSuccess);
  std::vector<std::vector<double>> reference(3, std::vector<double>(kWidth));
  for (int i = 0; i < 3; ++i) {
    double sum = 0;
    for (int k = 0; k < kWidth; ++k) {
      reference[i][k] = Bf16ToFloat(residual[rows[i] * kWidth + k]);
      sum += reference[i][k] * reference[i][k];
    }
    for (double& x : reference[i]) x /= std::sqrt(sum / kWidth + 1e-5);
  }
  EXPECT_LT(ErrorOf(output, reference), kTolerance);
  EXPECT_EQ(device_residual.Download(), residual);
}

// The kernel of many rows gives each row the same bits as the one of few.
TEST(RowsTest, SwiGluOfARowDoesNotDependOnTheirNumber) {
  Random random(FreshSeed());
  constexpr int kRows = 150;
  constexpr int kWidth = 14336;
  const DeviceArray<uint16_t> input(random.Bf16(int64_t{kRows} * 2 * kWidth, 100.0f));
  const DeviceArray<float> token(random.Floats(kRows, 0.005f, 0.02f));
  const ChannelScales channels(random.Floats(2 * kWidth, 0.5f, 1.5f));
  Output many(true, kRows, kWidth);
  Output few(true, kRows, kWidth);
  auto run = [&](const Output& output, int first, int rows) {
    RowOutput out = output.Arguments();
    out.fp8 += int64_t{first} * kWidth;
    out.scale += first;
    EXPECT_EQ(
        LaunchSwiGlu({.gate_up = input.as<__nv_bfloat16>() + int64_t{first} * 2 * kWidth,
                      .scales = {token.get() + first, channels.device.as<__half>(), ChannelScales::kUnit, nullptr},
                      .output = out,
                      .rows = rows,
                      .width = kWidth},
                     nullptr),
        cudaSuccess);
  };
  run(many, 0, kRows);
  for (int row = 0; row < kRows; row += 10) run(few, row, 10);
  EXPECT_EQ(many.scales.Download(), few.scales.Download());
  EXPECT_EQ(many.codes.Download(), few.codes.Download());
}

TEST(RowsTest, EmbedGathersRows) {
  Random random(FreshSeed());
  constexpr int kWidth = 576;
  const auto table = random.Bf16(100 * kWidth);
  const std::vector<RowInfo> info = {{99, 0, 0}, {0, 0, 0}, {57, 0, 0}};
  const DeviceArray<uint16_t> device_table(table);
  const DeviceArray<RowInfo> device_info(info);
  DeviceArray<uint16_t> residual(3 * kWidth);
  ASSERT_EQ(
      LaunchEmbed({device_table.as<__nv_bfloat16>(), device_info.get(), residual.as<__nv_bfloat16>(), 3, kWidth, 100},
                  nullptr),
      cudaSuccess);
  const auto out = residual.Download();
  for (int row = 0; row < 3; ++row) {
    for (int k = 0; k < kWidth; ++k) ASSERT_EQ(out[row * kWidth + k], table[info[row].token * kWidth + k]);
  }
}

}  // namespace
}  // namespace baton::cuda
