// Sessions between processes: ordered frames of bytes, with file descriptors beside them, and news of the peer's death.
//
//   BATON_ASSIGN_OR_RETURN(auto network, Network::Create());
//   BATON_ASSIGN_OR_RETURN(auto listener, network->Listen("unix:/run/baton/decode-0", [](std::shared_ptr<Session> peer)
//   {
//     return SessionEvents{.on_frame = [peer](std::string_view frame, UniqueFd) { peer->Send(std::string(frame)); }};
//   }));
//   BATON_ASSIGN_OR_RETURN(auto session, network->Connect("unix:/run/baton/decode-0", std::move(events), 1000));
//   session->Send("hello");
//
// Sessions whose events say `watched` have heart-beats: the other side's network thread answers them, whatever its
// other threads do. A peer that falls silent is first suspected (on_health), then lost (the session closes):
// peer_watch.h says when.
//
// Addresses are "unix:/absolute/path" and "tcp:host:port" (no descriptors; port 0 lets the kernel choose).
//
// Threading: every method from any thread. All callbacks come from the network's one thread and must not block; Connect
//   waits on the calling thread.
// Ownership: the network holds a session until on_closed has returned, then drops its callbacks (so they may hold the
//   session). Handles may outlive the network and then do nothing. ~Network closes every session, calls its
//   on_closed, and joins: when it returns no callback runs any more. Never destroy it from a callback.
// Errors: on_closed says why: Unavailable, the peer is gone; DeadlineExceeded, it is lost, and could still do what it
// was
//   told before unless it is killed; ResourceExhausted, it reads too slowly; Cancelled, this
//   side closed; InvalidArgument, one side broke the rules of framing; FailedPrecondition, another version.
// Limits: frames of 64 MiB; NetworkOptions::max_queued_bytes for each session.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"
#include "base/unique_fd.h"
#include "rpc/peer_watch.h"

namespace baton {

class Session {
 public:
  virtual ~Session() = default;
  // Never blocks. Frames arrive whole and in order, each with its descriptor. What cannot be sent (frame or queue over
  // its limit, a descriptor over TCP) closes the session; after that frames are dropped.
  virtual void Send(std::string frame, UniqueFd fd = {}) = 0;
  // Frames sent before are still written as far as the peer's buffer takes them at once. No on_frame begins after
  // Close has returned on the network's thread.
  virtual void Close() = 0;
  // For people: "unix:/path (pid 123)", "tcp:10.0.0.2:4711".
  virtual std::string peer() const = 0;
  // The process that called connect or listen, as the kernel saw it; 0 over TCP.
  virtual int32_t peer_pid() const = 0;
  // Both ends are in this process (rpc/local_session.h).
  virtual bool within_process() const { return false; }
};

struct SessionEvents {
  // The view is valid during the call.
  std::function<void(std::string_view frame, UniqueFd fd)> on_frame;
  // Exactly once, after the last on_frame.
  std::function<void(absl::Status why)> on_closed;
  bool watched = false;  // by heart-beats
  // At each change between well and suspected; `why` is for people.
  std::function<void(PeerHealth health, const std::string& why)> on_health;
};

// Stops listening when destroyed; sessions that were accepted go on.
class Listener {
 public:
  virtual ~Listener() = default;
  // What to connect to, with the port that the kernel chose.
  virtual const std::string& address() const = 0;
};

// Cancels when destroyed: on the network's thread the function does not run after that; from another thread it may be
// running just then.
class Timer {
 public:
  virtual ~Timer() = default;
};

struct NetworkOptions {
  int64_t max_queued_bytes = 128 << 20;  // of one session, not yet taken by the kernel
  PeerWatchOptions watch;                // of watched sessions
  // What the peer of a watched session is doing; empty: as the kernel sees it. Tests say it themselves.
  std::function<ProcessState(int32_t pid)> look;
};

class Network {
 public:
  using Accept = std::function<SessionEvents(std::shared_ptr<Session>)>;

  static absl::StatusOr<std::unique_ptr<Network>> Create(const NetworkOptions& options = {});
  virtual ~Network() = default;

  // A unix socket's folder is created for its owner alone (0700), or must be so already; the file of a listener that
  // died is replaced. `accept` is called when a peer has shown that it speaks this protocol.
  virtual absl::StatusOr<std::unique_ptr<Listener>> Listen(const std::string& address, Accept accept) = 0;
  // Returns when the peer has answered. Callbacks may come before that. Unavailable: nobody listens; DeadlineExceeded:
  // no answer in time.
  virtual absl::StatusOr<std::shared_ptr<Session>> Connect(const std::string& address, SessionEvents events,
                                                           int64_t timeout_ms) = 0;
  // Runs `work` on the network's thread, in order.
  virtual void Post(std::function<void()> work) = 0;
  [[nodiscard]] virtual std::unique_ptr<Timer> RunAfter(int64_t delay_ms, std::function<void()> work) = 0;
};

}  // namespace baton
