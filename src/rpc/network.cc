#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <atomic>
#include <cstring>
#include <utility>

#include "base/log.h"
#include "base/steady_clock.h"
#include "rpc/address.h"
#include "rpc/event_loop.h"
#include "rpc/handshake.h"
#include "rpc/session.h"
#include "rpc/socket_session.h"

namespace baton {

namespace {

constexpr int kAcceptsPerTurn = 16;
constexpr int64_t kAcceptPauseMs = 100;  // when the process has no descriptor left

// The loop's side of a listener.
class ListeningPort : public Watched, public std::enable_shared_from_this<ListeningPort> {
 public:
  ListeningPort(std::shared_ptr<EventLoop> loop, ListeningSocket socket, SocketAddress address, Network::Accept accept,
                const NetworkOptions& options)
      : loop_(std::move(loop)),
        fd_(std::move(socket.fd)),
        text_(std::move(socket.address)),
        address_(std::move(address)),
        accept_(std::move(accept)),
        options_(options) {
    if (address_.is_unix) stat(address_.path.c_str(), &file_);
  }

  void Start() {
    loop_->Post([self = shared_from_this()] { self->watch_ = self->loop_->Watch(self->fd_.get(), EPOLLIN, self); });
  }

  void Stop() {
    open_ = false;
    struct stat now;
    if (address_.is_unix && stat(address_.path.c_str(), &now) == 0 && now.st_ino == file_.st_ino &&
        now.st_dev == file_.st_dev) {
      unlink(address_.path.c_str());
    }
    shutdown(fd_.get(), SHUT_RDWR);
    loop_->Post([self = shared_from_this()] { self->loop_->Unwatch(self->watch_, self->fd_.get()); });
  }

  const std::string& text() const { return text_; }

  void OnStop() override {}

  void OnReady(uint32_t) override {
    for (int i = 0; i < kAcceptsPerTurn && open_; ++i) {
      UniqueFd fd(accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (fd.valid()) {
        Welcome(std::move(fd));
      } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        return Pause();
      } else if (errno != EINTR && errno != ECONNABORTED) {
        return;
      }
    }
  }

 private:
  void Welcome(UniqueFd fd) {
    if (!address_.is_unix) TuneTcp(fd.get());
    auto session = std::make_shared<SocketSession>(loop_, std::move(fd), address_, options_);
    session->StartHandshake([self = shared_from_this()](std::shared_ptr<Session> peer) -> SessionEvents {
      if (self->open_) return self->accept_(std::move(peer));
      peer->Close();
      return {};
    });
  }

  void Pause() {
    LogWarning("cannot accept on ", text_, ": ", std::strerror(errno), "; raise the limit of open files (ulimit -n)");
    loop_->Modify(watch_, fd_.get(), 0);
    loop_->RunAfter(kAcceptPauseMs, [self = shared_from_this()] {
      if (self->open_) self->loop_->Modify(self->watch_, self->fd_.get(), EPOLLIN);
    });
  }

  const std::shared_ptr<EventLoop> loop_;
  const UniqueFd fd_;
  const std::string text_;
  const SocketAddress address_;
  const Network::Accept accept_;
  const NetworkOptions options_;
  struct stat file_ = {};
  std::atomic<bool> open_ = true;
  uint64_t watch_ = 0;
};

class PortListener : public Listener {
 public:
  explicit PortListener(std::shared_ptr<ListeningPort> port) : port_(std::move(port)) {}
  ~PortListener() override { port_->Stop(); }
  const std::string& address() const override { return port_->text(); }

 private:
  const std::shared_ptr<ListeningPort> port_;
};

class LoopTimer : public Timer {
 public:
  LoopTimer(std::shared_ptr<EventLoop> loop, EventLoop::TimerKey key) : loop_(std::move(loop)), key_(key) {}
  ~LoopTimer() override { loop_->CancelTimer(key_); }

