// What a frame costs: CPU of both ends together, over a unix socket between two networks of one process.
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <string>
#include <thread>

#include "rpc/session.h"

namespace baton {
namespace {

double CpuMicroseconds() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return 1e6 * (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) + usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
}

double WallMicroseconds() {
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct Pair {
  std::unique_ptr<Network> server = *Network::Create();
  std::unique_ptr<Network> client = *Network::Create();
  std::unique_ptr<Listener> listener;
  std::shared_ptr<Session> session;
  std::atomic<int64_t> received = 0;
};

// The time that a thread spends on waking up is not the frames': it is measured apart and taken off.
double SleepCpuMicroseconds(int pause_us) {
  constexpr int kSleeps = 500;
  const double cpu = CpuMicroseconds();
  for (int i = 0; i < kSleeps; ++i) std::this_thread::sleep_for(std::chrono::microseconds(pause_us));
  return (CpuMicroseconds() - cpu) / kSleeps;
}

void Measure(Pair& pair, const char* what, int frames, size_t bytes, int burst, int pause_us, bool from_loop) {
  const double sleep_cpu_us = pause_us > 0 ? SleepCpuMicroseconds(pause_us) * frames / burst : 0;
  const int64_t before = pair.received;
  const double cpu = CpuMicroseconds();
  const double wall = WallMicroseconds();
  for (int sent = 0; sent < frames; sent += burst) {
    const auto send = [&pair, burst, bytes] {
      for (int i = 0; i < burst; ++i) pair.session->Send(std::string(bytes, 'x'));
    };
    if (from_loop) {
      pair.client->Post(send);
    } else {
      send();
    }
    if (pause_us > 0) std::this_thread::sleep_for(std::chrono::microseconds(pause_us));
  }
  while (pair.received < before + frames) std::this_thread::sleep_for(std::chrono::microseconds(200));
  const double cpu_us = CpuMicroseconds() - cpu - sleep_cpu_us;
  const double wall_us = WallMicroseconds() - wall;
  std::printf("%-58s %7.2f us CPU a frame, %9.0f frames/s, %6.2f GB/s\n", what, cpu_us / frames, frames / wall_us * 1e6,
              static_cast<double>(bytes) * frames / wall_us / 1e3);
}

// The least that a message can cost here: one thread sends, another sleeps in recv, nothing else.
void MeasureBareSocket() {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return;
  constexpr int kFrames = 2000, kPauseUs = 500;
  const double sleep_cpu_us = SleepCpuMicroseconds(kPauseUs);
  std::thread reader([fd = ends[1]] {
    char bytes[256];
    while (recv(fd, bytes, sizeof(bytes), 0) > 0) {
    }
  });
  const double cpu = CpuMicroseconds();
  const std::string bytes(230, 'x');
  for (int i = 0; i < kFrames; ++i) {
    if (send(ends[0], bytes.data(), bytes.size(), MSG_NOSIGNAL) < 0) break;
    std::this_thread::sleep_for(std::chrono::microseconds(kPauseUs));
  }
  std::printf("%-58s %7.2f us CPU a message\n", "bare socket pair, 230 B, one each 500 us",
              (CpuMicroseconds() - cpu) / kFrames - sleep_cpu_us);
  close(ends[0]);
  reader.join();
  close(ends[1]);
}

void Run(const std::string& address, const char* name) {
  Pair pair;
  pair.listener = *pair.server->Listen(address, [&pair](std::shared_ptr<Session>) {
    return SessionEvents{.on_frame = [&pair](std::string_view, UniqueFd) { ++pair.received; }};
  });
  pair.session = *pair.client->Connect(pair.listener->address(), {}, 1000);
  std::printf("%s\n", name);
  Measure(pair, "  230 B, one each 500 us, sender's thread", 2000, 230, 1, 500, false);
  Measure(pair, "  230 B, one each 500 us, network's thread", 2000, 230, 1, 500, true);
  Measure(pair, "  230 B, bursts of 16 each 1 ms, sender's thread", 16000, 230, 16, 1000, false);
  Measure(pair, "  230 B, bursts of 16 each 1 ms, network's thread", 16000, 230, 16, 1000, true);
  Measure(pair, "  230 B, as fast as possible, sender's thread", 200000, 230, 1, 0, false);
  Measure(pair, "  1 MiB, as fast as possible, bursts of 16", 256, 1 << 20, 16, 10000, false);
}

}  // namespace
}  // namespace baton

int main() {
  const auto folder = std::filesystem::temp_directory_path() / ("baton-bench-" + std::to_string(getpid()));
  baton::MeasureBareSocket();
  baton::Run("unix:" + (folder / "socket").string(), "unix socket");
  baton::Run("tcp:127.0.0.1:0", "tcp over loopback");
  std::filesystem::remove(folder);
}
