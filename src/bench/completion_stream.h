// What one event of a streamed completion says, as far as a load generator cares. Chat and text completions alike.
//
// Threading: free functions; any thread. Ownership: values. Errors: DataLoss for what is not such an event.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

namespace baton {

struct StreamEvent {
  bool is_done = false;      // "[DONE]"
  bool has_content = false;  // a token's text, also when it is empty so far (half a character)
  bool is_finish = false;    // with a finish_reason
  bool has_usage = false;
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
  int64_t cached_tokens = 0;
  std::string error;  // the message of {"error":…}
};

absl::StatusOr<StreamEvent> ParseStreamEvent(std::string_view data);

// The message within an error's body, {"error":{"message":…}}, or the beginning of the body itself.
std::string ErrorMessage(std::string_view body);

}  // namespace baton
