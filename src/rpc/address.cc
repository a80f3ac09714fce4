#include "rpc/address.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstring>
#include <memory>
#include <thread>
#include <utility>

#include "base/steady_clock.h"

namespace baton {

namespace {

constexpr int kBacklog = 512;

absl::StatusOr<sockaddr_un> UnixName(const std::string& path) {
  sockaddr_un name = {};
  name.sun_family = AF_UNIX;
  if (path.size() >= sizeof(name.sun_path)) {
    return InvalidArgument("unix socket path of ", path.size(), " bytes: expected at most ", sizeof(name.sun_path) - 1,
                           "; choose a shorter run folder (", path, ")");
  }
  std::memcpy(name.sun_path, path.data(), path.size());
  return name;
}

absl::Status EnsurePrivateFolder(const std::string& path) {
  const std::string folder = path.substr(0, std::max<size_t>(path.rfind('/'), 1));
  if (mkdir(folder.c_str(), 0700) == 0) return absl::OkStatus();
  if (errno != EEXIST) return Errno("mkdir", folder);
  struct stat info;
  if (stat(folder.c_str(), &info) != 0) return Errno("stat", folder);
  if (!S_ISDIR(info.st_mode) || info.st_uid != geteuid() || (info.st_mode & 077) != 0) {
    return FailedPrecondition("socket folder ", folder,
                              " must belong to this user and be closed to others: chmod 700 it,",
                              " or name a folder that does not exist yet");
  }
  return absl::OkStatus();
}

// A socket file outlives its listener; only connecting shows whether somebody is behind it.
absl::Status RemoveStaleSocket(const sockaddr_un& name) {
  struct stat info;
  if (lstat(name.sun_path, &info) != 0) return errno == ENOENT ? absl::OkStatus() : Errno("lstat", name.sun_path);
  if (!S_ISSOCK(info.st_mode)) return FailedPrecondition(name.sun_path, " exists and is not a socket: remove it");
  UniqueFd probe(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!probe.valid()) return Errno("socket");
  if (connect(probe.get(), reinterpret_cast<const sockaddr*>(&name), sizeof(name)) == 0 || errno == EAGAIN) {
    return absl::AlreadyExistsError(Cat("another process listens on ", name.sun_path));
  }
  if (errno != ECONNREFUSED) return Errno("connect", name.sun_path);
  if (unlink(name.sun_path) != 0 && errno != ENOENT) return Errno("unlink", name.sun_path);
  return absl::OkStatus();
}

absl::StatusOr<ListeningSocket> ListenOnUnix(const SocketAddress& address) {
  BATON_ASSIGN_OR_RETURN(const sockaddr_un name, UnixName(address.path));
  BATON_RETURN_IF_ERROR(EnsurePrivateFolder(address.path));
  BATON_RETURN_IF_ERROR(RemoveStaleSocket(name));
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return Errno("socket");
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&name), sizeof(name)) != 0) return Errno("bind", address.path);
  if (chmod(name.sun_path, 0600) != 0) return Errno("chmod", address.path);
  if (listen(fd.get(), kBacklog) != 0) return Errno("listen", address.path);
  return ListeningSocket{std::move(fd), Cat("unix:", address.path)};
}

using AddressList = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

absl::StatusOr<AddressList> Resolve(const SocketAddress& address, int flags) {
  addrinfo hints = {};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(address.host.c_str(), address.port.c_str(), &hints, &found); error != 0) {
    return Unavailable("cannot resolve host ", address.host, ": ", gai_strerror(error));
  }
  return AddressList(found, &freeaddrinfo);
}

