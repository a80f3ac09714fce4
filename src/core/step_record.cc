#include "core/step_record.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <utility>

namespace baton {

uint64_t StepRecord::NameOf(const Request& request) {
  return XXH3_64bits_withSeed(request.id.data(), request.id.size(), static_cast<uint64_t>(request.sampling.choice));
}

absl::StatusOr<std::unique_ptr<StepRecord>> StepRecord::Create(size_t workers) {
  UniqueFd fd(memfd_create("baton-steps", MFD_CLOEXEC));
  if (!fd.valid()) return Errno("memfd_create", "for the record of steps");
  if (ftruncate(fd.get(), static_cast<off_t>(workers * sizeof(Part))) != 0) {
    return Errno("ftruncate", "of the record of steps");
  }
  return Map(std::move(fd), workers);
}

absl::StatusOr<std::unique_ptr<StepRecord>> StepRecord::Map(UniqueFd fd, size_t workers) {
  const size_t bytes = workers * sizeof(Part);
  struct stat file;
  if (fstat(fd.get(), &file) != 0) return Errno("fstat", "of the record of steps");
  if (workers == 0 || file.st_size < static_cast<off_t>(bytes)) {
    return InvalidArgument("a record of steps of ", file.st_size, " bytes: expected ", bytes, " for ", workers,
                           " workers");
  }
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (memory == MAP_FAILED) return Errno("mmap", "of the record of steps");
  return std::unique_ptr<StepRecord>(new StepRecord(std::move(fd), static_cast<Part*>(memory), workers));
}

StepRecord::~StepRecord() { munmap(parts_, workers_ * sizeof(Part)); }

void StepRecord::Set(size_t worker, std::span<const uint64_t> names) {
  Part& part = parts_[worker];
  if (names.size() > kRequestsMax) return part.count.store(kRequestsMax + 1, std::memory_order_release);
  // Unknown while it is being written.
  part.count.store(kRequestsMax + 1, std::memory_order_release);
  std::ranges::copy(names, part.names);
  part.count.store(static_cast<uint32_t>(names.size()), std::memory_order_release);
}

std::optional<std::vector<uint64_t>> StepRecord::Read(size_t worker) const {
  const Part& part = parts_[worker];
  const uint32_t count = part.count.load(std::memory_order_acquire);
  if (count > kRequestsMax) return std::nullopt;
  return std::vector<uint64_t>(part.names, part.names + count);
}

}  // namespace baton
