// What this machine, or the container that limits us, has to give.
#pragma once

#include <cstdint>

namespace baton {

struct MachineLimits {
  int32_t cores = 1;            // that this process may use: affinity and the cgroup's quota, rounded down, at least 1
  int64_t memory_bytes = 0;     // the smaller of physical memory and the cgroup's limit
  int64_t available_bytes = 0;  // of it, what is free or can be reclaimed now
};
MachineLimits ReadMachineLimits();

}  // namespace baton
