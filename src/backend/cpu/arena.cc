#include "backend/cpu/arena.h"

#include <sys/mman.h>

#include <algorithm>

namespace baton::cpu {
namespace {

constexpr int64_t kAlignment = 128;
constexpr int64_t kHugePage = int64_t{2} << 20;
constexpr int64_t kMapping = int64_t{64} << 20;  // address space; pages are taken when touched

int64_t RoundUp(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

}  // namespace

Arena::~Arena() {
  for (const Mapping& mapping : mappings_) munmap(mapping.address, mapping.bytes);
}

absl::Status Arena::AddMapping(int64_t bytes) {
  const int64_t total = RoundUp(bytes, kHugePage) + kHugePage;
  void* address = mmap(nullptr, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (address == MAP_FAILED) {
    return ResourceExhausted("no memory for ", bytes, " bytes of weights or activations: use a smaller model or batch");
  }
  mappings_.push_back({address, total});
  const int64_t skip = RoundUp(reinterpret_cast<int64_t>(address), kHugePage) - reinterpret_cast<int64_t>(address);
  next_ = static_cast<uint8_t*>(address) + skip;
  left_ = total - skip;
  madvise(next_, left_, MADV_HUGEPAGE);  // only a wish
  return absl::OkStatus();
}

absl::StatusOr<uint8_t*> Arena::Allocate(int64_t bytes) {
  bytes = RoundUp(std::max<int64_t>(bytes, 1), kAlignment);
  if (bytes > left_) BATON_RETURN_IF_ERROR(AddMapping(std::max(bytes, kMapping)));
  uint8_t* result = next_;
  next_ += bytes;
  left_ -= bytes;
  return result;
}

}  // namespace baton::cpu
