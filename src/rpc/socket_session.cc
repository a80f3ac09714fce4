#include "rpc/socket_session.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cstring>
#include <utility>

#include "base/log.h"
#include "base/wake_batch.h"
#include "rpc/handshake.h"

namespace baton {

namespace {

constexpr uint32_t kReadEvents = EPOLLIN | EPOLLRDHUP;
constexpr int kReadsPerTurn = 8;   // of one session, so that others get their turn
constexpr int kReadsAtEnd = 1024;  // more than a socket's buffer holds

}  // namespace

SocketSession::SocketSession(std::shared_ptr<EventLoop> loop, UniqueFd fd, const SocketAddress& local,
                             const NetworkOptions& options)
    : loop_(std::move(loop)),
      passes_fds_(local.is_unix),
      options_(options),
      socket_(fd.get()),
      decoder_(kMaxHandshakeBytes),
      fd_(std::move(fd)) {
  peer_ = DescribePeer(socket_, local, peer_pid_);
}

void SocketSession::StartOpen(SessionEvents events) {
  events_ = std::move(events);
  decoder_.set_max_frame_bytes(kMaxFrameBytes);
  loop_->Post([self = shared_from_this()] {
    self->watch_ = self->loop_->Watch(self->socket_, kReadEvents, self);
    self->StartWatch();
  });
}

void SocketSession::StartHandshake(std::function<SessionEvents(std::shared_ptr<Session>)> accept) {
  accept_ = std::move(accept);
  Send(EncodeHandshake(), {});
  watch_ = loop_->Watch(socket_, kReadEvents, shared_from_this());
  loop_->RunAfter(kHandshakeTimeoutMs, [weak = weak_from_this()] {
    if (auto self = weak.lock(); self && self->accept_ && !self->finished_) {
      self->Finish(DeadlineExceeded("no handshake within ", kHandshakeTimeoutMs, " ms"));
    }
  });
}

void SocketSession::Send(std::string frame, UniqueFd fd) {
  Next next;
  {
    MutexLock lock(mutex_);
    if (closing_) return;
    next = PushLocked(std::move(frame), std::move(fd));
  }
  if (next == Next::kPostFlush) PostFlush();
  if (next == Next::kWriteBatch) WakeBatch::Wake([self = shared_from_this()] { self->WriteBatch(); });
}

SocketSession::Next SocketSession::PushLocked(std::string frame, UniqueFd fd) {
  const int64_t size = static_cast<int64_t>(frame.size());
  if (size > kMaxFrameBytes) {
    FailLocked(InvalidArgument("frame of ", size, " bytes to send: expected at most ", kMaxFrameBytes));
  } else if (fd.valid() && !passes_fds_) {
    FailLocked(InvalidArgument("a file descriptor can only be sent over a unix: address, not to ", peer_));
  } else if (queue_.bytes() + size > options_.max_queued_bytes) {
    FailLocked(ResourceExhausted(peer_, " reads too slowly: ", queue_.bytes(), " bytes wait for it already, at most ",
                                 options_.max_queued_bytes));
  } else {
    queue_.Push(std::move(frame), std::move(fd));
    const bool elsewhere = !loop_->InLoop();
    if (elsewhere && WakeBatch::active()) return std::exchange(flush_due_, true) ? Next::kNothing : Next::kWriteBatch;
    // At once, also what the loop has pushed and not written yet: it may be busy for long.
    if (!full_ && elsewhere) {
      WriteLocked();
      if (write_error_.ok() && queue_.empty()) return Next::kNothing;
    }
  }
  return std::exchange(flush_due_, true) ? Next::kNothing : Next::kPostFlush;
}

void SocketSession::WriteBatch() {
  {
    MutexLock lock(mutex_);
    if (closing_) return;  // Flush is posted
    if (!full_) WriteLocked();
    if (write_error_.ok() && queue_.empty()) {
      flush_due_ = false;
      return;
    }
  }
  PostFlush();
}

void SocketSession::WriteLocked() {
  if (!write_error_.ok()) return;
  write_error_ = queue_.WriteTo(socket_);
  full_ = !queue_.empty();
}

void SocketSession::FailLocked(absl::Status why) {
  closing_ = true;
  why_ = std::move(why);
  queue_.Clear();
  flush_due_ = false;  // even when the loop waits for room: it must hear of this now
}

void SocketSession::PostFlush() {
  loop_->Post([self = shared_from_this()] { self->Flush(); });
}

void SocketSession::Close() {
  {
    MutexLock lock(mutex_);
    if (closing_) return;
    closing_ = true;
    why_ = Cancelled("closed by this side");
    flush_due_ = true;
  }
  PostFlush();
}

void SocketSession::Flush() {
  if (finished_) return;
  absl::Status why, write_error;
  bool wait;
  {
    MutexLock lock(mutex_);
    WriteLocked();
    if (!write_error_.ok()) queue_.Clear();
    write_error = write_error_;
    if (closing_) why = why_;
    wait = !queue_.empty();
    flush_due_ = wait;
  }
  if (!why.ok()) return Finish(std::move(why));
  if (!write_error.ok()) {
    ReadAll(kReadsAtEnd);  // the peer may have sent frames before it went
    return Finish(Unavailable(peer_, " takes no more data: ", Message(write_error)));
  }
  if (std::exchange(waits_for_room_, wait) != wait) {
    loop_->Modify(watch_, socket_, kReadEvents | (wait ? EPOLLOUT : 0u));
  }
}

void SocketSession::OnReady(uint32_t epoll_events) {
  if (finished_) return;
  if (epoll_events & EPOLLOUT) Flush();
  if (!finished_ && (epoll_events & (kReadEvents | EPOLLHUP | EPOLLERR))) ReadAll(kReadsPerTurn);
}

void SocketSession::OnStop() { Finish(Cancelled("this process stops its network")); }

void SocketSession::ReadAll(int max_reads) {
  for (int i = 0; i < max_reads; ++i) {
    const absl::StatusOr<Received> received = Receive();
    if (received.ok() && *received == Received::kNothing) return;
    const absl::Status status = received.ok() ? Deliver() : received.status();
    if (closing()) return;  // Flush is posted and says why
    if (!status.ok()) return Finish(status);
    if (*received == Received::kShort && max_reads == kReadsPerTurn) return;  // all, or else epoll says so again
  }
}

absl::StatusOr<SocketSession::Received> SocketSession::Receive() {
  const std::span<char> room = decoder_.WritableBytes();
  iovec piece = {room.data(), room.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * FrameDecoder::kMaxPendingFds)];
  msghdr message = {};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = passes_fds_ ? sizeof(control) : 0;
  ssize_t bytes;
  do {
    bytes = recvmsg(socket_, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (bytes < 0 && errno == EINTR);
  if (bytes < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return Received::kNothing;
  if (bytes < 0) return Unavailable("connection to ", peer_, " broke: ", std::strerror(errno));
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr; part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    absl::Status status;
    for (size_t i = 0; i < count; ++i) {  // all of them become owned, also after an error
      int fd;
      std::memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof(fd));
      absl::Status added = decoder_.AddFd(UniqueFd(fd));
      if (!added.ok()) status = std::move(added);
    }
    BATON_RETURN_IF_ERROR(status);
  }
  if (message.msg_flags & MSG_CTRUNC) {
    return ResourceExhausted("a file descriptor from ", peer_,
                             " was lost: is the limit of open files (ulimit -n) reached?");
  }
  if (bytes == 0) {
    if (decoder_.pending_bytes() == 0) return Unavailable(peer_, " closed the connection");
    return Unavailable(peer_, " closed the connection within a frame");
  }
  decoder_.Commit(static_cast<size_t>(bytes));
  heard_anything_ = true;
  return static_cast<size_t>(bytes) < room.size() ? Received::kShort : Received::kFull;
}

absl::Status SocketSession::Deliver() {
  while (!closing()) {
    std::string_view frame;
    UniqueFd fd;
    BATON_ASSIGN_OR_RETURN(const bool whole, decoder_.Next(frame, fd));
    if (decoder_.TakePing()) SendBeat(kPongHeader);
    if (!whole) break;
    heard_frames_ = true;
    if (accept_) {
      BATON_RETURN_IF_ERROR(Open(frame));
    } else if (events_.on_frame) {
      events_.on_frame(frame, std::move(fd));
    }
  }
  return absl::OkStatus();
}

absl::Status SocketSession::Open(std::string_view handshake) {
  BATON_RETURN_IF_ERROR(CheckHandshake(handshake));
  decoder_.set_max_frame_bytes(kMaxFrameBytes);
  events_ = std::exchange(accept_, nullptr)(shared_from_this());
  StartWatch();
  return absl::OkStatus();
}

// ---- heart-beats ----

void SocketSession::StartWatch() {
  if (!events_.watched || finished_) return;
  peer_watch_ = std::make_unique<PeerWatch>(options_.watch);
  process_ = std::make_unique<ProcessWatch>(peer_pid_);
  heard_anything_ = true;  // it has just shaken hands
  Beat();
}

void SocketSession::Beat() {
  if (finished_) return;
  const bool heard = std::exchange(heard_anything_, false);
  const PeerHealth before = peer_watch_->health();
  const PeerHealth now =
      peer_watch_->Beat(heard, [this] { return options_.look ? options_.look(peer_pid_) : process_->Look(); });
  if (now != before) {
    const std::string why = now == PeerHealth::kWell ? Cat(peer_, " is back")
                                                     : Cat(peer_, " is silent for ", peer_watch_->silent_ms(),
                                                           " ms and ", ProcessStateText(peer_watch_->state()));
    if (now == PeerHealth::kLost) return Finish(DeadlineExceeded(why));
    if (events_.on_health) events_.on_health(now, why);
    if (finished_) return;
  }
  if (heard) question_sent_ = false;
  if (!std::exchange(heard_frames_, false) && !std::exchange(question_sent_, true)) SendBeat(kPingHeader);
  loop_->RunAfter(options_.watch.interval_ms, [weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->Beat();
  });
}

// Posted, because it may be called in the middle of reading.
void SocketSession::SendBeat(uint32_t header) {
  {
    MutexLock lock(mutex_);
    if (closing_) return;
    queue_.PushBeat(header);
    if (std::exchange(flush_due_, true)) return;
  }
  PostFlush();
}

bool SocketSession::closing() {
  MutexLock lock(mutex_);
  return closing_;
}

void SocketSession::Finish(absl::Status why) {
  if (std::exchange(finished_, true)) return;
  loop_->Unwatch(watch_, socket_);
  {
    MutexLock lock(mutex_);
    if (closing_) why = why_;
    closing_ = true;
    queue_.Clear();
    fd_.Reset();
  }
  // Who only looks whether somebody listens is no news.
  if (accept_ && !absl::IsUnavailable(why) && !absl::IsCancelled(why))
    LogWarning("refused ", peer_, ": ", Message(why));
  const SessionEvents events = std::exchange(events_, {});
  accept_ = nullptr;
  if (events.on_closed) events.on_closed(std::move(why));
}

}  // namespace baton
