#include "transfer/export_registry.h"

#include <unistd.h>

#include <random>

namespace baton {

ExportRegistry& ExportRegistry::Get() {
  static ExportRegistry* registry = new ExportRegistry;  // never destroyed: registrations may outlive static objects
  return *registry;
}

ExportRegistry::ExportRegistry()
    : random_((static_cast<uint64_t>(std::random_device()()) << 32) ^ std::random_device()()) {}

uint64_t ExportRegistry::process() const { return random_ ^ static_cast<uint64_t>(getpid()); }

ExportRegistry::Entry ExportRegistry::Add(const LocalMemory& memory) {
  MutexLock lock(mutex_);
  const uint64_t id = ++last_id_;
  entries_.emplace(id, memory);
  return {.id = id, .registration = std::shared_ptr<void>(nullptr, [this, id](void*) { Remove(id); })};
}

void ExportRegistry::Remove(uint64_t id) {
  MutexLock lock(mutex_);
  entries_.erase(id);
}

absl::StatusOr<LocalMemory> ExportRegistry::Find(uint64_t id) {
  MutexLock lock(mutex_);
  const auto it = entries_.find(id);
  if (it == entries_.end()) return NotFound("memory ", id, " of this process is not exported (any more)");
  return it->second;
}

}  // namespace baton
