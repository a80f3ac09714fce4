// Turns the bytes of a connection into one HTTP/1.1 response after another, as they arrive.
//
//   BATON_ASSIGN_OR_RETURN(const size_t used, parser.Feed(bytes, body));  // appends the body's bytes
//   if (parser.done()) { Use(parser.status(), body); parser.Reset(); }    // bytes after `used` are the next response's
//
// Bodies by Transfer-Encoding: chunked, by Content-Length, or up to the connection's end. 1xx answers are skipped.
//
// Threading: one thread. Ownership: keeps a copy of the line it is in.
// Errors: DataLoss, saying what is malformed; the connection cannot be used after that.
// Limits: bytes of the head, of a chunk's line and trailers, and of the body.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

namespace baton {

class HttpResponseParser {
 public:
  struct Limits {
    size_t head_bytes = 64 << 10;  // of status line and headers; also of all trailers, and of one chunk's line
    uint64_t body_bytes = uint64_t{1} << 32;
    int interim_responses = 8;  // 1xx
  };

  HttpResponseParser() : HttpResponseParser(Limits()) {}
  explicit HttpResponseParser(const Limits& limits) : limits_(limits) {}

  // Consumes bytes up to the end of this response, appending its body's to `body`; returns how many were used.
  absl::StatusOr<size_t> Feed(std::string_view bytes, std::string& body);
  // The connection ended: OK if the response is whole by that (or none had begun).
  absl::Status FinishAtEnd();
  // Ready for the next response.
  void Reset();

  bool started() const { return started_; }  // a byte of this response has come
  bool has_head() const { return state_ > State::kHeaders; }
  bool done() const { return state_ == State::kDone; }
  // Valid once has_head().
  int status() const { return status_; }
  bool is_event_stream() const { return event_stream_; }
  bool keep_alive() const { return keep_alive_; }

 private:
  enum class State { kStatusLine, kHeaders, kLength, kUntilEnd, kChunkSize, kChunkData, kChunkEnd, kTrailers, kDone };

  // True when line_ holds a whole line, without its end. Advances `bytes`.
  absl::StatusOr<bool> TakeLine(std::string_view& bytes);
  absl::Status OnLine();
  absl::Status OnStatusLine();
  absl::Status OnHeader();
  absl::Status OnHeadEnd();
  absl::Status OnChunkSize();
  absl::Status TakeBody(std::string_view& bytes, std::string& body);

  Limits limits_;
  State state_ = State::kStatusLine;
  std::string line_;
  bool line_taken_ = false;
  size_t line_bytes_ = 0;  // of all lines of this head, chunk line or trailers
  bool started_ = false;
  int status_ = 0;
  int interim_ = 0;
  bool http_1_0_ = false;
  bool keep_alive_ = true;
  bool event_stream_ = false;
  bool chunked_ = false;
  bool has_length_ = false;
  uint64_t remaining_ = 0;  // body bytes of Content-Length or of the current chunk
  uint64_t body_bytes_ = 0;
};

}  // namespace baton
