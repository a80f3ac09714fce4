// Reads a GPU's load, power, heat and memory once a second, so that whoever reports them never waits for the driver.
//
// Threading: its own thread reads; Now() from any. Ownership: the thread ends with the object. Errors: a GPU that does
// not tell (no driver's library, or none of the GPUs) has no gauges, and is not asked again.
#pragma once

#include <cstdint>
#include <optional>
#include <thread>

#include "base/mutex.h"
#include "proto/baton.pb.h"

namespace baton {

class GpuWatch {
 public:
  explicit GpuWatch(int32_t gpu) : thread_([this, gpu] { Run(gpu); }) {}
  ~GpuWatch();
  std::optional<proto::GpuGauges> Now() const BATON_EXCLUDES(mutex_);

 private:
  void Run(int32_t gpu) BATON_EXCLUDES(mutex_);

  mutable Mutex mutex_;
  CondVar ends_;
  bool ending_ BATON_GUARDED_BY(mutex_) = false;
  std::optional<proto::GpuGauges> now_ BATON_GUARDED_BY(mutex_);
  std::thread thread_;  // last: it uses the others
};

}  // namespace baton