 private:
  const std::shared_ptr<EventLoop> loop_;
  const EventLoop::TimerKey key_;
};

absl::Status ReceiveExactly(int fd, char* data, size_t bytes, int64_t deadline_us) {
  while (bytes > 0) {
    BATON_RETURN_IF_ERROR(WaitForSocket(fd, POLLIN, deadline_us));
    const ssize_t got = recv(fd, data, bytes, MSG_DONTWAIT);
    if (got == 0) return Unavailable("the peer closed the connection instead of answering");
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (got < 0) return Errno("recv");
    data += got;
    bytes -= static_cast<size_t>(got);
  }
  return absl::OkStatus();
}

absl::Status ShakeHands(int fd, int64_t deadline_us) {
  SendQueue ours;
  ours.Push(EncodeHandshake(), {});
  BATON_RETURN_IF_ERROR(ours.WriteTo(fd));  // a fresh socket takes these few bytes
  uint32_t header;
  BATON_RETURN_IF_ERROR(ReceiveExactly(fd, reinterpret_cast<char*>(&header), sizeof(header), deadline_us));
  if (header > kMaxHandshakeBytes) {
    return CheckHandshake({reinterpret_cast<const char*>(&header), sizeof(header)});  // not ours: show what came
  }
  std::string theirs(header, '\0');
  BATON_RETURN_IF_ERROR(ReceiveExactly(fd, theirs.data(), theirs.size(), deadline_us));
  return CheckHandshake(theirs);
}

class SocketNetwork : public Network {
 public:
  SocketNetwork(std::shared_ptr<EventLoop> loop, const NetworkOptions& options)
      : loop_(std::move(loop)), options_(options) {}
  ~SocketNetwork() override { loop_->Stop(); }

  absl::StatusOr<std::unique_ptr<Listener>> Listen(const std::string& address, Accept accept) override {
    BATON_ASSIGN_OR_RETURN(SocketAddress parsed, ParseAddress(address));
    BATON_ASSIGN_OR_RETURN(ListeningSocket socket, ListenOn(parsed));
    auto port =
        std::make_shared<ListeningPort>(loop_, std::move(socket), std::move(parsed), std::move(accept), options_);
    port->Start();
    return std::make_unique<PortListener>(std::move(port));
  }

  absl::StatusOr<std::shared_ptr<Session>> Connect(const std::string& address, SessionEvents events,
                                                   int64_t timeout_ms) override {
    BATON_ASSIGN_OR_RETURN(const SocketAddress parsed, ParseAddress(address));
    const int64_t deadline_us = SteadyMicroseconds() + timeout_ms * 1000;
    absl::StatusOr<UniqueFd> fd = ConnectTo(parsed, deadline_us);
    absl::Status status = fd.ok() ? ShakeHands(fd->get(), deadline_us) : fd.status();
    if (absl::IsNotFound(status)) status = Unavailable("nobody listens there");
    if (!status.ok()) return absl::Status(status.code(), Cat("cannot connect to ", address, ": ", Message(status)));
    auto session = std::make_shared<SocketSession>(loop_, *std::move(fd), parsed, options_);
    session->StartOpen(std::move(events));
    return session;
  }

  void Post(std::function<void()> work) override { loop_->Post(std::move(work)); }

  std::unique_ptr<Timer> RunAfter(int64_t delay_ms, std::function<void()> work) override {
    return std::make_unique<LoopTimer>(loop_, loop_->RunAfter(delay_ms, std::move(work)));
  }

 private:
  const std::shared_ptr<EventLoop> loop_;
  const NetworkOptions options_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Network>> Network::Create(const NetworkOptions& options) {
  if (options.max_queued_bytes < kMaxFrameBytes) {
    return InvalidArgument("max_queued_bytes of ", options.max_queued_bytes, ": expected at least one frame, ",
                           kMaxFrameBytes);
  }
  BATON_ASSIGN_OR_RETURN(std::shared_ptr<EventLoop> loop, EventLoop::Start());
  return std::make_unique<SocketNetwork>(std::move(loop), options);
}

}  // namespace baton
