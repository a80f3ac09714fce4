#include <unistd.h>

#include <map>
#include <random>
#include <utility>

#include "base/mutex.h"
#include "transfer/descriptor.h"
#include "transfer/queued_memory.h"

namespace baton {

namespace {

constexpr std::string_view kMagic = "localmem";

// What this process exported. Descriptors name an entry, never an address, so foreign bytes cannot make us write
// anywhere else.
class Registry {
 public:
  static Registry& Get() {
    static Registry* registry = new Registry;  // never destroyed: registrations may end after static objects do
    return *registry;
  }
  uint64_t Add(const LocalMemory& memory) {
    MutexLock lock(mutex_);
    entries_.emplace(++last_id_, memory);
    return last_id_;
  }
  void Remove(uint64_t id) {
    MutexLock lock(mutex_);
    entries_.erase(id);
  }
  absl::StatusOr<LocalMemory> Find(uint64_t id) {
    MutexLock lock(mutex_);
    const auto it = entries_.find(id);
    if (it == entries_.end()) return NotFound("local memory ", id, " is not exported (any more)");
    return it->second;
  }
  // Tells this process from every other, also from one that had its number.
  uint64_t process() const { return process_; }

 private:
  Registry() : process_((static_cast<uint64_t>(std::random_device()()) << 32) ^ std::random_device()() ^ getpid()) {}

  const uint64_t process_;
  Mutex mutex_;
  uint64_t last_id_ BATON_GUARDED_BY(mutex_) = 0;
  std::map<uint64_t, LocalMemory> entries_ BATON_GUARDED_BY(mutex_);
};

class LocalTransport : public Transport {
 public:
  const std::string& name() const override { return name_; }
  const TransportCapabilities& capabilities() const override { return capabilities_; }

  absl::StatusOr<ExportedMemory> Export(const LocalMemory& memory) override {
    if (memory.base == nullptr || memory.bytes <= 0) return InvalidArgument("memory to export is empty");
    const uint64_t id = Registry::Get().Add(memory);
    return ExportedMemory{
        .descriptor = EncodeDescriptor<3>(kMagic, {Registry::Get().process(), static_cast<uint64_t>(getpid()), id}),
        .registration = std::shared_ptr<void>(nullptr, [id](void*) { Registry::Get().Remove(id); })};
  }

  absl::StatusOr<std::unique_ptr<RemoteMemory>> Import(std::string_view descriptor, UniqueFd) override {
    BATON_ASSIGN_OR_RETURN(const auto numbers, DecodeDescriptor<3>(kMagic, descriptor));
    if (numbers[0] != Registry::Get().process() || numbers[1] != static_cast<uint64_t>(getpid())) {
      return InvalidArgument("the local transport reaches memory of its own process (", getpid(), "), not of process ",
                             numbers[1], ": use shm");
    }
    BATON_ASSIGN_OR_RETURN(const LocalMemory memory, Registry::Get().Find(numbers[2]));
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
