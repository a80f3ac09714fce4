// What this machine, or the container that limits us, has to give.
#pragma once

#include <cstdint>
#include <string>

namespace baton {

struct MachineLimits {
  int32_t cores = 1;            // that this process may use: affinity and the cgroup's quota, rounded down, at least 1
  int64_t memory_bytes = 0;     // the smaller of physical memory and the cgroup's limit
  int64_t available_bytes = 0;  // of it, what is free or can be reclaimed now
};
MachineLimits ReadMachineLimits();

// Whether the kernel gives huge pages to whoever asks by madvise, as weights (private memory) and KV caches (shared
// memory) do. A kernel that says nothing gives none.
struct HugePages {
  bool of_private = false;
  bool of_shared = false;
};
HugePages ReadHugePages();
// For people: who gets them, and what to change where nobody does.
std::string DescribeHugePages(const HugePages& pages);

}  // namespace baton
