// What sending costs at least: processor seconds of bare send() calls, so many bytes to so many streams at each step.
//
//   bare_sends STREAMS STEPS STEP_MS BYTES
//
// Prints "cpu_s_per_1000=… sends=…". The floor beside which benchmarks/front_end.py shows the front end's cost: a
// server that streams tokens makes at least one such call for each stream and step. Client and server are processes of
// their own, and only the server's time counts; the client waits in epoll, as `baton bench serve` does.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "base/unique_fd.h"

namespace baton {
namespace {

struct Plan {
  int streams = 0, steps = 0, step_ms = 0, bytes = 0;
};

double CpuSeconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

[[noreturn]] void Give(const char* what) {
  std::perror(what);
  std::exit(1);
}

UniqueFd Listen(sockaddr_in& address) {
  UniqueFd listener(::socket(AF_INET, SOCK_STREAM, 0));
  address = {.sin_family = AF_INET, .sin_port = 0, .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}, .sin_zero = {}};
  socklen_t size = sizeof(address);
  auto* any = reinterpret_cast<sockaddr*>(&address);
  if (::bind(listener.get(), any, size) != 0 || ::listen(listener.get(), 4096) != 0) Give("listen");
  ::getsockname(listener.get(), any, &size);
  return listener;
}

// Connects everything, then reads until the server closes.
void RunClient(const Plan& plan, const sockaddr_in& address) {
  const UniqueFd epoll(::epoll_create1(0));
  std::vector<UniqueFd> streams;
  for (int i = 0; i < plan.streams; ++i) {
    UniqueFd& stream = streams.emplace_back(::socket(AF_INET, SOCK_STREAM, 0));
    if (::connect(stream.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) Give("connect");
    epoll_event event{.events = EPOLLIN, .data = {.fd = stream.get()}};
    ::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, stream.get(), &event);
  }
  std::vector<char> buffer(1 << 16);
  for (int open = plan.streams; open > 0;) {
    epoll_event events[256];
    const int count = ::epoll_wait(epoll.get(), events, 256, -1);
    for (int i = 0; i < count; ++i) {
      if (::recv(events[i].data.fd, buffer.data(), buffer.size(), 0) > 0) continue;
      ::epoll_ctl(epoll.get(), EPOLL_CTL_DEL, events[i].data.fd, nullptr);
      --open;
    }
  }
}

double SendAll(const Plan& plan, const UniqueFd& listener) {
  std::vector<UniqueFd> streams;
  for (int i = 0; i < plan.streams; ++i) {
    const int on = 1;
    UniqueFd& stream = streams.emplace_back(::accept(listener.get(), nullptr, nullptr));
    ::setsockopt(stream.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  }
  const std::string bytes(static_cast<size_t>(plan.bytes), 'x');
  const double before = CpuSeconds();
  auto next = std::chrono::steady_clock::now();
  for (int step = 0; step < plan.steps; ++step, next += std::chrono::milliseconds(plan.step_ms)) {
    std::this_thread::sleep_until(next);
    for (const UniqueFd& stream : streams) {
      if (::send(stream.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) < 0) Give("send");
    }
  }
  return CpuSeconds() - before;
}

int Main(int argc, char** argv) {
  Plan plan;
  int* const fields[] = {&plan.streams, &plan.steps, &plan.step_ms, &plan.bytes};
  for (int i = 1; i < argc && i <= 4; ++i) *fields[i - 1] = std::atoi(argv[i]);
  if (argc != 5 || plan.streams < 1 || plan.steps < 1 || plan.step_ms < 0 || plan.bytes < 1) {
    std::fprintf(stderr, "usage: bare_sends STREAMS STEPS STEP_MS BYTES\n");
    return 2;
  }
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
  sockaddr_in address{};
  const UniqueFd listener = Listen(address);
  const pid_t client = ::fork();
  if (client == 0) {
    RunClient(plan, address);
    std::_Exit(0);
  }
  const double seconds = SendAll(plan, listener);
  ::waitpid(client, nullptr, 0);
  const double sends = static_cast<double>(plan.streams) * plan.steps;
  std::printf("cpu_s_per_1000=%.6f sends=%.0f\n", 1e3 * seconds / sends, sends);
  return 0;
}

}  // namespace
}  // namespace baton

int main(int argc, char** argv) { return baton::Main(argc, argv); }
