#include "backend/cuda/small_gemms.h"

#include <algorithm>

#include "backend/cuda/kernels.h"

namespace baton::cuda {
namespace {

using Kind = CudaMemory::Kind;
constexpr int64_t kReadBytes = int64_t{1} << 30;
constexpr int kReads = 6;
constexpr float kSlowest = 0.8f;  // of the average; anything below was disturbed
constexpr float kFastest = 1.25f;

}  // namespace

absl::StatusOr<std::vector<float>> MeasureReadSpeeds(int32_t multiprocessors, cudaStream_t stream) {
  BATON_ASSIGN_OR_RETURN(const CudaMemory memory, CudaMemory::Allocate(Kind::kDevice, kReadBytes, "measuring reads"));
  BATON_ASSIGN_OR_RETURN(const CudaMemory state,
                         CudaMemory::Allocate(Kind::kDevice, 4 * (1 + multiprocessors), "measuring reads"));
  std::vector<uint32_t> counts(1 + multiprocessors);
  std::vector<float> speeds(multiprocessors, 0.0f);
  for (int i = 0; i <= kReads; ++i) {
    BATON_RETURN_IF_CUDA_ERROR(cudaMemsetAsync(state.data(), 0, state.bytes(), stream));
    BATON_RETURN_IF_CUDA_ERROR(
        LaunchReadMemory(memory.data(), kReadBytes, state.as<uint32_t>(), multiprocessors, stream));
    BATON_RETURN_IF_CUDA_ERROR(
        cudaMemcpyAsync(counts.data(), state.data(), state.bytes(), cudaMemcpyDeviceToHost, stream));
    BATON_RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(stream));
    if (i == 0) continue;  // the clocks rise
    for (int32_t m = 0; m < multiprocessors; ++m) speeds[m] += static_cast<float>(counts[1 + m]);
  }
  float sum = 0;
  for (const float speed : speeds) sum += speed;
  for (float& speed : speeds) {
    speed = std::clamp(speed * static_cast<float>(multiprocessors) / std::max(sum, 1.0f), kSlowest, kFastest);
  }
  return speeds;
}

absl::StatusOr<SmallGemms> SmallGemms::Create(const std::vector<GemmShape>& shapes, int64_t calls,
                                              const CudaDeviceInfo& device, cudaStream_t stream) {
  SmallGemms made;
  if (device.multiprocessors > 32 * kClaimWords) return made;
  made.multiprocessors_ = device.multiprocessors;
  BATON_ASSIGN_OR_RETURN(const std::vector<float> speeds, MeasureReadSpeeds(device.multiprocessors, stream));
  for (const GemmShape& shape : shapes) {
    if (!shape.fp8 || !HasSmallGemm(shape.n, shape.k, 1, device.multiprocessors)) continue;
    const std::vector<int32_t> rows = SmallGemmRows(shape.n, shape.k, speeds);
    const int64_t bytes = static_cast<int64_t>(rows.size() * sizeof(rows[0]));
    CudaMemory& table = made.row_begins_[{shape.n, shape.k}];
    BATON_ASSIGN_OR_RETURN(table, CudaMemory::Allocate(Kind::kDevice, bytes, "rows of products"));
    BATON_RETURN_IF_CUDA_ERROR(cudaMemcpy(table.data(), rows.data(), bytes, cudaMemcpyHostToDevice));
  }
  BATON_ASSIGN_OR_RETURN(made.claims_, CudaMemory::Allocate(Kind::kDevice, calls * kClaimWords * 4, "claims"));
  return made;
}

bool SmallGemms::Has(const GemmShape& shape, int64_t rows) const {
  return shape.fp8 && rows <= kSmallGemmRows && row_begins_.contains({shape.n, shape.k});
}

absl::Status SmallGemms::BeginStep(cudaStream_t stream) {
  calls_ = 0;
  if (claims_.bytes() == 0) return absl::OkStatus();
  return CudaStatus(cudaMemsetAsync(claims_.data(), 0, claims_.bytes(), stream), "clearing claims");
}

absl::Status SmallGemms::Run(const GemmShape& shape, const void* weight, const void* input, int64_t rows, void* output,
                             cudaStream_t stream) {
  const int64_t call = calls_++;
  if ((call + 1) * kClaimWords * 4 > claims_.bytes()) return Internal("more products in a step than were reserved");
  return CudaStatus(LaunchSmallGemm({.weight = static_cast<const uint8_t*>(weight),
                                     .input = static_cast<const uint8_t*>(input),
                                     .output = static_cast<__nv_bfloat16*>(output),
                                     .row_begin = row_begins_.at({shape.n, shape.k}).as<int32_t>(),
                                     .claims = claims_.as<uint32_t>() + call * kClaimWords,
                                     .n = static_cast<int32_t>(shape.n),
                                     .k = static_cast<int32_t>(shape.k),
                                     .m = static_cast<int32_t>(rows),
                                     .multiprocessors = multiprocessors_},
                                    stream),
                    "linear layer");
}

}  // namespace baton::cuda
