// How much work the front end lets in: requests in flight, and prompt tokens that wait for their first answer.
//
// Threading: any thread. Ownership: a ticket gives back what it holds when it goes.
// Errors: ResourceExhausted, which clients see as 429, with a Retry-After from the measured rate (departure_rate.h).
// Limits: one request alone is always let in, however long its prompts are.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include "base/mutex.h"
#include "base/status.h"
#include "frontend/departure_rate.h"

namespace baton {

struct AdmissionLimits {
  int64_t requests_max = 4096;
  int64_t waiting_prompt_tokens_max = 4 << 20;
};

class Admission {
 public:
  // Held by a request from its arrival to its end.
  class Ticket {
   public:
    explicit Ticket(std::shared_ptr<Admission> admission) : admission_(std::move(admission)) {}
    ~Ticket() { admission_->Leave(waiting_); }
    Ticket(const Ticket&) = delete;
    Ticket& operator=(const Ticket&) = delete;

    absl::Status AddWaiting(int64_t prompt_tokens);
    // Its first token is there: the prompts wait no more.
    void StopWaiting();

   private:
    const std::shared_ptr<Admission> admission_;
    int64_t waiting_ = 0;
  };

  explicit Admission(const AdmissionLimits& limits) : limits_(limits) {}
  // A ticket for one more request. Tickets share the object: a call may outlive the front end by a moment.
  static absl::StatusOr<std::unique_ptr<Ticket>> Enter(const std::shared_ptr<Admission>& admission);
  int64_t requests() const BATON_EXCLUDES(mutex_);
  int64_t waiting_prompt_tokens() const BATON_EXCLUDES(mutex_);

 private:
  void Leave(int64_t waiting) BATON_EXCLUDES(mutex_);

  const AdmissionLimits limits_;
  mutable Mutex mutex_;
  int64_t requests_ BATON_GUARDED_BY(mutex_) = 0;
  int64_t waiting_ BATON_GUARDED_BY(mutex_) = 0;
  DepartureRate requests_left_ BATON_GUARDED_BY(mutex_);
  DepartureRate tokens_left_ BATON_GUARDED_BY(mutex_);
};

}  // namespace baton
