// What every Transport promises (transfer/transport.h): the implementations, and memory for them to write. A new
// transport is one line in AllTransports, or an instantiation beside its device's tests (tests/gpu/).
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
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

// Memory of the kind that a transport writes and reads.
class ContractMemory {
 public:
  virtual ~ContractMemory() = default;
  virtual LocalMemory local() = 0;
  virtual void Fill(uint8_t byte) = 0;
  virtual void Write(const std::vector<uint8_t>& contents) = 0;  // from the start
  virtual std::vector<uint8_t> Read(int64_t begin, int64_t end) = 0;
  uint8_t Byte(int64_t at) { return Read(at, at + 1)[0]; }
  const uint8_t* data() { return local().base; }
};

class HostContractMemory : public ContractMemory {
 public:
  explicit HostContractMemory(int64_t bytes) : memory_(*HostMemory::Create("contract", bytes)) {}
  LocalMemory local() override { return {memory_.data(), memory_.bytes(), memory_.fd()}; }
  void Fill(uint8_t byte) override { std::memset(memory_.data(), byte, static_cast<size_t>(memory_.bytes())); }
  void Write(const std::vector<uint8_t>& contents) override {
    std::memcpy(memory_.data(), contents.data(), contents.size());
  }
  std::vector<uint8_t> Read(int64_t begin, int64_t end) override {
    std::atomic_thread_fence(std::memory_order_acquire);
    return {memory_.data() + begin, memory_.data() + end};
  }

 private:
  HostMemory memory_;
};

struct Implementation {
  std::string name;
  std::function<std::unique_ptr<Transport>()> make;
  std::function<std::unique_ptr<ContractMemory>(int64_t bytes)> make_memory = [](int64_t bytes) {
    return std::make_unique<HostContractMemory>(bytes);
  };
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
inline std::vector<Implementation> TransportsThatCrossProcesses(std::vector<Implementation> some, bool cross) {
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
  TransportContractTest() : memory_(GetParam().make_memory(kBytes)), transport_(GetParam().make()) {
    memory_->Fill(0);
    exported_ = *transport_->Export(memory_->local());
  }
  absl::StatusOr<std::unique_ptr<RemoteMemory>> ImportFrom(Transport& transport) {
    UniqueFd fd;
    if (exported_.fd >= 0) fd = UniqueFd(fcntl(exported_.fd, F_DUPFD_CLOEXEC, 0));
    return transport.Import(exported_.descriptor, std::move(fd));
  }
  std::unique_ptr<RemoteMemory> Import() { return *ImportFrom(*transport_); }
  // Memory to copy from.
  std::unique_ptr<ContractMemory> Source(const std::vector<uint8_t>& contents) {
    auto source = GetParam().make_memory(static_cast<int64_t>(contents.size()));
    source->Write(contents);
    return source;
  }
  std::unique_ptr<ContractMemory> SourceOf(int64_t bytes, uint8_t byte) {
    return Source(std::vector<uint8_t>(bytes, byte));
  }

  void Poison() { memory_->Fill(kPoison); }
  // The first byte of [begin, end) that is not poison; end when there is none.
  int64_t FirstChange(int64_t begin, int64_t end) {
    const std::vector<uint8_t> bytes = memory_->Read(begin, end);
    return begin +
           (std::find_if(bytes.begin(), bytes.end(), [](uint8_t byte) { return byte != kPoison; }) - bytes.begin());
  }

  std::unique_ptr<ContractMemory> memory_;
  std::unique_ptr<Transport> transport_;
  ExportedMemory exported_;
};

}  // namespace baton
