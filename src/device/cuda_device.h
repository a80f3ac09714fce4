// A CUDA device as memory, streams and events, with errors as Status.
//
// Threading: a thread that uses a device calls SelectCudaDevice first; objects may then move between such threads.
// Ownership: each object frees what it holds; it must not outlive the use that the device still makes of it.
// Errors: Unavailable without a driver or device, FailedPrecondition for a device older than Hopper, ResourceExhausted
// when memory does not suffice, Internal for every other device error (which is final for the process).
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <string>
#include <utility>

#include "base/status.h"

namespace baton {

struct CudaDeviceInfo {
  std::string name;  // "NVIDIA H200"
  int32_t index = 0;
  int32_t multiprocessors = 0;
  int64_t memory_bytes = 0;
  int64_t free_bytes = 0;  // when asked
};

absl::Status CudaStatus(cudaError_t error, std::string_view call);
// Makes the device current for this thread. Refuses anything but Hopper (compute capability 9.0) by name.
absl::StatusOr<CudaDeviceInfo> SelectCudaDevice(int32_t index);

// A range of device memory, or (kPinned) of host memory that the device can read and write.
class CudaMemory {
 public:
  enum class Kind : uint8_t { kDevice, kPinned };
  CudaMemory() = default;
  CudaMemory(CudaMemory&& other) noexcept { *this = std::move(other); }
  CudaMemory& operator=(CudaMemory&& other) noexcept;
  ~CudaMemory();
  // `what` names the use in the error message. Contents are undefined.
  static absl::StatusOr<CudaMemory> Allocate(Kind kind, int64_t bytes, std::string_view what);

  uint8_t* data() const { return data_; }
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }
  int64_t bytes() const { return bytes_; }

 private:
  Kind kind_ = Kind::kDevice;
  uint8_t* data_ = nullptr;
  int64_t bytes_ = 0;
};

class CudaStream {
 public:
  CudaStream() = default;
  CudaStream(CudaStream&& other) noexcept : stream_(std::exchange(other.stream_, nullptr)) {}
  CudaStream& operator=(CudaStream&& other) noexcept {
    std::swap(stream_, other.stream_);
    return *this;
  }
  ~CudaStream();
  static absl::StatusOr<CudaStream> Create();
  // Its work begins before that of other streams which waits, too.
  static absl::StatusOr<CudaStream> CreateUrgent();
  cudaStream_t get() const { return stream_; }
  absl::Status Synchronize() const;

 private:
  cudaStream_t stream_ = nullptr;
};

class CudaEvent {
 public:
  CudaEvent() = default;
  CudaEvent(CudaEvent&& other) noexcept : event_(std::exchange(other.event_, nullptr)) {}
  CudaEvent& operator=(CudaEvent&& other) noexcept {
    std::swap(event_, other.event_);
    return *this;
  }
  ~CudaEvent();
  static absl::StatusOr<CudaEvent> Create(bool timing);
  cudaEvent_t get() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace baton

#define BATON_RETURN_IF_CUDA_ERROR(call) BATON_RETURN_IF_ERROR(::baton::CudaStatus((call), #call))
