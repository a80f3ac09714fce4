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
    if (buffer_.size() > kKeptBytes) buffer_ = {};  // a large frame has passed
  }
  if (buffer_.empty()) buffer_.resize(kBufferBytes);
  if (begin_ > 0 && buffer_.size() - end_ < kBufferBytes / 2) {
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= std::exchange(begin_, 0);
  }
  if (end_ == buffer_.size()) Grow();
  return {buffer_.data() + end_, buffer_.size() - end_};
}

void FrameDecoder::Grow() {
  size_t size = buffer_.size() * 2;
  if (pending_bytes() >= kFrameHeaderBytes) {
    uint32_t header;
    std::memcpy(&header, buffer_.data() + begin_, sizeof(header));
    const size_t needed = begin_ + kFrameHeaderBytes + (header & ~kFrameHasFd);
    if (needed > buffer_.size()) size = std::min(size, needed);
  }
  buffer_.resize(size);
}

absl::Status FrameDecoder::AddFd(UniqueFd fd) {
  if (fds_.size() == kMaxPendingFds) {
    return InvalidArgument("received more than ", kMaxPendingFds, " file descriptors that belong to no frame");
  }
  fds_.push_back(std::move(fd));
  return absl::OkStatus();
}

absl::StatusOr<bool> FrameDecoder::Next(std::string_view& frame, UniqueFd& fd) {
  if (end_ - begin_ < kFrameHeaderBytes) return false;
  uint32_t header;
  std::memcpy(&header, buffer_.data() + begin_, sizeof(header));
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
  frame = {buffer_.data() + begin_ + kFrameHeaderBytes, static_cast<size_t>(length)};
  begin_ += kFrameHeaderBytes + length;
  return true;
}

}  // namespace baton
