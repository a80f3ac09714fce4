// An HTTP/1.1 server with server-sent events, on Asio and Beast.
//
//   auto server = StartHttpServer({.port = 8000}, [](HttpRequest request, std::shared_ptr<ResponseWriter> writer) {
//     writer->Send(200, {{"content-type", "text/plain"}}, "hello");
//   });
//
// Threading: the handler is called on a network thread and must not block; a ResponseWriter may be used from any
// thread. Ownership: a writer that is dropped unanswered answers 500. Callbacks are dropped with the response's end.
// Errors: malformed or oversized requests are answered here, in the format of HttpServerOptions::error_body.
// Limits: see HttpServerOptions; beyond one the connection is answered and closed, and holds nobody else up.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"
#include "http/message.h"

namespace baton {

// The answer to one request. Calls after the end, or after the client has left, do nothing.
class ResponseWriter {
 public:
  virtual ~ResponseWriter() = default;

  // The whole answer. Content-Length, Connection and CORS headers are added; the body is left out for HEAD.
  virtual void Send(int status, HttpHeaders headers, std::string_view body) = 0;
  // A streamed answer: StartStream, any number of Write, Finish. Each Write is sent at once.
  virtual void StartStream(int status, HttpHeaders headers) = 0;
  // False when nobody reads any more: the client left, or reads so slowly that its buffer is full (it is disconnected).
  virtual bool Write(std::string_view bytes) = 0;
  virtual void Finish() = 0;

  // Called once, on the network thread, if the client leaves before the answer's end.
  virtual void OnDisconnect(std::function<void()> callback) = 0;
  // Runs `task` on this connection's network thread, soon and in order; many tasks cost one wake-up.
  virtual void Post(std::function<void()> task) = 0;
  // Calls back on the network thread after `delay`, unless the answer has ended by then. One timer: the last call
  // counts.
  virtual void SetTimer(std::chrono::milliseconds delay, std::function<void()> callback) = 0;
};

using HttpHandler = std::function<void(HttpRequest, std::shared_ptr<ResponseWriter>)>;

struct HttpServerOptions {
  std::string host = "127.0.0.1";
  int port = 0;  // 0: any free one
  int threads = 1;
  size_t header_bytes_max = 64 << 10;
  size_t body_bytes_max = 8 << 20;
  size_t all_bodies_bytes_max = size_t{1} << 30;  // of requests that are being received or answered
  size_t connections_max = 8192;
  size_t unsent_bytes_max = 256 << 10;                      // of a stream whose client reads slowly
  std::chrono::milliseconds header_timeout{10'000};         // from a request's first byte to its header's end
  std::chrono::milliseconds body_timeout{60'000};           // from there to its body's end
  std::chrono::milliseconds idle_timeout{75'000};           // between requests
  std::chrono::milliseconds write_timeout{30'000};          // without the client taking a byte
  std::chrono::milliseconds comment_interval{15'000};       // of a silent event stream; 0: none
  bool cors = true;                                         // any origin may read; OPTIONS is answered here
  std::function<std::string(const HttpError&)> error_body;  // JSON; by default {"error":…} with the message alone
};

class HttpServer {
 public:
  virtual ~HttpServer() = default;
  virtual int port() const = 0;
  virtual size_t connections() const = 0;
  // Refuses what would start work (POST, …) with 503 from now on; reads (GET, HEAD) are still answered.
  virtual void Drain() = 0;
  // Drains, waits until the answers under way have ended, at most `deadline`, then closes everything. Idempotent.
  virtual void Stop(std::chrono::milliseconds deadline) = 0;
};

absl::StatusOr<std::unique_ptr<HttpServer>> StartHttpServer(HttpServerOptions options, HttpHandler handler);

}  // namespace baton
