#include "frontend/admission.h"

#include "frontend/api_error.h"

namespace baton {

absl::StatusOr<std::unique_ptr<Admission::Ticket>> Admission::Enter(const std::shared_ptr<Admission>& admission) {
  MutexLock lock(admission->mutex_);
  const int64_t limit = admission->limits_.requests_max;
  if (admission->requests_ >= limit) {
    const int seconds = admission->requests_left_.SecondsUntil(DepartureRate::Clock::now(), 1);
    return WithRetryAfter(
        ResourceExhausted("the server is full: ", admission->requests_, " requests are in flight, the limit is ", limit,
                          "; try again in ", seconds, " s"),
        seconds);
  }
  ++admission->requests_;
  return std::make_unique<Ticket>(admission);
}

absl::Status Admission::Ticket::AddWaiting(int64_t prompt_tokens) {
  MutexLock lock(admission_->mutex_);
  const int64_t waiting = admission_->waiting_;
  const int64_t limit = admission_->limits_.waiting_prompt_tokens_max;
  if (waiting > 0 && waiting + prompt_tokens > limit) {
    const int seconds = admission_->tokens_left_.SecondsUntil(DepartureRate::Clock::now(),
                                                              static_cast<double>(waiting + prompt_tokens - limit));
    return WithRetryAfter(ResourceExhausted("the queue is full: ", waiting, " prompt tokens wait, this request has ",
                                            prompt_tokens, ", the limit is ", limit, "; try again in ", seconds, " s"),
                          seconds);
  }
  admission_->waiting_ += prompt_tokens;
  waiting_ += prompt_tokens;
  return absl::OkStatus();
}

void Admission::Ticket::StopWaiting() {
  MutexLock lock(admission_->mutex_);
  admission_->waiting_ -= waiting_;
  admission_->tokens_left_.Note(DepartureRate::Clock::now(), static_cast<double>(waiting_));
  waiting_ = 0;
}

void Admission::Leave(int64_t waiting) {
  MutexLock lock(mutex_);
  const auto now = DepartureRate::Clock::now();
  --requests_;
  requests_left_.Note(now, 1);
  waiting_ -= waiting;
  if (waiting > 0) tokens_left_.Note(now, static_cast<double>(waiting));
}

int64_t Admission::requests() const {
  MutexLock lock(mutex_);
  return requests_;
}

int64_t Admission::waiting_prompt_tokens() const {
  MutexLock lock(mutex_);
  return waiting_;
}

}  // namespace baton
