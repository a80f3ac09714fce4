#include "device/core_share.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

#include "base/unique_fd.h"

namespace baton {

absl::StatusOr<std::unique_ptr<CoreShare>> CoreShare::Open(const std::string& path, int32_t index, int32_t cores) {
  if (index < 0 || index >= kMaxWorkers) {
    return InvalidArgument("worker ", index, " of a machine: cores are shared by at most ", kMaxWorkers, " workers");
  }
  UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!fd.valid()) return Errno("open", path);
  constexpr int64_t kBytes = kMaxWorkers * sizeof(Entry);
  if (ftruncate(fd.get(), kBytes) != 0) return Errno("ftruncate", path);  // zeros: everybody rests
  void* page = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (page == MAP_FAILED) return Errno("mmap", path);
  return std::unique_ptr<CoreShare>(new CoreShare(static_cast<Entry*>(page), index, cores));
}

CoreShare::~CoreShare() { munmap(entries_, kMaxWorkers * sizeof(Entry)); }

int64_t CoreShare::Now() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);  // one clock for all processes of a machine
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

int32_t CoreShare::CoresAt(int64_t now_ns) {
  entries_[index_].computed_ns.store(now_ns, std::memory_order_relaxed);
  int32_t computing = 1;
  for (int32_t i = 0; i < kMaxWorkers; ++i) {
    const int64_t last = entries_[i].computed_ns.load(std::memory_order_relaxed);
    if (i != index_ && last != 0 && now_ns - last < kRestNs) ++computing;
  }
  return std::max(1, cores_ / computing);
}

}  // namespace baton
