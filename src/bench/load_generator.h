// Sends a workload's requests and takes the time of every token: one thread, epoll, a few microseconds of CPU a token.
//
//   LoadGenerator load(target);
//   BATON_RETURN_IF_ERROR(load.Prepare());
//   const LoadResult result = load.Run({.count = 80, .concurrency = 8, .request = …});
//
// Threading: one thread. Ownership: the target must outlive it; connections stay open from one Run to the next.
// Errors: those of single requests are in their records; a Run itself always ends, because every request has a limit.
// Limits: LoadPlan::silence_limit_ms without a byte ends a request.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "bench/http_stream_client.h"

namespace baton {

// Steady-clock times in nanoseconds; 0: did not happen.
struct RequestRecord {
  int64_t due_ns = 0;  // when it was to be sent: open loop
  int64_t sent_ns = 0;
  int64_t end_ns = 0;             // the answer's last byte, or the failure
  std::vector<int64_t> token_ns;  // of each piece of content; without failures or coalescing, one a token
  int64_t prompt_tokens = 0;      // as the server counted
  int64_t output_tokens = 0;
  int64_t cached_tokens = 0;
  std::string error;  // its kind; "": it succeeded
};

struct LoadProgress {
  int64_t finished = 0;
  int64_t failed = 0;
  int64_t tokens = 0;
  double seconds = 0;
};

struct LoadPlan {
  int64_t count = 0;
  int32_t concurrency = 1;              // closed loop
  std::vector<double> arrival_seconds;  // open loop: one for each request; empty: closed loop
  int64_t output_tokens = 0;            // expected of each answer; another count is an error
  int64_t silence_limit_ms = 120'000;
  std::function<std::string(int64_t)> request;        // the bytes of request `index`
  std::function<void(const LoadProgress&)> progress;  // about five times a second; may be empty
};

struct LoadResult {
  std::vector<RequestRecord> records;
  int64_t start_ns = 0;
  int64_t end_ns = 0;
};

class LoadGenerator {
 public:
  explicit LoadGenerator(const HttpTarget& target);
  ~LoadGenerator();
  // Before the first Run.
  absl::Status Prepare();
  LoadResult Run(const LoadPlan& plan);

 private:
  class Loop;
  struct Slot;

  const HttpTarget& target_;
  UniqueFd epoll_;
  UniqueFd timer_;
  std::vector<std::unique_ptr<Slot>> slots_;
};

}  // namespace baton
