// Frames that wait for a socket. Many frames leave with one system call.
//
// Threading: none of its own; the session's mutex guards it. Errors: WriteTo returns what the socket said.
#pragma once

#include <cstdint>
#include <deque>
#include <string>

#include "base/status.h"
#include "base/unique_fd.h"

namespace baton {

class SendQueue {
 public:
  void Push(std::string frame, UniqueFd fd);
  // A heart-beat: kPingHeader or kPongHeader.
  void PushBeat(uint32_t header);
  // Writes until the queue is empty or the socket takes no more now; both are OK.
  absl::Status WriteTo(int socket);
  void Clear();
  bool empty() const { return entries_.empty(); }
  int64_t bytes() const { return bytes_; }  // headers included

 private:
  struct Entry {
    uint32_t header;
    std::string frame;
    UniqueFd fd;  // until it has been sent, with the first byte of the header
  };
  // Bytes taken by the socket, 0 if it takes none now.
  absl::StatusOr<size_t> WriteBatch(int socket);
  void Remove(size_t bytes);

  std::deque<Entry> entries_;
  size_t front_written_ = 0;  // bytes of the first entry, header included, that are out
  int64_t bytes_ = 0;
};

}  // namespace baton
