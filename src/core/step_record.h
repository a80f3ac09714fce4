// Which requests each worker of a process is computing just now, on pages that its supervisor shares: when the process
// dies in the middle of a step, the supervisor reads who was in that step's batch. Only they may have caused it.
//
//   auto record = StepRecord::Create(workers);                     // the supervisor, for a child that it starts
//   auto record = StepRecord::Map(std::move(fd), workers);         // the child
//   record->Set(worker, names); engine.Run(…); record->Set(worker, {});
//   std::optional<std::vector<uint64_t>> names = record->Read(worker);   // the supervisor, when it has reaped the
//   child
//
// Threading: each worker's part is written by its step loop. Ownership: unmaps its pages; they go with the last process
// that maps them. Errors: what the kernel says. Limits: kRequestsMax of a step; a larger one is recorded as unknown.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/status.h"
#include "base/unique_fd.h"
#include "core/request.h"

namespace baton {

class StepRecord {
 public:
  static constexpr uint32_t kRequestsMax = 1023;

  // What a sequence is called in a record: a hash of the request's id and the choice. Equal in all processes.
  static uint64_t NameOf(const Request& request);

  static absl::StatusOr<std::unique_ptr<StepRecord>> Create(size_t workers);
  static absl::StatusOr<std::unique_ptr<StepRecord>> Map(UniqueFd fd, size_t workers);
  ~StepRecord();
  StepRecord(const StepRecord&) = delete;
  StepRecord& operator=(const StepRecord&) = delete;

  int fd() const { return fd_.get(); }
  void Set(size_t worker, std::span<const uint64_t> names);
  // Empty: it was in no step. Nothing: in one that is not known.
  std::optional<std::vector<uint64_t>> Read(size_t worker) const;

 private:
  struct alignas(64) Part {
    std::atomic<uint32_t> count;  // above kRequestsMax: unknown
    uint64_t names[kRequestsMax];
  };
  StepRecord(UniqueFd fd, Part* parts, size_t workers) : fd_(std::move(fd)), parts_(parts), workers_(workers) {}

  const UniqueFd fd_;
  Part* const parts_;  // [workers_], shared
  const size_t workers_;
};

}  // namespace baton
