#include "frontend/api_error.h"

#include "absl/strings/cord.h"
#include "frontend/json_text.h"

namespace baton {
namespace {

constexpr char kParam[] = "baton/param";
constexpr char kCode[] = "baton/code";
constexpr char kRetryAfter[] = "baton/retry-after";

std::string Payload(const absl::Status& status, const char* key) {
  const auto payload = status.GetPayload(key);
  return payload ? std::string(*payload) : "";
}

int HttpStatus(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kOk:
      return 200;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kUnimplemented:
      return 400;
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kPermissionDenied:
      return 401;
    case absl::StatusCode::kNotFound:
      return 404;
    case absl::StatusCode::kResourceExhausted:
      return 429;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kCancelled:  // by us, or we would not be answering
    case absl::StatusCode::kAborted:
      return 503;
    case absl::StatusCode::kDeadlineExceeded:
      return 504;
    default:
      return 500;
  }
}

std::string_view TypeOf(int http_status) {
  switch (http_status) {
    case 401:
      return "authentication_error";
    case 404:
      return "not_found_error";
    case 429:
      return "rate_limit_error";
    case 503:
      return "service_unavailable_error";
    case 504:
      return "timeout_error";
    default:
      return http_status < 500 ? "invalid_request_error" : "internal_server_error";
  }
}

}  // namespace

absl::Status WithParam(absl::Status status, std::string_view param, std::string_view code) {
  if (status.ok()) return status;
  status.SetPayload(kParam, absl::Cord(absl::string_view(param.data(), param.size())));
  if (!code.empty()) status.SetPayload(kCode, absl::Cord(absl::string_view(code.data(), code.size())));
  return status;
}

absl::Status WithRetryAfter(absl::Status status, int seconds) {
  const std::string text = Cat(seconds);
  status.SetPayload(kRetryAfter, absl::Cord(absl::string_view(text.data(), text.size())));
  return status;
}

ApiError MakeApiError(int http_status, std::string_view message) {
  ApiError error{.status = http_status, .message = std::string(message), .type = std::string(TypeOf(http_status))};
  if (http_status == 429 || http_status == 503) error.retry_after_s = 1;
  return error;
}

ApiError ToApiError(const absl::Status& status) {
  ApiError error = MakeApiError(HttpStatus(status.code()), Message(status));
  error.param = Payload(status, kParam);
  error.code = Payload(status, kCode);
  if (const std::string seconds = Payload(status, kRetryAfter); !seconds.empty())
    error.retry_after_s = std::stoi(seconds);
  return error;
}

std::string ErrorJson(const ApiError& error) {
  const auto text_or_null = [](std::string& out, std::string_view text) {
    if (text.empty()) {
      out += "null";
    } else {
      AppendJsonString(out, text);
    }
  };
  std::string out = "{\"error\":{\"message\":";
  AppendJsonString(out, error.message);
  out += ",\"type\":";
  AppendJsonString(out, error.type);
  out += ",\"param\":";
  text_or_null(out, error.param);
  out += ",\"code\":";
  if (error.code.empty()) {
    out += Cat(error.status);
  } else {
    AppendJsonString(out, error.code);
  }
  out += "}}";
  return out;
}

}  // namespace baton
