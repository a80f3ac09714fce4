#include "bench/http_stream_client.h"

#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>

#include "base/steady_clock.h"

namespace baton {
namespace {

constexpr size_t kReadBytes = 64 << 10;

absl::Status BadUrl(std::string_view url) {
  return InvalidArgument("URL: expected http://host:port, found '", url, "'");
}

absl::Status Resolve(const std::string& host, const std::string& port, HttpTarget& target) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int code = getaddrinfo(host.c_str(), port.c_str(), &hints, &found); code != 0) {
    return Unavailable("cannot find an address of ", host, ": ", gai_strerror(code));
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> guard(found, &freeaddrinfo);
  const addrinfo* chosen =
      found;  // an IPv4 address if there is one: servers listen on 127.0.0.1 more often than on ::1
  for (const addrinfo* entry = found; entry != nullptr; entry = entry->ai_next) {
    if (entry->ai_family == AF_INET) {
      chosen = entry;
      break;
    }
  }
  std::memcpy(&target.address, chosen->ai_addr, chosen->ai_addrlen);
  target.address_size = chosen->ai_addrlen;
  return absl::OkStatus();
}

absl::Status Lost(std::string_view what, int error) {
  return Unavailable(what, ": ", std::strerror(error));  // one thread: strerror's buffer is ours
}

}  // namespace

absl::StatusOr<HttpTarget> ResolveUrl(std::string_view url) {
  constexpr std::string_view kScheme = "http://";
  if (!url.starts_with(kScheme)) return BadUrl(url);
  std::string_view rest = url.substr(kScheme.size());
  const size_t slash = rest.find('/');
  std::string_view path = slash == std::string_view::npos ? std::string_view() : rest.substr(slash);
  while (path.ends_with('/')) path.remove_suffix(1);
  rest = rest.substr(0, slash);
  const size_t colon = rest.rfind(':');
  const bool has_port = colon != std::string_view::npos && rest.find(']', colon) == std::string_view::npos;
  std::string_view host = has_port ? rest.substr(0, colon) : rest;
  const std::string_view port = has_port ? rest.substr(colon + 1) : "80";
  int number = 0;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
  if (host.empty() || error != std::errc() || end != port.data() + port.size() || number < 1 || number > 65535 ||
      path.find_first_of(" \r\n?#") != std::string_view::npos ||
      host.find_first_of(" \r\n@") != std::string_view::npos) {
    return BadUrl(url);
  }
  HttpTarget target{.authority = std::string(rest), .base_path = std::string(path)};
  if (host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  BATON_RETURN_IF_ERROR(Resolve(std::string(host), std::string(port), target));
  return target;
}

std::string MakeRequest(const HttpTarget& target, std::string_view method, std::string_view path,
                        std::string_view body) {
  std::string out = Cat(method, " ", target.base_path, path, " HTTP/1.1\r\nHost: ", target.authority, "\r\n");
  if (!body.empty()) out += "Content-Type: application/json\r\n";
  if (!body.empty() || method == "POST") out += Cat("Content-Length: ", body.size(), "\r\n");
  out += "\r\n";
  out += body;
  return out;
}

absl::Status HttpStreamClient::Open() {
  socket_ = UniqueFd(::socket(target_.address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket_.valid()) return Lost("socket", errno);
  const int one = 1;
  ::setsockopt(socket_.get(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  exchanges_ = 0;
  if (::connect(socket_.get(), reinterpret_cast<const sockaddr*>(&target_.address), target_.address_size) != 0 &&
      errno != EINPROGRESS) {
    const int error = errno;
    Close();
    return Lost("connect", error);
  }
  return absl::OkStatus();
}

void HttpStreamClient::Close() { socket_.Reset(); }

absl::Status HttpStreamClient::Start(std::string request) {
  request_ = std::move(request);
  sent_ = 0;
  parser_.Reset();
  if (!is_open()) BATON_RETURN_IF_ERROR(Open());
  ++exchanges_;
  return Write();
}

absl::Status HttpStreamClient::Write() {
  while (wants_write()) {
    const ssize_t count = ::send(socket_.get(), request_.data() + sent_, request_.size() - sent_, MSG_NOSIGNAL);
    if (count < 0) {
      if (errno == EAGAIN || errno == EWOULDBLOCK) return absl::OkStatus();  // also while connecting
      if (errno == EINTR) continue;
      return Lost(exchanges_ > 1 || sent_ > 0 ? "connection closed" : "connect", errno);
    }
    sent_ += static_cast<size_t>(count);
  }
  return absl::OkStatus();
}

absl::Status HttpStreamClient::Read(std::string& body) {
  char buffer[kReadBytes];
  const ssize_t count = ::recv(socket_.get(), buffer, sizeof(buffer), 0);
  if (count < 0) {
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) return absl::OkStatus();
    return Lost(sent_ == 0 && exchanges_ <= 1 ? "connect" : "connection closed", errno);
  }
  if (count == 0) {
    BATON_RETURN_IF_ERROR(parser_.FinishAtEnd());
    if (!parser_.done()) return Unavailable("connection closed: no answer came");
    return absl::OkStatus();
  }
  const std::string_view bytes(buffer, static_cast<size_t>(count));
  BATON_ASSIGN_OR_RETURN(const size_t used, parser_.Feed(bytes, body));
  if (used < bytes.size()) return DataLoss("HTTP response: ", bytes.size() - used, " bytes follow the answer's end");
  return absl::OkStatus();
}

void HttpStreamClient::EndExchange() {
  if (!parser_.done() || !parser_.keep_alive() || wants_write()) Close();
}

std::string HttpStreamClient::TakeRequestAndClose() {
  Close();
  return std::move(request_);
}

absl::StatusOr<HttpAnswer> Exchange(const HttpTarget& target, std::string_view method, std::string_view path,
                                    std::string_view body, int64_t timeout_ms) {
  HttpStreamClient client(target);
  HttpAnswer answer;
  BATON_RETURN_IF_ERROR(client.Start(MakeRequest(target, method, path, body)));
  const int64_t deadline = SteadyMicroseconds() + timeout_ms * 1000;
  while (!client.response().done()) {
    const int64_t left_ms = (deadline - SteadyMicroseconds()) / 1000;
    if (left_ms <= 0) return DeadlineExceeded(path, ": no answer within ", timeout_ms, " ms");
    const short events = static_cast<short>(POLLIN | (client.wants_write() ? POLLOUT : 0));
    pollfd waiting{.fd = client.fd(), .events = events, .revents = 0};
    if (::poll(&waiting, 1, static_cast<int>(left_ms)) <= 0) continue;
    if (client.wants_write()) BATON_RETURN_IF_ERROR(client.Write());
    if ((waiting.revents & (POLLIN | POLLHUP | POLLERR)) != 0) BATON_RETURN_IF_ERROR(client.Read(answer.body));
  }
  answer.status = client.response().status();
  return answer;
}

}  // namespace baton
