// A small HTTP/1.1 client over plain sockets: one keep-alive connection that never blocks, driven by epoll, for load;
// and one blocking exchange, for setting up.
//
// Threading: one thread for each object. Ownership: a client owns its socket.
// Errors: Unavailable when the server cannot be reached or closed the connection; DataLoss for malformed answers.
// Limits: HttpResponseParser's.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"
#include "base/unique_fd.h"
#include "bench/http_response_parser.h"

namespace baton {

struct HttpTarget {
  std::string authority;  // "host:port", for the Host header
  std::string base_path;  // "" or "/prefix", before every path
  sockaddr_storage address{};
  socklen_t address_size = 0;
};

// "http://host[:port][/prefix]". InvalidArgument for anything else, Unavailable when the host has no address.
absl::StatusOr<HttpTarget> ResolveUrl(std::string_view url);

// The bytes of a request; JSON when there is a body.
std::string MakeRequest(const HttpTarget& target, std::string_view method, std::string_view path,
                        std::string_view body = "");

class HttpStreamClient {
 public:
  explicit HttpStreamClient(const HttpTarget& target) : target_(target) {}

  // Begins the next exchange, on the open connection or on a new one.
  absl::Status Start(std::string request);
  // Sends what can be sent now.
  absl::Status Write();
  // Reads once what has arrived and appends the body's part of it to `body`.
  absl::Status Read(std::string& body);
  // After an exchange, or to give one up: closes the connection unless it can carry another exchange.
  void EndExchange();

  int fd() const { return socket_.get(); }
  bool is_open() const { return socket_.valid(); }
  bool wants_write() const { return sent_ < request_.size(); }
  // This exchange uses a connection of an earlier one and has had no byte of answer: the server may have closed it as
  // idle at the same moment, and the exchange may be started anew.
  bool may_retry() const { return exchanges_ > 1 && !parser_.started(); }
  const HttpResponseParser& response() const { return parser_; }
  // For a retry: gives the request back and closes the connection.
  std::string TakeRequestAndClose();

 private:
  absl::Status Open();
  void Close();

  const HttpTarget& target_;
  UniqueFd socket_;
  HttpResponseParser parser_;
  std::string request_;
  size_t sent_ = 0;
  int64_t exchanges_ = 0;  // of this connection
};

struct HttpAnswer {
  int status = 0;
  std::string body;
};

// One exchange on a connection of its own.
absl::StatusOr<HttpAnswer> Exchange(const HttpTarget& target, std::string_view method, std::string_view path,
                                    std::string_view body, int64_t timeout_ms);

}  // namespace baton
