// What NVIDIA's management library (NVML) says of GPUs: memory that anybody holds, load, power, heat, links. It comes
// with the driver, asks nothing of a GPU's contexts and makes none.
//
// Threading: any thread. Ownership: the library stays for the process's life. Errors: FailedPrecondition when it is not
// there, with the places where it was sought; Unavailable, with NVML's number, when it does not answer. What a GPU or a
// container does not tell is an empty optional.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/status.h"

namespace baton {

struct GpuState {
  std::string name;
  int64_t memory_bytes = 0;
  int64_t used_bytes = 0;  // by all processes
  std::optional<int32_t> busy_percent;
  std::optional<double> power_watts;
  std::optional<int32_t> temperature_celsius;
  std::optional<int32_t> pcie_generation, pcie_lanes;  // as they run now
  int32_t nvlinks = 0;                                 // that the GPU has
  int32_t nvlinks_active = 0;
};

class Nvml {
 public:
  // Opened at the first call.
  static absl::StatusOr<const Nvml*> Load();
  const std::string& path() const { return path_; }
  const std::string& driver() const { return driver_; }  // its version
  // `index`: CUDA's, among the visible ones.
  absl::StatusOr<GpuState> Read(int32_t index) const;

 private:
  struct Functions;
  Nvml() = default;
  absl::Status Open();

  const Functions* functions_ = nullptr;
  std::string path_, driver_;
};

}  // namespace baton
