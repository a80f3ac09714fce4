#include "rpc/send_queue.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "rpc/frame_decoder.h"

namespace baton {

namespace {
constexpr int kMaxPieces = 128;  // two for each frame
}  // namespace

void SendQueue::Push(std::string frame, UniqueFd fd) {
  const uint32_t header = EncodeFrameHeader(frame.size(), fd.valid());
  bytes_ += kFrameHeaderBytes + frame.size();
  entries_.push_back({header, std::move(frame), std::move(fd)});
}

void SendQueue::PushBeat(uint32_t header) {
  bytes_ += kFrameHeaderBytes;
  entries_.push_back({header, {}, {}});
}

absl::Status SendQueue::WriteTo(int socket) {
  while (!entries_.empty()) {
    BATON_ASSIGN_OR_RETURN(const size_t written, WriteBatch(socket));
    if (written == 0) break;
    Remove(written);
  }
  return absl::OkStatus();
}

absl::StatusOr<size_t> SendQueue::WriteBatch(int socket) {
  iovec pieces[kMaxPieces];
  size_t count = 0;
  size_t skip = front_written_;
  for (Entry& entry : entries_) {
    // The kernel attaches descriptors to the first byte of a call, so a frame that has one begins a call.
    if (count > 0 && entry.fd.valid()) break;
    if (count + 2 > kMaxPieces) break;
    if (skip < kFrameHeaderBytes) {
      pieces[count++] = {reinterpret_cast<char*>(&entry.header) + skip, kFrameHeaderBytes - skip};
      skip = kFrameHeaderBytes;
    }
    const size_t offset = skip - kFrameHeaderBytes;
    if (entry.frame.size() > offset) pieces[count++] = {entry.frame.data() + offset, entry.frame.size() - offset};
    skip = 0;
  }
  msghdr message = {};
  message.msg_iov = pieces;
  message.msg_iovlen = count;
  UniqueFd& fd = entries_.front().fd;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  if (fd.valid()) {
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    cmsghdr* rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    const int raw = fd.get();
    std::memcpy(CMSG_DATA(rights), &raw, sizeof(raw));
  }
  ssize_t written;
  do {
    written = sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (written < 0 && errno == EINTR);
  if (written < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return 0;
  if (written < 0) return Errno("sendmsg");
  fd.Reset();
  return static_cast<size_t>(written);
}

void SendQueue::Remove(size_t bytes) {
  front_written_ += bytes;
  while (!entries_.empty()) {
    const size_t size = kFrameHeaderBytes + entries_.front().frame.size();
    if (front_written_ < size) break;
    front_written_ -= size;
    bytes_ -= size;
    entries_.pop_front();
  }
}

void SendQueue::Clear() {
  entries_.clear();
  front_written_ = 0;
  bytes_ = 0;
}

}  // namespace baton
