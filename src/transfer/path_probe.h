// Measures the path to a remote memory at its first use, so that a slow one is seen and not assumed away.
//
// Threading: waits on the calling thread (milliseconds); probes of one process run one after the other, so that they do
//   not measure each other. Errors: what Post refuses; DeadlineExceeded when the path does not move: `tag` is then
//   being cancelled, and sources must stay until a Cancel or Flush has ended.
// Limits: at most ProbeOptions::max_bytes are written in each of `repeats` rounds.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "core/ids.h"
#include "transfer/transport.h"

namespace baton {

struct ProbeOptions {
  int64_t max_bytes = 16 << 20;
  int32_t repeats = 5;
  int64_t timeout_ms = 2000;
};

struct PathReport {
  std::string transport;
  double gigabytes_per_second = 0;  // median of the rounds
  int64_t latency_us = 0;           // from Post to callback of one small range, median
  bool below_floor = false;
  std::string advice;  // when below the floor: cause and fix, in words

  std::string Text() const;  // "shm 9.8 GB/s"
};

// Writes `ranges` (a scratch region, or what the first message moves anyway: they are the same bytes each time) several
// times. Ranges beyond max_bytes are left out.
absl::StatusOr<PathReport> ProbePath(const Transport& transport, RemoteMemory& memory,
                                     const std::vector<CopyRange>& ranges, Epoch tag, const ProbeOptions& options = {});

}  // namespace baton
