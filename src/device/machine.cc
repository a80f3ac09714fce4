#include "device/machine.h"

#include <sched.h>

#include <algorithm>
#include <fstream>
#include <string>

#include "base/status.h"

namespace baton {
namespace {

int64_t ReadNumber(const char* path, int64_t otherwise) {
  std::ifstream file(path);
  int64_t value;
  return file >> value ? value : otherwise;  // "max" is no number: no limit
}

int64_t MemInfoBytes(const std::string& key) {
  std::ifstream file("/proc/meminfo");
  std::string name, unit;
  int64_t kib;
  while (file >> name >> kib) {
    std::getline(file, unit);
    if (name == key) return kib * 1024;
  }
  return 0;
}

int32_t CgroupCores() {
  std::ifstream v2("/sys/fs/cgroup/cpu.max");
  int64_t quota, period;
  if (v2 >> quota >> period && period > 0) return static_cast<int32_t>(std::max<int64_t>(1, quota / period));
  const int64_t v1_quota = ReadNumber("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", -1);
  const int64_t v1_period = ReadNumber("/sys/fs/cgroup/cpu/cpu.cfs_period_us", 0);
  if (v1_quota > 0 && v1_period > 0) return static_cast<int32_t>(std::max<int64_t>(1, v1_quota / v1_period));
  return INT32_MAX;
}

constexpr char kPrivatePages[] = "/sys/kernel/mm/transparent_hugepage/enabled";
constexpr char kSharedPages[] = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";

// The file has all choices, the one in force in brackets.
bool GivesHugePages(const char* path) {
  std::ifstream file(path);
  for (std::string word; file >> word;) {
    if (word.starts_with('['))
      return word == "[always]" || word == "[madvise]" || word == "[advise]" || word == "[within_size]" ||
             word == "[force]";
  }
  return false;
}

}  // namespace

HugePages ReadHugePages() { return {GivesHugePages(kPrivatePages), GivesHugePages(kSharedPages)}; }

std::string DescribeHugePages(const HugePages& pages) {
  std::string text = Cat("weights ", pages.of_private ? "yes" : "no", ", KV cache ", pages.of_shared ? "yes" : "no");
  if (!pages.of_private) text += Cat("; 'madvise' in ", kPrivatePages, " allows them for weights");
  if (!pages.of_shared) text += Cat("; 'advise' in ", kSharedPages, " allows them for the KV cache");
  return text;
}

MachineLimits ReadMachineLimits() {
  MachineLimits limits;
  cpu_set_t affinity;
  if (sched_getaffinity(0, sizeof(affinity), &affinity) == 0) limits.cores = CPU_COUNT(&affinity);
  limits.cores = std::max(1, std::min(limits.cores, CgroupCores()));

  limits.memory_bytes = MemInfoBytes("MemTotal:");
  limits.available_bytes = MemInfoBytes("MemAvailable:");
  int64_t limit = ReadNumber("/sys/fs/cgroup/memory.max", INT64_MAX);
  int64_t used = ReadNumber("/sys/fs/cgroup/memory.current", 0);
  if (limit == INT64_MAX) {
    limit = ReadNumber("/sys/fs/cgroup/memory/memory.limit_in_bytes", INT64_MAX);
    used = ReadNumber("/sys/fs/cgroup/memory/memory.usage_in_bytes", 0);
  }
  if (limit < limits.memory_bytes) {
    limits.memory_bytes = limit;
    limits.available_bytes = std::min(limits.available_bytes, std::max<int64_t>(0, limit - used));
  }
  return limits;
}

}  // namespace baton
