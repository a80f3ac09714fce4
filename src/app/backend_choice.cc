#include "app/backend_choice.h"

#include <algorithm>

#include "base/log.h"
#include "device/core_share.h"
#include "device/machine.h"
#if BATON_HAVE_CUDA
#include "device/cuda_device.h"
#include "device/cuda_library.h"
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
  BATON_ASSIGN_OR_RETURN(const CpuOptions options, ThreadsFor(flags, machine.cores));
  BATON_ASSIGN_OR_RETURN(choice.backend, CreateCpuBackend(options));
  return choice;
}

#if BATON_HAVE_CUDA

// For activations, the GEMM library's workspaces and graphs, beside weights and KV cache.
constexpr int64_t kReservedBytes = int64_t{6} << 30;

absl::StatusOr<BackendChoice> ChooseGpu(const EngineFlags& flags, int64_t weight_bytes) {
  BATON_ASSIGN_OR_RETURN(const CudaDeviceInfo device, SelectCudaDevice(flags.gpu));
  const int64_t left = device.free_bytes - weight_bytes - kReservedBytes;
  if (left < static_cast<int64_t>(0.25 * kGib)) {
    return ResourceExhausted(
        "the model's weights take ", weight_bytes / 1e9, " GB; of GPU ", flags.gpu, " (", device.name, ") ",
        device.free_bytes / 1e9, " GB are free, and ", kReservedBytes / 1e9,
        " are needed beside weights and KV cache; choose another GPU with --gpus, or a smaller model");
  }
  BackendChoice choice{.kv_bytes = left};
  BATON_ASSIGN_OR_RETURN(choice.backend, CreateCudaBackend({.device = flags.gpu}));
  return choice;
}

bool HasGpu(int32_t index) { return SelectCudaDevice(index).ok(); }

#else

absl::StatusOr<BackendChoice> ChooseGpu(const EngineFlags&, int64_t) {
  return FailedPrecondition(
      "--device cuda: this binary was built without CUDA; build it where nvcc is found, or use --device cpu");
}

bool HasGpu(int32_t) { return false; }

#endif

}  // namespace

absl::StatusOr<BackendChoice> ChooseBackend(const EngineFlags& flags, int64_t weight_bytes) {
  const bool gpu = flags.device == "cuda" || (flags.device == "auto" && HasGpu(flags.gpu));
  return gpu ? ChooseGpu(flags, weight_bytes) : ChooseCpu(flags);
}

#if BATON_HAVE_CUDA

std::vector<std::string> DescribeGpus() {
  std::vector<std::string> lines;
  absl::Status last;
  for (int32_t index = 0; index < 64; ++index) {
    const absl::StatusOr<CudaDeviceInfo> device = SelectCudaDevice(index);
    last = device.status();
    if (!device.ok()) break;
    lines.push_back(Cat("gpu ", index, " ", device->name, ", ", device->multiprocessors, " multiprocessors, ",
                        static_cast<int64_t>(device->memory_bytes / 1e9), " GB, ",
                        static_cast<int64_t>(device->free_bytes / 1e9), " free"));
  }
  if (lines.empty()) lines.push_back(Cat("gpu   none: ", Message(last)));
  const auto library = LoadCublasLt();
  if (library.ok()) {
    lines.push_back(Cat("      cuBLASLt: ", (*library)->path));
  } else {
    lines.push_back(Cat("      cuBLASLt: ", Message(library.status())));
  }
  return lines;
}

#else

std::vector<std::string> DescribeGpus() { return {"gpu   none: this binary was built without CUDA"}; }

#endif

}  // namespace baton
