#include "app/backend_choice.h"

#include <algorithm>

#include "base/log.h"
#include "device/core_share.h"
#include "device/machine.h"
#if BATON_HAVE_CUDA
#include "device/cuda_device.h"
#include "device/cuda_library.h"
#include "device/cuda_nvml.h"
#endif

namespace baton {
namespace {

constexpr double kGib = 1024.0 * 1024 * 1024;

// Threads as asked for; or a thread for every core, of which those take part that the other workers leave.
absl::StatusOr<CpuOptions> ThreadsFor(const EngineFlags& flags, int32_t cores) {
  CpuOptions options{.threads = flags.threads, .instruction_set = flags.cpu_isa};
  if (flags.threads > 0) return options;
  options.threads = std::clamp(cores, 1, kMaxCpuThreads);
  if (flags.machine_share == 1) return options;
  auto share = flags.core_share.empty() ? InvalidArgument("no file to share cores through")
                                        : CoreShare::Open(flags.core_share, flags.core_index, options.threads);
  if (!share.ok()) {
    LogDebug("a fixed share of the cores: ", Message(share.status()));
    options.threads = std::max(1, options.threads / flags.machine_share);
    return options;
  }
  options.threads_now = [share = std::shared_ptr<CoreShare>(*std::move(share))] { return share->CoresNow(); };
  return options;
}

absl::StatusOr<BackendChoice> ChooseCpu(const EngineFlags& flags) {
  const MachineLimits machine = ReadMachineLimits();
  // Pages are committed when they are first used: this is a limit, not a price.
  const double gib =
      std::clamp(0.4 * static_cast<double>(machine.available_bytes) / kGib / flags.machine_share, 0.0625, 2.0);
  BackendChoice choice{.kv_bytes = static_cast<int64_t>(gib * kGib)};
  if (flags.deterministic) LogInfo("--deterministic changes nothing here: the CPU backend always computes so");
  BATON_ASSIGN_OR_RETURN(const CpuOptions options, ThreadsFor(flags, machine.cores));
  BATON_ASSIGN_OR_RETURN(choice.backend, CreateCpuBackend(options));
  return choice;
}

#if BATON_HAVE_CUDA

// For activations, the GEMM library's workspaces and graphs, beside weights and KV cache.
constexpr int64_t kReservedBytes = int64_t{6} << 30;

// For an error message: who else may hold the memory that is missing.
std::string HeldByAll(int32_t gpu) {
  const auto nvml = Nvml::Load();
  if (!nvml.ok()) return "";
  const auto state = (*nvml)->Read(gpu);
  return state.ok() ? Cat(" (all processes together hold ", state->used_bytes / 1e9, ")") : "";
}

absl::StatusOr<BackendChoice> ChooseGpu(const EngineFlags& flags, int64_t weight_bytes) {
  BATON_ASSIGN_OR_RETURN(const CudaDeviceInfo device, SelectCudaDevice(flags.gpu));
  // Of processes that share it each takes its part, whoever comes first.
  const int64_t part = std::min(device.free_bytes, device.memory_bytes / flags.gpu_share);
  const int64_t left = part - weight_bytes - kReservedBytes;
  if (left < static_cast<int64_t>(0.25 * kGib)) {
    return ResourceExhausted(
        "the model's weights take ", weight_bytes / 1e9, " GB; of GPU ", flags.gpu, " (", device.name, ") ",
        device.free_bytes / 1e9, " GB are free", HeldByAll(flags.gpu), ", and ", kReservedBytes / 1e9,
        " are needed beside weights and KV cache",
        flags.gpu_share > 1 ? Cat(", by each of ", flags.gpu_share, " processes: leave --isolate out") : "",
        "; choose another GPU with --gpus, or a smaller model");
  }
  BackendChoice choice{.kv_bytes = left};
  BATON_ASSIGN_OR_RETURN(choice.backend,
                         CreateCudaBackend({.device = flags.gpu, .deterministic = flags.deterministic}));
  return choice;
}

bool HasGpu(int32_t index) { return SelectCudaDevice(index).ok(); }
absl::StatusOr<Ceilings> MeasureGpu(int32_t index) { return MeasureCudaCeilings(index); }

// Asks without opening any: that would take memory of each. `any_kind`: also those that the backend will refuse by
// name.
int32_t VisibleGpus(bool any_kind) {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) return 0;
  int generation = 0;
  const bool hopper = count > 0 &&
                      cudaDeviceGetAttribute(&generation, cudaDevAttrComputeCapabilityMajor, 0) == cudaSuccess &&
                      generation == 9;
  return hopper || any_kind ? count : 0;
}

std::unique_ptr<Transport> GpuTransport(const KvMemory& memory, int32_t gpu) {
  auto transport = MakeCudaIpcTransport(gpu);
  const auto exported = transport->Export({.base = memory.base, .bytes = memory.bytes});
  if (exported.ok()) return transport;
  LogWarning("this worker takes no KV blocks from other processes: ", Message(exported.status()),
             "; workers of one process can still hand over to one another");
  return MakeLocalTransport();
}

#else

absl::Status NoCuda() {
  return FailedPrecondition(
      "--device cuda: this binary was built without CUDA; build it where nvcc is found, or use --device cpu");
}
absl::StatusOr<BackendChoice> ChooseGpu(const EngineFlags&, int64_t) { return NoCuda(); }
bool HasGpu(int32_t) { return false; }
absl::StatusOr<Ceilings> MeasureGpu(int32_t) { return NoCuda(); }

int32_t VisibleGpus(bool) { return 0; }

std::unique_ptr<Transport> GpuTransport(const KvMemory&, int32_t) { return MakeLocalTransport(); }

#endif

}  // namespace

