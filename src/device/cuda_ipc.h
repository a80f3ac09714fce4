// Device memory that another process on this machine can write: CUDA's inter-process handles.
//
// A whole allocation of cudaMalloc is exported once; the other process opens it on its own GPU, or on the same one.
// What was opened stays mapped when the exporting process dies, until it is closed here.
//
// Threading: any thread. Both calls make `device` current for the calling thread. Ownership: a CudaPeerMemory closes
// itself; no copy may be under way then. Errors: InvalidArgument for memory that is no whole device allocation and for
// a handle that does not fit; FailedPrecondition where this GPU cannot reach the other one; as CudaStatus otherwise.
#pragma once

#include <array>
#include <cstdint>
#include <utility>

#include "base/status.h"
#include "device/cuda_device.h"

namespace baton {

struct CudaIpcHandle {
  std::array<uint64_t, 8> handle{};  // opaque
  std::array<uint64_t, 2> gpu{};     // its universal identifier
  int64_t bytes = 0;
};

// The identifier of a visible GPU, the same in every process.
absl::StatusOr<std::array<uint64_t, 2>> CudaDeviceId(int32_t device);
absl::StatusOr<CudaIpcHandle> ExportCudaMemory(int32_t device, uint8_t* base, int64_t bytes);

class CudaPeerMemory {
 public:
  CudaPeerMemory() = default;
  CudaPeerMemory(CudaPeerMemory&& other) noexcept { *this = std::move(other); }
  CudaPeerMemory& operator=(CudaPeerMemory&& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~CudaPeerMemory();
  // Maps another process's memory for copies by `device`. Checks that the allocation is as large as promised.
  static absl::StatusOr<CudaPeerMemory> Open(int32_t device, const CudaIpcHandle& handle);

  uint8_t* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  int32_t device_ = 0;
  uint8_t* data_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace baton
