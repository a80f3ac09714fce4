#include "device/cuda_device.h"

namespace baton {

absl::Status CudaStatus(cudaError_t error, std::string_view call) {
  if (error == cudaSuccess) return absl::OkStatus();
  const std::string message = Cat(call, ": ", cudaGetErrorString(error));
  switch (error) {
    case cudaErrorMemoryAllocation:
      return ResourceExhausted(message);
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
      return Unavailable(message, "; an NVIDIA driver for CUDA 13 and a Hopper GPU are needed");
    default:
      return Internal(message);
  }
}

absl::StatusOr<CudaDeviceInfo> SelectCudaDevice(int32_t index) {
  int count = 0;
  BATON_RETURN_IF_CUDA_ERROR(cudaGetDeviceCount(&count));
  if (index < 0 || index >= count) return InvalidArgument("CUDA device ", index, " of ", count, " does not exist");
  cudaDeviceProp properties;
  BATON_RETURN_IF_CUDA_ERROR(cudaGetDeviceProperties(&properties, index));
  if (properties.major != 9 || properties.minor != 0) {
    return FailedPrecondition("CUDA device ", index, " is a ", properties.name, " (compute capability ",
                              properties.major, ".", properties.minor,
                              "); this backend needs a Hopper GPU (9.0: H100, H200, GH200)");
  }
  BATON_RETURN_IF_CUDA_ERROR(cudaSetDevice(index));
  size_t free = 0;
  size_t total = 0;
  BATON_RETURN_IF_CUDA_ERROR(cudaMemGetInfo(&free, &total));
  return CudaDeviceInfo{.name = properties.name,
                        .index = index,
                        .multiprocessors = properties.multiProcessorCount,
                        .memory_bytes = static_cast<int64_t>(total),
                        .free_bytes = static_cast<int64_t>(free)};
}

CudaMemory& CudaMemory::operator=(CudaMemory&& other) noexcept {
  std::swap(kind_, other.kind_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

CudaMemory::~CudaMemory() {
  if (data_ == nullptr) return;
  if (kind_ == Kind::kDevice) {
    cudaFree(data_);
  } else {
    cudaFreeHost(data_);
  }
}

absl::StatusOr<CudaMemory> CudaMemory::Allocate(Kind kind, int64_t bytes, std::string_view what) {
  CudaMemory memory;
  memory.kind_ = kind;
  void* data = nullptr;
  const size_t size = static_cast<size_t>(bytes > 0 ? bytes : 1);
  const cudaError_t error = kind == Kind::kDevice ? cudaMalloc(&data, size) : cudaMallocHost(&data, size);
  if (error != cudaSuccess) {
    cudaGetLastError();  // an allocation that failed is no lasting error
    return CudaStatus(
        error, Cat("allocating ", bytes,
                   kind == Kind::kDevice ? " bytes of device memory for " : " bytes of pinned memory for ", what));
  }
  memory.data_ = static_cast<uint8_t*>(data);
  memory.bytes_ = bytes;
  return memory;
}

CudaStream::~CudaStream() {
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

absl::StatusOr<CudaStream> CudaStream::Create() {
  CudaStream stream;
  BATON_RETURN_IF_CUDA_ERROR(cudaStreamCreateWithFlags(&stream.stream_, cudaStreamNonBlocking));
  return stream;
}

absl::StatusOr<CudaStream> CudaStream::CreateUrgent() {
  int lowest = 0;
  int highest = 0;
  BATON_RETURN_IF_CUDA_ERROR(cudaDeviceGetStreamPriorityRange(&lowest, &highest));
  CudaStream stream;
  BATON_RETURN_IF_CUDA_ERROR(cudaStreamCreateWithPriority(&stream.stream_, cudaStreamNonBlocking, highest));
  return stream;
}

absl::Status CudaStream::Synchronize() const { return CudaStatus(cudaStreamSynchronize(stream_), "device work"); }

CudaEvent::~CudaEvent() {
  if (event_ != nullptr) cudaEventDestroy(event_);
}

absl::StatusOr<CudaEvent> CudaEvent::Create(bool timing) {
  CudaEvent event;
  BATON_RETURN_IF_CUDA_ERROR(
      cudaEventCreateWithFlags(&event.event_, timing ? cudaEventDefault : cudaEventDisableTiming));
  return event;
}

}  // namespace baton
