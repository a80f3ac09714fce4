#include <utility>

#include "device/host_memory.h"
#include "transfer/descriptor.h"
#include "transfer/queued_memory.h"

namespace baton {

namespace {

class SharedMemoryTransport : public Transport {
 public:
  const std::string& name() const override { return name_; }
  const TransportCapabilities& capabilities() const override { return capabilities_; }

  absl::StatusOr<ExportedMemory> Export(const LocalMemory& memory) override {
    if (memory.bytes <= 0 || memory.shareable_fd < 0) {
      return InvalidArgument("memory to export needs a shareable descriptor (HostMemory::Create) and a size");
    }
    return ExportedMemory{.descriptor = EncodeDescriptor<1>(kSharedMemoryMagic, {static_cast<uint64_t>(memory.bytes)}),
                          .fd = memory.shareable_fd};
  }

  absl::StatusOr<std::unique_ptr<RemoteMemory>> Import(std::string_view descriptor, UniqueFd fd) override {
    BATON_ASSIGN_OR_RETURN(const auto numbers, DecodeDescriptor<1>(kSharedMemoryMagic, descriptor));
    if (!fd.valid()) return InvalidArgument("the memory's file descriptor did not come with its description");
    BATON_ASSIGN_OR_RETURN(HostMemory mapped, HostMemory::Import(std::move(fd), static_cast<int64_t>(numbers[0])));
    auto memory = std::make_shared<HostMemory>(std::move(mapped));
    return MakeMappedMemory(queue_, memory->data(), memory->bytes(), memory);
  }

  TransferProgress progress() const override { return queue_->progress(); }

 private:
  const std::string name_ = "shm";
  const TransportCapabilities capabilities_ = {
      .needs_fd = true,
      .crosses_processes = true,
      .floor_gigabytes_per_second = 2,
      .advice =
          "give the copy thread a core (fewer compute threads), keep both workers on one NUMA node, and look for "
          "swapping"};
  const std::shared_ptr<TransferQueue> queue_ = TransferQueue::Create("copy-shm", kPieceBytes);
};

}  // namespace

std::unique_ptr<Transport> MakeSharedMemoryTransport() { return std::make_unique<SharedMemoryTransport>(); }

}  // namespace baton
