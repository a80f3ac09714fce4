#include "backend/ceilings.h"

#include <algorithm>
#include <functional>
#include <vector>

#include "backend/cuda/gemm.h"
#include "backend/cuda/kernels.h"
#include "device/cuda_device.h"

namespace baton {
namespace cuda {
namespace {

using Kind = CudaMemory::Kind;
constexpr int64_t kReadBytes = int64_t{4} << 30;  // many times the L2 cache
constexpr int kReads = 7;
constexpr double kSustainedSeconds = 0.4;  // until the power limit has bitten

// Milliseconds of what `enqueue` enqueues.
absl::StatusOr<double> TimeOnDevice(cudaStream_t stream, const std::function<absl::Status()>& enqueue) {
  BATON_ASSIGN_OR_RETURN(const CudaEvent begin, CudaEvent::Create(true));
  BATON_ASSIGN_OR_RETURN(const CudaEvent end, CudaEvent::Create(true));
  BATON_RETURN_IF_CUDA_ERROR(cudaEventRecord(begin.get(), stream));
  BATON_RETURN_IF_ERROR(enqueue());
  BATON_RETURN_IF_CUDA_ERROR(cudaEventRecord(end.get(), stream));
  BATON_RETURN_IF_CUDA_ERROR(cudaEventSynchronize(end.get()));
  float milliseconds = 0;
  BATON_RETURN_IF_CUDA_ERROR(cudaEventElapsedTime(&milliseconds, begin.get(), end.get()));
  return double{milliseconds};
}

absl::StatusOr<double> ReadBytesPerSecond(int32_t multiprocessors, cudaStream_t stream) {
  BATON_ASSIGN_OR_RETURN(const CudaMemory memory, CudaMemory::Allocate(Kind::kDevice, kReadBytes, "measuring reads"));
  BATON_ASSIGN_OR_RETURN(const CudaMemory taken, CudaMemory::Allocate(Kind::kDevice, 4, "measuring reads"));
  BATON_RETURN_IF_CUDA_ERROR(LaunchFillFp8(memory.data(), kReadBytes, 1, 1.0f, stream));
  std::vector<double> times;
  for (int i = 0; i < kReads; ++i) {
    BATON_RETURN_IF_CUDA_ERROR(cudaMemsetAsync(taken.data(), 0, taken.bytes(), stream));
    BATON_ASSIGN_OR_RETURN(
        const double milliseconds, TimeOnDevice(stream, [&] {
          return CudaStatus(LaunchReadMemory(memory.data(), kReadBytes, taken.as<uint32_t>(), multiprocessors, stream),
                            "reading memory");
        }));
    times.push_back(milliseconds);
  }
  std::sort(times.begin(), times.end());
  return kReadBytes / (times[kReads / 2] * 1e-3);
}

// The best algorithm's rate once the device is warm, on random numbers.
absl::StatusOr<double> OpsPerSecond(Gemm& gemm, const GemmShape& shape, int64_t rows, cudaStream_t stream) {
  const int64_t element = shape.fp8 ? 1 : 2;
  BATON_ASSIGN_OR_RETURN(const CudaMemory weight,
                         CudaMemory::Allocate(Kind::kDevice, shape.n * shape.k * element, "measuring products"));
  BATON_ASSIGN_OR_RETURN(const CudaMemory input,
                         CudaMemory::Allocate(Kind::kDevice, rows * shape.k * element, "measuring products"));
  BATON_ASSIGN_OR_RETURN(const CudaMemory output,
                         CudaMemory::Allocate(Kind::kDevice, rows * shape.n * 2, "measuring products"));
  for (const CudaMemory* memory : {&weight, &input}) {
    const int64_t count = memory->bytes() / element;
    BATON_RETURN_IF_CUDA_ERROR(shape.fp8 ? LaunchFillFp8(memory->data(), count, 2, 1.0f, stream)
                                         : LaunchFillBf16(memory->as<__nv_bfloat16>(), count, 2, 1.0f, stream));
  }
  BATON_ASSIGN_OR_RETURN(const float best_us, gemm.Tune(shape, rows, {weight.data()}, input.data(), output.data()));
  const int count = static_cast<int>(kSustainedSeconds * 1e6 / std::max(best_us, 1.0f)) + 1;
  double milliseconds = 0;
  for (int half = 0; half < 2; ++half) {  // the second one counts
    BATON_ASSIGN_OR_RETURN(milliseconds, TimeOnDevice(stream, [&] {
                             for (int i = 0; i < count; ++i) {
                               BATON_RETURN_IF_ERROR(gemm.Run(shape, weight.data(), input.data(), rows, output.data()));
                             }
                             return absl::OkStatus();
                           }));
  }
  return 2.0 * static_cast<double>(shape.n * shape.k) * static_cast<double>(rows) * count / (milliseconds * 1e-3);
}

}  // namespace
}  // namespace cuda

absl::StatusOr<Ceilings> MeasureCudaCeilings(int32_t device) {
  BATON_ASSIGN_OR_RETURN(const CudaDeviceInfo info, SelectCudaDevice(device));
  BATON_ASSIGN_OR_RETURN(const CudaStream stream, CudaStream::Create());
  BATON_ASSIGN_OR_RETURN(const std::unique_ptr<cuda::Gemm> gemm, cuda::Gemm::Create(stream.get()));
  Ceilings ceilings;
  BATON_ASSIGN_OR_RETURN(ceilings.read_bytes_per_second, cuda::ReadBytesPerSecond(info.multiprocessors, stream.get()));
  BATON_ASSIGN_OR_RETURN(ceilings.gemm_ops_per_second,
                         cuda::OpsPerSecond(*gemm, {.n = 57344, .k = 8192, .fp8 = true}, 3072, stream.get()));
  BATON_ASSIGN_OR_RETURN(ceilings.attention_ops_per_second,
                         cuda::OpsPerSecond(*gemm, {.n = 8192, .k = 8192}, 8192, stream.get()));
  return ceilings;
}

}  // namespace baton