std::string DescribeTcp(const sockaddr* name, socklen_t length) {
  char host[NI_MAXHOST], port[NI_MAXSERV];
  if (getnameinfo(name, length, host, sizeof(host), port, sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
    return "tcp:?";
  }
  return name->sa_family == AF_INET6 ? Cat("tcp:[", host, "]:", port) : Cat("tcp:", host, ":", port);
}

absl::StatusOr<ListeningSocket> ListenOnTcp(const SocketAddress& address) {
  BATON_ASSIGN_OR_RETURN(const AddressList list, Resolve(address, AI_PASSIVE));
  UniqueFd fd(socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return Errno("socket");
  const int on = 1;
  setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  const std::string wanted = Cat(address.host, ":", address.port);
  if (bind(fd.get(), list->ai_addr, list->ai_addrlen) != 0) return Errno("bind", wanted);
  if (listen(fd.get(), kBacklog) != 0) return Errno("listen", wanted);
  sockaddr_storage name;
  socklen_t length = sizeof(name);
  if (getsockname(fd.get(), reinterpret_cast<sockaddr*>(&name), &length) != 0) return Errno("getsockname", wanted);
  return ListeningSocket{std::move(fd), DescribeTcp(reinterpret_cast<sockaddr*>(&name), length)};
}

absl::Status ConnectSocket(int fd, const sockaddr* name, socklen_t length, int64_t deadline_us) {
  while (connect(fd, name, length) != 0) {
    if (errno == EINTR) continue;
    if (errno == EINPROGRESS) {
      BATON_RETURN_IF_ERROR(WaitForSocket(fd, POLLOUT, deadline_us));
      int error = 0;
      socklen_t size = sizeof(error);
      getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
      errno = error;
      if (error == 0) return absl::OkStatus();
    }
    // A unix listener whose backlog is full says so, and cannot be polled for.
    if (errno != EAGAIN) return Errno("connect");
    if (SteadyMicroseconds() >= deadline_us) return DeadlineExceeded("the listener accepts nobody");
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SocketAddress> ParseAddress(std::string_view text) {
  SocketAddress address;
  if (text.starts_with("unix:/") && text.size() > 6 && text.find('\0') == text.npos) {
    address.is_unix = true;
    address.path = text.substr(5);
    return address;
  }
  const size_t colon = text.rfind(':');
  if (text.starts_with("tcp:") && colon > 4) {
    std::string_view host = text.substr(4, colon - 4);
    if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
    const std::string_view port = text.substr(colon + 1);
    uint16_t number = 0;
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
    if (error == std::errc() && end == port.data() + port.size() && !host.empty()) {
      address.host = host;
      address.port = port;
      return address;
    }
  }
  return InvalidArgument("address \"", text, "\": expected unix:/absolute/path or tcp:host:port");
}

absl::StatusOr<ListeningSocket> ListenOn(const SocketAddress& address) {
  return address.is_unix ? ListenOnUnix(address) : ListenOnTcp(address);
}

absl::StatusOr<UniqueFd> ConnectTo(const SocketAddress& address, int64_t deadline_us) {
  if (address.is_unix) {
    BATON_ASSIGN_OR_RETURN(const sockaddr_un name, UnixName(address.path));
    UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd.valid()) return Errno("socket");
    BATON_RETURN_IF_ERROR(ConnectSocket(fd.get(), reinterpret_cast<const sockaddr*>(&name), sizeof(name), deadline_us));
    return fd;
  }
  BATON_ASSIGN_OR_RETURN(const AddressList list, Resolve(address, 0));
  absl::Status status = Unavailable("no address of host ", address.host);
  for (const addrinfo* entry = list.get(); entry != nullptr; entry = entry->ai_next) {
    UniqueFd fd(socket(entry->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd.valid()) return Errno("socket");
    TuneTcp(fd.get());
    status = ConnectSocket(fd.get(), entry->ai_addr, entry->ai_addrlen, deadline_us);
    if (status.ok()) return fd;
  }
  return status;
}

absl::Status WaitForSocket(int fd, short events, int64_t deadline_us) {
  while (true) {
    const int64_t left_ms = (deadline_us - SteadyMicroseconds() + 999) / 1000;
    if (left_ms <= 0) return DeadlineExceeded("no answer in time");
    pollfd poll_fd = {.fd = fd, .events = events};
    const int ready = poll(&poll_fd, 1, static_cast<int>(std::min<int64_t>(left_ms, 60'000)));
    if (ready > 0) return absl::OkStatus();
    if (ready < 0 && errno != EINTR) return Errno("poll");
  }
}

void TuneTcp(int fd) {
  const int on = 1, idle_s = 5, interval_s = 2, probes = 3, unacknowledged_ms = 10'000;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
  setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unacknowledged_ms, sizeof(unacknowledged_ms));
}

std::string DescribePeer(int fd, const SocketAddress& local, int32_t& pid) {
  pid = 0;
  if (local.is_unix) {
    ucred credentials = {};
    socklen_t size = sizeof(credentials);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) == 0) pid = credentials.pid;
    return Cat("unix:", local.path, " (pid ", pid, ")");
  }
  sockaddr_storage name;
  socklen_t length = sizeof(name);
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&name), &length) != 0) return "tcp:?";
  return DescribeTcp(reinterpret_cast<sockaddr*>(&name), length);
}

}  // namespace baton
