// Errors as OpenAI's clients know them. The one place where absl's codes become HTTP's.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace baton {

struct ApiError {
  int status = 500;
  std::string message;
  std::string type;
  std::string param;      // the request field at fault; "": null
  std::string code;       // for programs, for example "model_not_found"; "": null
  int retry_after_s = 0;  // 0: none
};

// Names the request field that an error is about, and optionally OpenAI's code for it.
absl::Status WithParam(absl::Status status, std::string_view param, std::string_view code = "");

// When to try again; clients see it as Retry-After.
absl::Status WithRetryAfter(absl::Status status, int seconds);

ApiError ToApiError(const absl::Status& status);
ApiError MakeApiError(int http_status, std::string_view message);
// {"error":{"message":…,"type":…,"param":…,"code":…}}
std::string ErrorJson(const ApiError& error);

}  // namespace baton
