// Turns the bytes of a connection into requests, one after the other.
//
//   reader.Feed(bytes);
//   if (reader.state() == RequestReader::State::kDone) { Serve(reader.Take()); reader.Next(); }
//
// Threading: one thread at a time. Ownership: keeps bytes that belong to later (pipelined) requests.
// Errors: state kError, and error() says what to answer; the connection cannot be used after that.
// Limits: header and body bytes of one request; the caller stops feeding when buffered() is more than it wants to hold.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "http/message.h"

namespace baton {

class RequestReader {
 public:
  struct Limits {
    size_t header_bytes = 64 << 10;
    size_t body_bytes = 8 << 20;
  };
  enum class State { kEmpty, kHeader, kBody, kDone, kError };  // kEmpty: not a byte of this request yet

  explicit RequestReader(const Limits& limits);
  ~RequestReader();

  void Feed(std::string_view bytes);
  State state() const { return state_; }
  // True once for each request: its header is in, and its body comes only after "100 Continue".
  bool TakeExpectation();
  const HttpError& error() const { return error_; }
  // Valid in state kDone.
  HttpRequest Take();
  // Forgets the request that was taken and goes on with the bytes that followed it.
  void Next();
  size_t buffered() const { return pending_.size(); }
  size_t body_bytes() const;  // received so far, of the request that is being read

 private:
  struct Parser;  // Boost.Beast's

  void Parse();
  bool ParseHead();
  size_t Put(std::string_view bytes);
  void Fail(int status, std::string message);

  Limits limits_;
  std::unique_ptr<Parser> parser_;  // made with a request's head: an idle connection costs little
  std::string pending_;
  size_t scanned_ = 0;  // bytes of pending_ in which the head's end was looked for
  State state_ = State::kEmpty;
  bool expectation_taken_ = false;
  HttpError error_;
};

}  // namespace baton
