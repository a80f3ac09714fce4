#include "device/cuda_ipc.h"

#include <cuda.h>

#include <cstring>

namespace baton {
namespace {

static_assert(sizeof(cudaIpcMemHandle_t) == sizeof(CudaIpcHandle::handle));
static_assert(sizeof(cudaUUID_t) == sizeof(CudaIpcHandle::gpu));

struct Allocation {
  uint64_t base = 0;
  int64_t bytes = 0;
};

// The whole allocation around an address. Only the driver's own interface tells; the runtime hands its function out.
absl::StatusOr<Allocation> FindAllocation(const uint8_t* address) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found;
  BATON_RETURN_IF_CUDA_ERROR(
      cudaGetDriverEntryPointByVersion("cuMemGetAddressRange", &function, 12000, cudaEnableDefault, &found));
  if (found != cudaDriverEntryPointSuccess || function == nullptr) {
    return Unavailable("the NVIDIA driver has no cuMemGetAddressRange; one for CUDA 13 is needed");
  }
  CUdeviceptr base = 0;
  size_t bytes = 0;
  const auto get_range = reinterpret_cast<CUresult (*)(CUdeviceptr*, size_t*, CUdeviceptr)>(function);
  if (const CUresult result = get_range(&base, &bytes, reinterpret_cast<CUdeviceptr>(address));
      result != CUDA_SUCCESS) {
    return InvalidArgument("no device allocation at this address (cuMemGetAddressRange: ", static_cast<int>(result),
                           ")");
  }
  return Allocation{.base = base, .bytes = static_cast<int64_t>(bytes)};
}

// An error of a call that changed nothing: the next call shall not report it again.
absl::Status Forgiven(cudaError_t error, std::string_view call) {
  cudaGetLastError();
  return CudaStatus(error, call);
}

// Index of the GPU among the visible ones.
absl::StatusOr<int32_t> FindDevice(const std::array<uint64_t, 2>& gpu) {
  int count = 0;
  BATON_RETURN_IF_CUDA_ERROR(cudaGetDeviceCount(&count));
  for (int32_t device = 0; device < count; ++device) {
    BATON_ASSIGN_OR_RETURN(const auto id, CudaDeviceId(device));
    if (id == gpu) return device;
  }
  return InvalidArgument("the memory is on a GPU that is none of the ", count,
                         " that this process sees; start both workers with the same CUDA_VISIBLE_DEVICES");
}

}  // namespace

absl::StatusOr<std::array<uint64_t, 2>> CudaDeviceId(int32_t device) {
  cudaDeviceProp properties;
  BATON_RETURN_IF_CUDA_ERROR(cudaGetDeviceProperties(&properties, device));
  std::array<uint64_t, 2> id;
  std::memcpy(id.data(), &properties.uuid, sizeof(id));
  return id;
}

absl::StatusOr<CudaIpcHandle> ExportCudaMemory(int32_t device, uint8_t* base, int64_t bytes) {
  BATON_RETURN_IF_CUDA_ERROR(cudaSetDevice(device));
  cudaPointerAttributes attributes;
  BATON_RETURN_IF_CUDA_ERROR(cudaPointerGetAttributes(&attributes, base));
  if (attributes.type != cudaMemoryTypeDevice || attributes.device != device) {
    return InvalidArgument("memory to export: expected memory of GPU ", device, ", found memory ",
                           attributes.type == cudaMemoryTypeDevice ? Cat("of GPU ", attributes.device) : "of the host");
  }
  BATON_ASSIGN_OR_RETURN(const Allocation allocation, FindAllocation(base));
  if (allocation.base != reinterpret_cast<uint64_t>(base) || bytes <= 0 || bytes > allocation.bytes) {
    return InvalidArgument("memory to export: expected an allocation from its start, found ", bytes, " bytes at ",
                           reinterpret_cast<uint64_t>(base) - allocation.base, " of ", allocation.bytes);
  }
  cudaIpcMemHandle_t handle;
  if (const cudaError_t error = cudaIpcGetMemHandle(&handle, base); error != cudaSuccess) {
    return Forgiven(error, "exporting device memory to other processes (cudaIpcGetMemHandle)");
  }
  CudaIpcHandle exported{.bytes = bytes};
  std::memcpy(exported.handle.data(), &handle, sizeof(handle));
  BATON_ASSIGN_OR_RETURN(exported.gpu, CudaDeviceId(device));
  return exported;
}

absl::StatusOr<CudaPeerMemory> CudaPeerMemory::Open(int32_t device, const CudaIpcHandle& handle) {
  BATON_ASSIGN_OR_RETURN(const int32_t owner, FindDevice(handle.gpu));
  if (owner != device) {
    int reaches = 0;
    BATON_RETURN_IF_CUDA_ERROR(cudaDeviceCanAccessPeer(&reaches, device, owner));
    if (reaches == 0) {
      return FailedPrecondition("GPU ", device, " cannot write the memory of GPU ", owner,
                                " (no peer access: nvidia-smi topo -p2p w shows the pairs); place both workers on GPUs",
                                " that can, with --gpus");
    }
  }
  BATON_RETURN_IF_CUDA_ERROR(cudaSetDevice(device));
  cudaIpcMemHandle_t raw;
  std::memcpy(&raw, handle.handle.data(), sizeof(raw));
  void* data = nullptr;
  if (const cudaError_t error = cudaIpcOpenMemHandle(&data, raw, cudaIpcMemLazyEnablePeerAccess);
      error != cudaSuccess) {
    return InvalidArgument(Message(Forgiven(error, "opening the memory of another process (cudaIpcOpenMemHandle)")),
                           "; is that process still there, and on this machine?");
  }
  CudaPeerMemory memory;
  memory.device_ = device;
  memory.data_ = static_cast<uint8_t*>(data);
  memory.bytes_ = handle.bytes;
  BATON_ASSIGN_OR_RETURN(const Allocation allocation, FindAllocation(memory.data_));
  if (handle.bytes <= 0 || handle.bytes > allocation.bytes) {
    return InvalidArgument("the memory of another process: expected ", handle.bytes, " bytes, found ",
                           allocation.bytes);
  }
  return memory;
}

CudaPeerMemory::~CudaPeerMemory() {
  if (data_ == nullptr) return;
  cudaSetDevice(device_);
  cudaIpcCloseMemHandle(data_);
}

}  // namespace baton
