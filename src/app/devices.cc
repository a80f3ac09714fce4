#include "app/devices.h"

#include <cstdio>
#include <fstream>
#include <string>

#include "app/backend_choice.h"
#include "app/version.h"
#include "device/machine.h"

namespace baton {
namespace {

std::string ProcessorName() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown processor";
}

}  // namespace

int RunDevices() {
  const MachineLimits machine = ReadMachineLimits();
  constexpr double kGib = 1024.0 * 1024 * 1024;
  std::printf("%s\n", VersionText().c_str());
  std::printf("cpu   %s, %d cores for this process, %.1f GiB of memory, %.1f free\n", ProcessorName().c_str(),
              machine.cores, static_cast<double>(machine.memory_bytes) / kGib,
              static_cast<double>(machine.available_bytes) / kGib);
  const std::vector<std::string> paths = CpuInstructionSets();
  std::printf("      code path: %s; --cpu-isa forces another of", paths[0].c_str());
  for (const std::string& path : paths) std::printf(" %s", path.c_str());
  std::printf("\n");
  std::printf("      huge pages: %s\n", DescribeHugePages(ReadHugePages()).c_str());
  for (const std::string& line : DescribeGpus()) std::printf("%s\n", line.c_str());
  return 0;
}

}  // namespace baton
