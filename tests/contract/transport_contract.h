// What every Transport promises (transfer/transport.h): the implementations, and a memory to write to. A new transport
// is one line in AllTransports.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "device/host_memory.h"
#include "transfer/transport.h"

namespace baton {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr int64_t kBytes = 8 << 20;
constexpr auto kPatience = std::chrono::seconds(60);
constexpr uint8_t kPoison = 0xa5;

struct Implementation {
  std::string name;
  std::function<std::unique_ptr<Transport>()> make;
};

inline std::vector<Implementation> AllTransports() {
  const ThrottleOptions throttle = {.bytes_per_second = 2e9, .delay_us = 300};
  return {
      {"Local", [] { return MakeLocalTransport(); }},
      {"Shm", [] { return MakeSharedMemoryTransport(); }},
      {"ThrottledLocal", [throttle] { return MakeThrottledTransport(MakeLocalTransport(), throttle); }},
      {"ThrottledShm", [throttle] { return MakeThrottledTransport(MakeSharedMemoryTransport(), throttle); }},
  };
}

// Those whose capabilities say that they cross from process to process, or do not.
inline std::vector<Implementation> TransportsThatCrossProcesses(bool cross) {
  std::vector<Implementation> some = AllTransports();
  std::erase_if(some,
                [cross](const Implementation& one) { return one.make()->capabilities().crosses_processes != cross; });
  return some;
}

template <typename Condition>
bool WaitUntil(Condition condition) {
  const auto deadline = steady_clock::now() + kPatience;
  while (!condition()) {
    if (steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  return true;
}

inline std::vector<uint8_t> RandomBytes(int64_t count, uint32_t seed) {
  std::vector<uint8_t> bytes(count);
  std::mt19937 random(seed);
  for (int64_t i = 0; i + 4 <= count; i += 4) {
    const uint32_t word = random();
    std::memcpy(bytes.data() + i, &word, 4);
  }
  return bytes;
}

class TransportContractTest : public testing::TestWithParam<Implementation> {
 protected:
  TransportContractTest() : memory_(*HostMemory::Create("contract", kBytes)), transport_(GetParam().make()) {
    exported_ = *transport_->Export({memory_.data(), memory_.bytes(), memory_.fd()});
  }
  absl::StatusOr<std::unique_ptr<RemoteMemory>> ImportFrom(Transport& transport) {
    UniqueFd fd;
    if (exported_.fd >= 0) fd = UniqueFd(fcntl(exported_.fd, F_DUPFD_CLOEXEC, 0));
    return transport.Import(exported_.descriptor, std::move(fd));
  }
  std::unique_ptr<RemoteMemory> Import() { return *ImportFrom(*transport_); }

  void Poison() { std::memset(memory_.data(), kPoison, kBytes); }
  // The first byte of [begin, end) that is not poison; end when there is none.
  int64_t FirstChange(int64_t begin, int64_t end) {
    const uint8_t* const data = memory_.data();
    return std::find_if(data + begin, data + end, [](uint8_t byte) { return byte != kPoison; }) - data;
  }

  HostMemory memory_;
  std::unique_ptr<Transport> transport_;
  ExportedMemory exported_;
};

}  // namespace baton
