// Weights on the device, as the backend's operations take them.
//
// Threading: one thread. Ownership: a weight frees its memory. Errors: Unimplemented for a type without a kernel, with
// its name; InvalidArgument for shapes that do not fit together; ResourceExhausted.
#pragma once

#include <map>
#include <memory>
#include <span>

#include "backend/backend.h"
#include "backend/cuda/gemm.h"
#include "backend/cuda/kernels.h"
#include "device/cuda_device.h"

namespace baton::cuda {

struct CudaLinear : LinearWeight {
  GemmShape shape;           // fp32_output is left false; the head sets it for its call
  CudaMemory data;           // [n][k], E4M3 or BF16
  CudaMemory channel_scale;  // [n] FP16 in units of scale_unit; FP8 only
  float scale_unit = 1.0f;   // a power of two
  CudaMemory bias;           // [n] floats, or empty
  float input_scale = 0;     // FP8: of its input, whatever the token; 0: each token has its own
  // What the reader of this layer's sums multiplies with, `token` being the scales of its input rows.
  RowScales Scales(const float* token) const {
    return {shape.fp8 ? token : nullptr, channel_scale.as<__half>(), scale_unit, bias.as<float>()};
  }
};

struct CudaVector : VectorWeight {
  CudaMemory data;  // [width] floats
  int32_t width = 0;
};

// Copies host memory (of any kind) to the device through two pinned buffers, so that reading and copying overlap; or
// makes on the device what has a recipe.
class Uploader {
 public:
  static absl::StatusOr<Uploader> Create(cudaStream_t stream);
  absl::Status Copy(void* device, const void* host, int64_t bytes);
  absl::Status Make(void* device, const TensorRecipe& recipe, int64_t elements);
  absl::Status Finish();
  cudaStream_t stream() const { return stream_; }

 private:
  static constexpr int64_t kBufferBytes = 32 << 20;
  cudaStream_t stream_ = nullptr;
  CudaMemory buffers_[2];
  CudaEvent free_[2];
  int next_ = 0;
  std::map<const uint8_t*, CudaMemory> tables_;  // of recipes, by their host address
};

absl::StatusOr<std::unique_ptr<CudaLinear>> UploadLinear(std::span<const LinearSource> sources, Uploader& uploader);
absl::StatusOr<std::unique_ptr<CudaVector>> UploadVector(const TensorView& source, Uploader& uploader);

}  // namespace baton::cuda
