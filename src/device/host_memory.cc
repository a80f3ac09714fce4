#include "device/host_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <utility>

namespace baton {

HostMemory::HostMemory(HostMemory&& other) noexcept
    : fd_(std::move(other.fd_)), data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

HostMemory& HostMemory::operator=(HostMemory&& other) noexcept {
  if (this != &other) {
    Unmap();
    fd_ = std::move(other.fd_);
    data_ = std::exchange(other.data_, nullptr);
    bytes_ = std::exchange(other.bytes_, 0);
  }
  return *this;
}

HostMemory::~HostMemory() { Unmap(); }

absl::StatusOr<HostMemory> HostMemory::Create(const char* name, int64_t bytes) {
  if (bytes <= 0) return InvalidArgument("shared memory of ", bytes, " bytes: expected a positive size");
  UniqueFd fd(memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid()) return Errno("memfd_create", name);
  if (ftruncate(fd.get(), bytes) != 0) return Errno("ftruncate", Cat(name, " to ", bytes, " bytes"));
  // A peer relies on the size: a file that shrank would turn its next access into SIGBUS.
  if (fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) return Errno("F_ADD_SEALS", name);
  return Map(std::move(fd), bytes);
}

absl::StatusOr<HostMemory> HostMemory::Import(UniqueFd fd, int64_t bytes) {
  struct stat info;
  if (fstat(fd.get(), &info) != 0) return Errno("fstat", "imported memory");
  if (bytes <= 0 || info.st_size < bytes) {
    return InvalidArgument("imported memory: expected ", bytes, " bytes, found a file of ", info.st_size);
  }
  if ((fcntl(fd.get(), F_GET_SEALS) & F_SEAL_SHRINK) == 0) {
    return InvalidArgument("imported memory: expected a memfd sealed against shrinking");
  }
  return Map(std::move(fd), bytes);
}

absl::StatusOr<HostMemory> HostMemory::Map(UniqueFd fd, int64_t bytes) {
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (data == MAP_FAILED) return Errno("mmap", Cat(bytes, " bytes of shared memory"));
  madvise(data, bytes, MADV_HUGEPAGE);  // only a wish: shared memory may not allow it
  HostMemory memory;
  memory.fd_ = std::move(fd);
  memory.data_ = static_cast<uint8_t*>(data);
  memory.bytes_ = bytes;
  return memory;
}

void HostMemory::Unmap() {
  if (data_ != nullptr) munmap(std::exchange(data_, nullptr), bytes_);
}

}  // namespace baton
