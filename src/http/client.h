// An HTTP/1.1 client for many requests at once, for load tests and for talking to other front ends.
//
//   auto client = MakeHttpClient({});
//   client->Send({.host = "127.0.0.1", .port = 8000, .method = "POST", .path = "/v1/completions", .body = json},
//                [](HttpClientEvent event) { … });
//
// Threading: Send and Cancel from any thread; events come on the client's own thread, in order, and must not block.
// Ownership: the destructor closes everything; requests that are still open get their last event before it returns.
// Errors: exactly one last event for each request, with a status that says why when there is no whole answer.
// Limits: HttpClientOptions; connections are kept and used again, one request at a time on each.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"
#include "http/message.h"

namespace baton {

struct HttpClientRequest {
  std::string host = "127.0.0.1";  // an IP address
  int port = 0;
  std::string method = "GET";
  std::string path = "/";  // with the query
  HttpHeaders headers;     // Host and Content-Length are added
  std::string body;
  std::chrono::milliseconds timeout{0};  // for the whole answer; 0: none
};

struct HttpClientEvent {
  int http_status = 0;                   // 0 until the head has come
  const HttpHeaders* headers = nullptr;  // once the head has come; names in lower case
  std::string_view body;                 // the next bytes, without transfer coding; valid during the call
  bool last = false;
  absl::Status status;  // with the last event: OK when the answer is whole
};
using HttpClientCallback = std::function<void(const HttpClientEvent&)>;

struct HttpClientOptions {
  size_t idle_connections_max = 4096;
  size_t header_bytes_max = 64 << 10;
  uint64_t body_bytes_max = uint64_t{1} << 40;
};

class HttpClient {
 public:
  virtual ~HttpClient() = default;
  // Returns a handle for Cancel.
  virtual uint64_t Send(HttpClientRequest request, HttpClientCallback callback) = 0;
  // Closes the request's connection; its last event is Cancelled, unless it already had it.
  virtual void Cancel(uint64_t handle) = 0;
};

std::unique_ptr<HttpClient> MakeHttpClient(HttpClientOptions options);

// Sends and waits: the status and the whole body.
struct HttpClientAnswer {
  int http_status = 0;
  HttpHeaders headers;
  std::string body;
};
absl::StatusOr<HttpClientAnswer> Fetch(HttpClient& client, HttpClientRequest request);

// Cuts an event stream into its events: calls event(data) for each "data:" line, and knows nothing else of the format.
class EventReader {
 public:
  template <typename Event>
  void Append(std::string_view bytes, const Event& event) {
    held_ += bytes;
    size_t begin = 0;
    for (size_t end; (end = held_.find('\n', begin)) != std::string::npos; begin = end + 1) {
      std::string_view line = std::string_view(held_).substr(begin, end - begin);
      if (line.ends_with('\r')) line.remove_suffix(1);
      if (!line.starts_with("data:")) continue;
      line.remove_prefix(line.starts_with("data: ") ? 6 : 5);
      event(line);
    }
    held_.erase(0, begin);
  }

 private:
  std::string held_;  // the beginning of a line
};

}  // namespace baton
