#include "app/gpu_watch.h"

#include <chrono>

#include "app/backend_choice.h"

namespace baton {
namespace {

constexpr std::chrono::seconds kInterval(1);

}  // namespace

GpuWatch::~GpuWatch() {
  {
    MutexLock lock(mutex_);
    ending_ = true;
    ends_.Signal();
  }
  thread_.join();
}

std::optional<proto::GpuGauges> GpuWatch::Now() const {
  MutexLock lock(mutex_);
  return now_;
}

void GpuWatch::Run(int32_t gpu) {
  for (;;) {
    const absl::StatusOr<proto::GpuGauges> read = ReadGpuGauges(gpu);
    if (!read.ok()) return;
    MutexLock lock(mutex_);
    now_ = *read;
    const auto until = std::chrono::steady_clock::now() + kInterval;
    while (!ending_ && std::chrono::steady_clock::now() < until) ends_.WaitFor(mutex_, kInterval);
    if (ending_) return;
  }
}

}  // namespace baton
