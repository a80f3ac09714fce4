#include "device/cuda_nvml.h"

#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <array>

#include "device/cuda_device.h"
#include "device/cuda_library.h"

namespace baton {
namespace {

// NVML's binary interface, as its reference describes it (docs.nvidia.com/deploy/nvml-api): stable since version 2 of
// these functions. Every function returns a number, 0 for success.
using NvmlDevice = void*;
struct NvmlMemory {
  unsigned version;
  unsigned long long total, reserved, free, used;
};
struct NvmlUtilization {
  unsigned gpu, memory;  // percent of the last sampling period
};
constexpr unsigned kMemoryVersion2 = sizeof(NvmlMemory) | (2u << 24);
constexpr int kGpuTemperature = 0;
constexpr unsigned kMostLinks = 18;

}  // namespace

struct Nvml::Functions {
  int (*init)();
  int (*driver_version)(char* version, unsigned length);
  int (*handle)(const char* pci_bus_id, NvmlDevice* device);
  int (*name)(NvmlDevice device, char* name, unsigned length);
  int (*memory)(NvmlDevice device, NvmlMemory* memory);
  int (*utilization)(NvmlDevice device, NvmlUtilization* utilization);
  int (*power)(NvmlDevice device, unsigned* milliwatts);
  int (*temperature)(NvmlDevice device, int sensor, unsigned* celsius);
  int (*pcie_generation)(NvmlDevice device, unsigned* generation);
  int (*pcie_lanes)(NvmlDevice device, unsigned* lanes);
  int (*link_state)(NvmlDevice device, unsigned link, unsigned* active);
};

absl::Status Nvml::Open() {
  BATON_ASSIGN_OR_RETURN(void* handle, OpenCudaLibrary("libnvidia-ml.so.1", "it comes with the NVIDIA driver", path_));
  auto* functions = new Functions;  // for the process's life
  functions_ = functions;
  const char* missing = nullptr;
  const auto load = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(handle, name));
    if (function == nullptr) missing = name;
  };
  load(functions->init, "nvmlInit_v2");
  load(functions->driver_version, "nvmlSystemGetDriverVersion");
  load(functions->handle, "nvmlDeviceGetHandleByPciBusId_v2");
  load(functions->name, "nvmlDeviceGetName");
  load(functions->memory, "nvmlDeviceGetMemoryInfo_v2");
  load(functions->utilization, "nvmlDeviceGetUtilizationRates");
  load(functions->power, "nvmlDeviceGetPowerUsage");
  load(functions->temperature, "nvmlDeviceGetTemperature");
  load(functions->pcie_generation, "nvmlDeviceGetCurrPcieLinkGeneration");
  load(functions->pcie_lanes, "nvmlDeviceGetCurrPcieLinkWidth");
  load(functions->link_state, "nvmlDeviceGetNvLinkState");
  if (missing != nullptr)
    return FailedPrecondition(path_, " has no function ", missing, "; a driver for CUDA 13 has it");
  if (const int error = functions->init(); error != 0) {
    return Unavailable(path_, " cannot be used: NVML's error ", error, error == 9 ? ", no driver is loaded" : "");
  }
  std::array<char, 96> driver{};
  if (functions->driver_version(driver.data(), driver.size()) == 0) driver_ = driver.data();
  return absl::OkStatus();
}

absl::StatusOr<const Nvml*> Nvml::Load() {
  static const auto* loaded = [] {
    auto* nvml = new Nvml;
    return new std::pair<Nvml*, absl::Status>(nvml, nvml->Open());
  }();
  if (!loaded->second.ok()) return loaded->second;
  return loaded->first;
}

absl::StatusOr<GpuState> Nvml::Read(int32_t index) const {
  std::array<char, 64> bus{};
  BATON_RETURN_IF_CUDA_ERROR(cudaDeviceGetPCIBusId(bus.data(), bus.size(), index));
  NvmlDevice device = nullptr;
  if (const int error = functions_->handle(bus.data(), &device); error != 0) {
    return Unavailable("NVML does not know GPU ", index, " at ", bus.data(), ": error ", error);
  }
  GpuState state;
  std::array<char, 96> name{};
  if (functions_->name(device, name.data(), name.size()) == 0) state.name = name.data();
  NvmlMemory memory{.version = kMemoryVersion2};
  if (const int error = functions_->memory(device, &memory); error != 0) {
    return Unavailable("NVML does not tell the memory of GPU ", index, ": error ", error);
  }
  state.memory_bytes = static_cast<int64_t>(memory.total);
  state.used_bytes = static_cast<int64_t>(memory.used);
  unsigned value = 0;
  if (NvmlUtilization busy{}; functions_->utilization(device, &busy) == 0) state.busy_percent = busy.gpu;
  if (functions_->power(device, &value) == 0) state.power_watts = value / 1000.0;
  if (functions_->temperature(device, kGpuTemperature, &value) == 0) state.temperature_celsius = value;
  if (functions_->pcie_generation(device, &value) == 0) state.pcie_generation = value;
  if (functions_->pcie_lanes(device, &value) == 0) state.pcie_lanes = value;
  for (unsigned link = 0; link < kMostLinks; ++link) {
    if (functions_->link_state(device, link, &value) != 0) break;
    ++state.nvlinks;
    state.nvlinks_active += value == 1;
  }
  return state;
}

}  // namespace baton
