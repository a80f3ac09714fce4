// Turns the bytes of a connection into one answer: its head, and its body as it comes.
//
// Threading: one thread at a time. Errors: DataLoss for malformed bytes and exceeded limits; unusable after that.
// Limits: head and body bytes of the answer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"
#include "http/message.h"

namespace baton {

class ResponseReader {
 public:
  struct Limits {
    size_t header_bytes = 64 << 10;
    uint64_t body_bytes = uint64_t{1} << 40;
    bool head_only = false;  // the request was HEAD: no body follows
  };
  explicit ResponseReader(const Limits& limits);
  ~ResponseReader();

  // Calls on_body with the body's bytes among `bytes`, once the head is complete.
  absl::Status Feed(std::string_view bytes, const std::function<void(std::string_view)>& on_body);
  // The server has closed: for some answers that is the body's end.
  void EndOfInput();

  bool started() const { return started_; }         // a byte has come
  int http_status() const { return http_status_; }  // 0 until the head is complete
  const HttpHeaders& headers() const { return headers_; }
  bool done() const;
  bool keep_alive() const;

 private:
  struct Parser;  // Boost.Beast's
  void MakeParser();
  void ReadHead();

  const Limits limits_;
  std::unique_ptr<Parser> parser_;
  std::string pending_;
  bool started_ = false;
  int http_status_ = 0;
  HttpHeaders headers_;
};

}  // namespace baton
