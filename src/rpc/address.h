// "unix:/path" and "tcp:host:port" as sockets.
//
// Threading: any. Ownership: results own their descriptors. Errors: InvalidArgument for what cannot be an address,
// else what the system said, with what to do. Limits: 107 bytes of unix path.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"
#include "base/unique_fd.h"

namespace baton {

struct SocketAddress {
  bool is_unix = false;
  std::string path;  // unix
  std::string host;  // tcp
  std::string port;
};

absl::StatusOr<SocketAddress> ParseAddress(std::string_view text);

struct ListeningSocket {
  UniqueFd fd;
  std::string address;  // with the port that the kernel chose
};
// Non-blocking. Creates a unix socket's folder (0700) and replaces the socket file of a dead listener.
absl::StatusOr<ListeningSocket> ListenOn(const SocketAddress& address);

// Connected and non-blocking. Unavailable when nobody listens.
absl::StatusOr<UniqueFd> ConnectTo(const SocketAddress& address, int64_t deadline_us);

// Waits for poll events; DeadlineExceeded. Deadlines are steady microseconds.
absl::Status WaitForSocket(int fd, short events, int64_t deadline_us);

// What accepted and connected TCP sockets need: no delay, and news of a peer whose machine is gone.
void TuneTcp(int fd);
// "unix:/path (pid 7)" or "tcp:1.2.3.4:80", and the peer's process (0 over TCP).
std::string DescribePeer(int fd, const SocketAddress& local, int32_t& pid);

}  // namespace baton
