#include "rpc/frame_decoder.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace baton {

// Headers are read and written as they lie in memory.
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "Baton's frames are little-endian, as its machines are");

uint32_t EncodeFrameHeader(size_t payload_bytes, bool has_fd) {
  return static_cast<uint32_t>(payload_bytes) | (has_fd ? kFrameHasFd : 0);
}

std::span<char> FrameDecoder::WritableBytes() {
  if (begin_ == end_) {
    begin_ = end_ = 0;
    if (capacity_ > kKeptBytes) Resize(kBufferBytes);  // a large frame has passed
  }
  if (capacity_ == 0) Resize(kBufferBytes);
  if (begin_ > 0 && capacity_ - end_ < kBufferBytes / 2) {
    std::memmove(buffer_.get(), buffer_.get() + begin_, end_ - begin_);
    end_ -= std::exchange(begin_, 0);
  }
  if (end_ == capacity_) Grow();
  return {buffer_.get() + end_, capacity_ - end_};
}

void FrameDecoder::Grow() {
  size_t size = capacity_ * 2;
  if (pending_bytes() >= kFrameHeaderBytes) {
    uint32_t header;
    std::memcpy(&header, buffer_.get() + begin_, sizeof(header));
    const size_t needed = begin_ + kFrameHeaderBytes + (header & ~kFrameHasFd);
    if (needed > capacity_) size = std::min(size, needed);
  }
  Resize(size);
}

void FrameDecoder::Resize(size_t bytes) {
  void* const memory = std::realloc(buffer_.get(), bytes);
  if (memory == nullptr) std::abort();  // as any other allocation that fails
  static_cast<void>(buffer_.release());
  buffer_.reset(static_cast<char*>(memory));
  capacity_ = bytes;
}

absl::Status FrameDecoder::AddFd(UniqueFd fd) {
  if (fds_.size() == kMaxPendingFds) {
    return InvalidArgument("received more than ", kMaxPendingFds, " file descriptors that belong to no frame");
  }
  fds_.push_back(std::move(fd));
  return absl::OkStatus();
}

bool FrameDecoder::SkipBeat(uint32_t header) {
  if (header != kPingHeader && header != kPongHeader) return false;
  pinged_ |= header == kPingHeader;
  begin_ += kFrameHeaderBytes;
  return true;
}

absl::StatusOr<bool> FrameDecoder::Next(std::string_view& frame, UniqueFd& fd) {
  uint32_t header;
  do {
    if (end_ - begin_ < kFrameHeaderBytes) return false;
    std::memcpy(&header, buffer_.get() + begin_, sizeof(header));
  } while (SkipBeat(header));
  const int64_t length = header & ~kFrameHasFd;
  if (length > max_frame_bytes_) {
    return InvalidArgument("received a frame of ", length, " bytes: expected at most ", max_frame_bytes_);
  }
  if (end_ - begin_ - kFrameHeaderBytes < static_cast<size_t>(length)) return false;
  fd.Reset();
  if (header & kFrameHasFd) {
    if (fds_.empty()) return InvalidArgument("received a frame whose file descriptor did not come with it");
    fd = std::move(fds_.front());
    fds_.pop_front();
  }
  frame = {buffer_.get() + begin_ + kFrameHeaderBytes, static_cast<size_t>(length)};
  begin_ += kFrameHeaderBytes + length;
  return true;
}

}  // namespace baton
