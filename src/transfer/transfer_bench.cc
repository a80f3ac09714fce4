// GB/s of the shared-memory transport as its callbacks see it, beside plain memcpy of the same bytes, alone and while
// another thread computes out of its caches.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <future>
#include <memory>
#include <thread>
#include <vector>

#include "base/steady_clock.h"
#include "device/host_memory.h"
#include "transfer/copy_bytes.h"
#include "transfer/transport.h"

namespace baton {
namespace {

constexpr int64_t kPool = 256 << 20;
constexpr int64_t kTotal = int64_t{1} << 30;

double GigabytesPerSecond(int64_t bytes, int64_t ns) { return static_cast<double>(bytes) / static_cast<double>(ns); }

// A working set of 512 KiB, read over and over, as a quantized matrix product would: passes a second.
struct Compute {
  std::atomic<bool> stop = false;
  std::atomic<int64_t> passes = 0;
  std::thread thread = std::thread([this] {
    std::vector<uint64_t> data(64 << 10, 3);
    uint64_t sum = 0;
    while (!stop) {
      for (const uint64_t value : data) sum = sum * 5 + value;
      ++passes;
    }
    volatile uint64_t keep = sum;
    static_cast<void>(keep);
  });
  ~Compute() {
    stop = true;
    thread.join();
  }
};

// GB/s alone; prints it with its share of `limit` (0: this is the limit), then once more beside a computing thread.
template <typename Copy>
double Measure(const char* what, int64_t size, double limit, const Copy& copy, const std::vector<uint8_t>& source) {
  double alone = 0;
  for (const bool busy : {false, true}) {
    std::unique_ptr<Compute> compute = busy ? std::make_unique<Compute>() : nullptr;
    const int64_t passes = busy ? compute->passes.load() : 0;
    const int64_t start_ns = SteadyNanoseconds();
    for (int64_t done = 0; done < kTotal; done += size) copy(source.data() + done % kPool, done % kPool, size);
    const int64_t ns = SteadyNanoseconds() - start_ns;
    const double rate = GigabytesPerSecond(kTotal, ns);
    if (busy) {
      const double passes_per_second = 1e9 * static_cast<double>(compute->passes - passes) / static_cast<double>(ns);
      std::printf("; %5.1f GB/s beside %5.0f compute passes/s\n", rate, passes_per_second);
    } else {
      alone = rate;
      std::printf("  %-20s %5.1f GB/s, %3.0f %% of memcpy", what, rate, limit > 0 ? 100 * rate / limit : 100);
    }
  }
  return alone;
}

int Main() {
  auto memory = HostMemory::Create("bench", kPool);
  if (!memory.ok()) return 1;
  std::vector<uint8_t> source(kPool, 1);
  auto transport = MakeSharedMemoryTransport();
  const auto exported = transport->Export({memory->data(), memory->bytes(), memory->fd()});
  auto remote = transport->Import(exported->descriptor, UniqueFd(dup(exported->fd)));
  if (!remote.ok()) return 1;
  // Every page is there before anything is timed, in both mappings.
  std::memset(memory->data(), 1, kPool);
  if (!(*remote)->Post({{source.data(), 0, kPool}}, Epoch{1}, nullptr).ok()) return 1;
  (*remote)->Flush();
  {
    Compute alone;
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    std::printf("compute alone: %.0f passes/s\n", static_cast<double>(alone.passes) / 0.3);
  }
  for (const int64_t size : {int64_t{64} << 10, int64_t{1} << 20, int64_t{8} << 20, int64_t{64} << 20}) {
    std::printf("ranges of %lld KiB\n", static_cast<long long>(size >> 10));
    const auto plain = [&](const uint8_t* from, int64_t to, int64_t bytes) {
      std::memcpy(memory->data() + to, from, bytes);
    };
    const double limit = Measure("memcpy", size, 0, plain, source);
    const auto direct = [&](const uint8_t* from, int64_t to, int64_t bytes) {
      CopyBytes(memory->data() + to, from, bytes);
    };
    Measure("CopyBytes", size, limit, direct, source);
    const auto one_at_a_time = [&](const uint8_t* from, int64_t to, int64_t bytes) {
      std::promise<void> done;
      const auto tell = [&done](const TransferResult&) { done.set_value(); };
      if (!(*remote)->Post({{from, to, bytes}}, Epoch{1}, tell).ok()) std::abort();
      done.get_future().wait();
    };
    Measure("shm, one at a time", size, limit, one_at_a_time, source);
    const auto queued = [&](const uint8_t* from, int64_t to, int64_t bytes) {
      if (!(*remote)->Post({{from, to, bytes}}, Epoch{1}, nullptr).ok()) std::abort();
      if (to + bytes >= kPool) (*remote)->Flush();
    };
    Measure("shm, queued", size, limit, queued, source);
  }
  return 0;
}

}  // namespace
}  // namespace baton

int main() { return baton::Main(); }
