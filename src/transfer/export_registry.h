// What this process exported for others to write, by a number: descriptors name an entry, never an address, so that
// foreign bytes cannot make us write anywhere else.
//
// Threading: any thread. Errors: NotFound for an entry that is not there (any more). Limits: none of its own.
#pragma once

#include <cstdint>
#include <map>
#include <memory>

#include "base/mutex.h"
#include "transfer/transport.h"

namespace baton {

class ExportRegistry {
 public:
  static ExportRegistry& Get();

  struct Entry {
    uint64_t id = 0;
    std::shared_ptr<void> registration;  // the entry's life
  };
  Entry Add(const LocalMemory& memory) BATON_EXCLUDES(mutex_);
  absl::StatusOr<LocalMemory> Find(uint64_t id) BATON_EXCLUDES(mutex_);

  // Tells this process from every other, also from one that had its number, and from its forked children.
  uint64_t process() const;

 private:
  ExportRegistry();
  void Remove(uint64_t id) BATON_EXCLUDES(mutex_);

  const uint64_t random_;
  Mutex mutex_;
  uint64_t last_id_ BATON_GUARDED_BY(mutex_) = 0;
  std::map<uint64_t, LocalMemory> entries_ BATON_GUARDED_BY(mutex_);
};

}  // namespace baton