bool UsesGpu(const EngineFlags& flags) {
  return flags.device == "cuda" || (flags.device == "auto" && HasGpu(flags.gpu));
}

absl::StatusOr<Ceilings> MeasureCeilings(const EngineFlags& flags) {
  if (UsesGpu(flags)) return MeasureGpu(flags.gpu);
  return MeasureCpuCeilings(flags.threads > 0 ? flags.threads
                                              : std::clamp(ReadMachineLimits().cores, 1, kMaxCpuThreads));
}

absl::StatusOr<BackendChoice> ChooseBackend(const EngineFlags& flags, int64_t weight_bytes) {
  return UsesGpu(flags) ? ChooseGpu(flags, weight_bytes) : ChooseCpu(flags);
}

int32_t CountGpus(const EngineFlags& flags) {
  if (flags.device == "cpu" || !flags.sim.empty()) return 0;
  return VisibleGpus(/*any_kind=*/flags.device == "cuda");
}

std::unique_ptr<Transport> ChooseTransport(const KvMemory& memory, int32_t gpu) {
  return memory.shareable_fd >= 0 ? MakeSharedMemoryTransport() : GpuTransport(memory, gpu);
}

#if BATON_HAVE_CUDA

namespace {

// Empty where NVML is missing, which AppendLibraries says, or does not know the GPU.
std::string GpuStateLine(int32_t index) {
  const auto nvml = Nvml::Load();
  if (!nvml.ok()) return "";
  const auto state = (*nvml)->Read(index);
  if (!state.ok()) return "";
  std::string line = Cat("      other processes hold ", state->used_bytes / 1000000, " MB");
  if (state->busy_percent) line += Cat(", busy ", *state->busy_percent, " %");
  if (state->power_watts) line += Cat(", ", static_cast<int64_t>(*state->power_watts), " W");
  if (state->temperature_celsius) line += Cat(", ", *state->temperature_celsius, " °C");
  if (state->pcie_generation && state->pcie_lanes) {
    line += Cat(", PCIe ", *state->pcie_generation, ".0 × ", *state->pcie_lanes);
  }
  return line + Cat(", NVLink ", state->nvlinks_active, " of ", state->nvlinks, " active");
}

// Where each library was found, or where it was sought.
void AppendLibraries(std::vector<std::string>& lines) {
  const auto cublas = LoadCublasLt();
  lines.push_back(Cat("      cuBLASLt: ", cublas.ok() ? Cat(CublasLtVersion(**cublas), ", ", (*cublas)->path)
                                                      : std::string(Message(cublas.status()))));
  const auto nvml = Nvml::Load();
  lines.push_back(Cat("      NVML: ", nvml.ok() ? Cat("driver ", (*nvml)->driver(), ", ", (*nvml)->path())
                                                : std::string(Message(nvml.status()))));
  const auto nccl = FindNccl();
  lines.push_back(Cat("      NCCL: ", nccl.ok() ? Cat(nccl->version, ", ", nccl->path, "; not used yet")
                                                : Cat(Message(nccl.status()), "; it is not used yet")));
}

}  // namespace

absl::StatusOr<proto::GpuGauges> ReadGpuGauges(int32_t gpu) {
  BATON_ASSIGN_OR_RETURN(const Nvml* nvml, Nvml::Load());
  BATON_ASSIGN_OR_RETURN(const GpuState state, nvml->Read(gpu));
  proto::GpuGauges gauges;
  gauges.set_busy(state.busy_percent.value_or(0) / 100.0);
  gauges.set_power_watts(state.power_watts.value_or(0));
  gauges.set_temperature_celsius(state.temperature_celsius.value_or(0));
  gauges.set_memory_used_bytes(state.used_bytes);
  return gauges;
}

std::vector<std::string> DescribeGpus() {
  std::vector<std::string> lines;
  absl::Status last;
  for (int32_t index = 0; index < 64; ++index) {
    const std::string state = GpuStateLine(index);  // before this process takes memory of its own there
    const absl::StatusOr<CudaDeviceInfo> device = SelectCudaDevice(index);
    last = device.status();
    if (!device.ok()) break;
    lines.push_back(Cat("gpu ", index, " ", device->name, ", ", device->multiprocessors, " multiprocessors, ",
                        static_cast<int64_t>(device->memory_bytes / 1e9), " GB, ",
                        static_cast<int64_t>(device->free_bytes / 1e9), " free"));
    if (!state.empty()) lines.push_back(state);
  }
  if (lines.empty()) lines.push_back(Cat("gpu   none: ", Message(last)));
  AppendLibraries(lines);
  return lines;
}

#else

std::vector<std::string> DescribeGpus() { return {"gpu   none: this binary was built without CUDA"}; }

absl::StatusOr<proto::GpuGauges> ReadGpuGauges(int32_t) { return NoCuda(); }

#endif

}  // namespace baton
