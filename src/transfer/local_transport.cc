#include <unistd.h>

#include <utility>

#include "transfer/descriptor.h"
#include "transfer/export_registry.h"
#include "transfer/queued_memory.h"

namespace baton {

namespace {

class LocalTransport : public Transport {
 public:
  const std::string& name() const override { return name_; }
  const TransportCapabilities& capabilities() const override { return capabilities_; }

  absl::StatusOr<ExportedMemory> Export(const LocalMemory& memory) override {
    if (memory.base == nullptr || memory.bytes <= 0) return InvalidArgument("memory to export is empty");
    ExportRegistry::Entry entry = ExportRegistry::Get().Add(memory);
    return ExportedMemory{.descriptor = EncodeDescriptor<3>(kLocalMagic, {ExportRegistry::Get().process(),
                                                                          static_cast<uint64_t>(getpid()), entry.id}),
                          .registration = std::move(entry.registration)};
  }

  absl::StatusOr<std::unique_ptr<RemoteMemory>> Import(std::string_view descriptor, UniqueFd) override {
    BATON_ASSIGN_OR_RETURN(const auto numbers, DecodeDescriptor<3>(kLocalMagic, descriptor));
    if (numbers[0] != ExportRegistry::Get().process()) {
      return InvalidArgument("the local transport reaches memory of its own process (", getpid(), "), not of process ",
                             numbers[1], ": use shm");
    }
    BATON_ASSIGN_OR_RETURN(const LocalMemory memory, ExportRegistry::Get().Find(numbers[2]));
    return MakeMappedMemory(queue_, memory.base, memory.bytes, nullptr);
  }

  TransferProgress progress() const override { return queue_->progress(); }

 private:
  const std::string name_ = "local";
  const TransportCapabilities capabilities_ = {
      .floor_gigabytes_per_second = 2,
      .advice = "a copy within one process is this slow only when the cores have more threads than they can run"};
  const std::shared_ptr<TransferQueue> queue_ = TransferQueue::Create("copy-local", kPieceBytes);
};

}  // namespace

std::unique_ptr<Transport> MakeLocalTransport() { return std::make_unique<LocalTransport>(); }

}  // namespace baton
