// Host memory that another process on this machine can map: a memfd, so that no name and no limit of /dev/shm is
// involved and nothing is left behind when its processes die.
//
// Threading: a HostMemory is immutable once made. Ownership: it unmaps and closes itself; the kernel keeps the pages
// while any process maps them. Errors: ResourceExhausted when there is not enough memory; InvalidArgument for a
// descriptor that is smaller than promised. Limits: pages are committed when first touched; what does not fit then
// kills the toucher, so size pools from the container's limit (device/machine.h).
#pragma once

#include <cstdint>

#include "base/status.h"
#include "base/unique_fd.h"

namespace baton {

class HostMemory {
 public:
  HostMemory() = default;
  HostMemory(HostMemory&& other) noexcept;
  HostMemory& operator=(HostMemory&& other) noexcept;
  ~HostMemory();

  // `bytes` of zeroed memory, in huge pages where the kernel allows; `name` shows in /proc/PID/maps.
  static absl::StatusOr<HostMemory> Create(const char* name, int64_t bytes);
  // Maps what another process created and sent. Checks the descriptor's size, so that no access can fault later: the
  // size is sealed at creation.
  static absl::StatusOr<HostMemory> Import(UniqueFd fd, int64_t bytes);

  uint8_t* data() const { return data_; }
  int64_t bytes() const { return bytes_; }
  int fd() const { return fd_.get(); }

 private:
  static absl::StatusOr<HostMemory> Map(UniqueFd fd, int64_t bytes);
  void Unmap();

  UniqueFd fd_;
  uint8_t* data_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace baton
