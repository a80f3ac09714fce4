// Cuts a stream of bytes into frames and gives each the file descriptor that was sent with it. Pure: no sockets.
//
// A frame is a little-endian 32-bit word and its payload. Bits 0–30 are the payload's length; bit 31 says that a
// descriptor belongs to it. Two words beyond every length are heart-beats: a question and its answer, without payload;
// they are counted and not delivered. Descriptors arrive beside the bytes, in order and never later than their frame's
// first byte, so the n-th marked frame gets the n-th descriptor, however reads cut the stream.
//
// Threading: one thread. Ownership: frames point into the decoder and last until the next call.
// Errors: InvalidArgument, and the decoder is of no use after that. Limits: max_frame_bytes is checked before memory
// is taken, and memory grows with what has arrived, not with what a header promises; kMaxPendingFds.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <deque>
#include <memory>
#include <span>
#include <string_view>
#include <utility>

#include "base/status.h"
#include "base/unique_fd.h"

namespace baton {

constexpr int64_t kMaxFrameBytes = 64 << 20;
constexpr uint32_t kFrameHasFd = 1u << 31;
constexpr size_t kFrameHeaderBytes = 4;
constexpr uint32_t kPingHeader = 1u << 30;        // "are you there?"
constexpr uint32_t kPongHeader = (1u << 30) | 1;  // the answer

class FrameDecoder {
 public:
  static constexpr size_t kMaxPendingFds = 16;

  explicit FrameDecoder(int64_t max_frame_bytes) : max_frame_bytes_(max_frame_bytes) {}
  void set_max_frame_bytes(int64_t bytes) { max_frame_bytes_ = bytes; }

  // Room to receive into, never empty; then say how many bytes came.
  std::span<char> WritableBytes();
  void Commit(size_t bytes) { end_ += bytes; }
  absl::Status AddFd(UniqueFd fd);

  // False when more bytes are needed.
  absl::StatusOr<bool> Next(std::string_view& frame, UniqueFd& fd);
  // Whether questions have come since this was asked last.
  bool TakePing() { return std::exchange(pinged_, false); }
  // Bytes of a frame that is not complete; 0 between frames.
  size_t pending_bytes() const { return end_ - begin_; }

 private:
  static constexpr size_t kBufferBytes = 64 << 10;
  static constexpr size_t kKeptBytes = 4 << 20;  // a buffer that grew beyond is given back

  struct FreeMemory {
    void operator()(char* memory) const { std::free(memory); }
  };

  bool SkipBeat(uint32_t header);
  void Grow();
  void Resize(size_t bytes);

  // From malloc: realloc moves large buffers by their pages, and nothing has to be zeroed.
  std::unique_ptr<char, FreeMemory> buffer_;
  size_t capacity_ = 0;
  size_t begin_ = 0;  // undelivered bytes are [begin_, end_)
  size_t end_ = 0;
  int64_t max_frame_bytes_;
  bool pinged_ = false;
  std::deque<UniqueFd> fds_;
};

// The first four bytes of a frame.
uint32_t EncodeFrameHeader(size_t payload_bytes, bool has_fd);

}  // namespace baton
