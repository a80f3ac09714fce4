// How many cores a worker should use now, when several workers of one deployment share a machine: all of them while the
// others rest, its share while they compute. Workers agree through a page of a file in the deployment's private folder,
// where each keeps the time at which it last computed. A dead worker's time just grows old, so nothing needs repair.
//
//   BATON_ASSIGN_OR_RETURN(auto share, CoreShare::Open(path, worker_index, cores));
//   int threads = share->CoresNow();  // before each operation; says at the same time that this worker computes
//
// Threading: one thread. Ownership: unmaps its page; the file belongs to the folder. Errors: InvalidArgument for an
// index beyond the limit; what the file system says. Limits: kMaxWorkers.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "base/status.h"

namespace baton {

class CoreShare {
 public:
  static constexpr int32_t kMaxWorkers = 64;
  static constexpr int64_t kRestNs = 5'000'000;  // without an operation: at rest

  static absl::StatusOr<std::unique_ptr<CoreShare>> Open(const std::string& path, int32_t index, int32_t cores);
  ~CoreShare();
  CoreShare(const CoreShare&) = delete;
  CoreShare& operator=(const CoreShare&) = delete;

  int32_t CoresNow() { return CoresAt(Now()); }
  // The same at a given time of CLOCK_MONOTONIC, for tests.
  int32_t CoresAt(int64_t now_ns);
  static int64_t Now();

 private:
  struct alignas(64) Entry {  // a cache line each: workers write theirs all the time
    std::atomic<int64_t> computed_ns;
  };
  CoreShare(Entry* entries, int32_t index, int32_t cores) : entries_(entries), index_(index), cores_(cores) {}

  Entry* const entries_;  // [kMaxWorkers], shared
  const int32_t index_;
  const int32_t cores_;
};

}  // namespace baton
