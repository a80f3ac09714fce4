// The one error language of Baton: absl::Status, with the code saying what the caller should do.
//
//   InvalidArgument → HTTP 400        NotFound → 404, or a cache miss        ResourceExhausted → wait, preempt, or 429
//   Unavailable → another worker      DeadlineExceeded → cancel, 504         Cancelled → free everything, say nothing
//   DataLoss → recompute              FailedPrecondition → refuse            Internal → a bug of ours
//
// Messages say what was expected, what was found, and what to do about it.
#pragma once

#include <charconv>
#include <concepts>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace baton {

namespace internal {
inline void AppendPart(std::string& out, std::string_view part) { out.append(part); }
inline void AppendPart(std::string& out, char part) { out.push_back(part); }
template <std::same_as<bool> Bool>  // a template, so that no pointer turns into a bool
void AppendPart(std::string& out, Bool part) {
  out.append(part ? "true" : "false");
}
template <typename Number>
requires(std::integral<Number> && !std::same_as<Number, bool> && !std::same_as<Number, char>) ||
    std::floating_point<Number> void AppendPart(std::string& out, Number part) {
  char digits[32];
  auto [end, error] = std::to_chars(digits, digits + sizeof(digits), part);
  out.append(digits, end);
}
}  // namespace internal

// Joins strings, characters and numbers into one string: Cat("block ", 7, " of ", 12).
template <typename... Parts>
std::string Cat(const Parts&... parts) {
  std::string out;
  (internal::AppendPart(out, parts), ...);
  return out;
}

template <typename... Parts>
absl::Status InvalidArgument(const Parts&... parts) {
  return absl::InvalidArgumentError(Cat(parts...));
}
template <typename... Parts>
absl::Status NotFound(const Parts&... parts) {
  return absl::NotFoundError(Cat(parts...));
}
template <typename... Parts>
absl::Status ResourceExhausted(const Parts&... parts) {
  return absl::ResourceExhaustedError(Cat(parts...));
}
template <typename... Parts>
absl::Status Unavailable(const Parts&... parts) {
  return absl::UnavailableError(Cat(parts...));
}
template <typename... Parts>
absl::Status FailedPrecondition(const Parts&... parts) {
  return absl::FailedPreconditionError(Cat(parts...));
}
template <typename... Parts>
absl::Status DeadlineExceeded(const Parts&... parts) {
  return absl::DeadlineExceededError(Cat(parts...));
}
template <typename... Parts>
absl::Status Cancelled(const Parts&... parts) {
  return absl::CancelledError(Cat(parts...));
}
template <typename... Parts>
absl::Status DataLoss(const Parts&... parts) {
  return absl::DataLossError(Cat(parts...));
}
template <typename... Parts>
absl::Status Unimplemented(const Parts&... parts) {
  return absl::UnimplementedError(Cat(parts...));
}
template <typename... Parts>
absl::Status Internal(const Parts&... parts) {
  return absl::InternalError(Cat(parts...));
}
// The current errno as a Status: Errno("mmap", path).
absl::Status Errno(std::string_view call, std::string_view subject = "");

// The message of a status as a std::string_view (Debian's Abseil has a view type of its own).
inline std::string_view Message(const absl::Status& status) {
  return {status.message().data(), status.message().size()};
}

}  // namespace baton

// Returns from the calling function when the expression's status is not OK.
#define BATON_RETURN_IF_ERROR(expression)                                   \
  do {                                                                      \
    if (absl::Status status_ = (expression); !status_.ok()) return status_; \
  } while (false)

// BATON_ASSIGN_OR_RETURN(auto file, OpenFile(path)): declares and assigns, or returns the error.
#define BATON_ASSIGN_OR_RETURN(target, expression) \
  BATON_ASSIGN_OR_RETURN_(BATON_JOIN_(status_or_, __LINE__), target, expression)
#define BATON_ASSIGN_OR_RETURN_(result, target, expression) \
  auto result = (expression);                               \
  if (!result.ok()) return result.status();                 \
  target = std::move(result).value()
#define BATON_JOIN_(a, b) BATON_JOIN2_(a, b)
#define BATON_JOIN2_(a, b) a##b
