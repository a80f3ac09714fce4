// Folders: transfer device
// The transport contract over CUDA IPC, within one process and between two on one GPU; and what only a device can do:
// wait for an event, die in the middle of a large write, or leave its memory open in another process.
#include <cuda_runtime_api.h>

#include "base/mutex.h"
#include "base/steady_clock.h"
#include "device/cuda_device.h"
#include "transfer/path_probe.h"
#include "transport_process_suite.h"
#include "transport_suite.h"

namespace baton {
namespace {

#define CHECK_CUDA(call) ASSERT_EQ((call), cudaSuccess)

class CudaContractMemory : public ContractMemory {
 public:
  explicit CudaContractMemory(int64_t bytes)
      : memory_(*CudaMemory::Allocate(CudaMemory::Kind::kDevice, bytes, "a test")) {}
  LocalMemory local() override { return {.base = memory_.data(), .bytes = memory_.bytes()}; }
  void Fill(uint8_t byte) override {
    EXPECT_EQ(cudaMemset(memory_.data(), byte, static_cast<size_t>(memory_.bytes())), cudaSuccess);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  }
  void Write(const std::vector<uint8_t>& contents) override {
    EXPECT_EQ(cudaMemcpy(memory_.data(), contents.data(), contents.size(), cudaMemcpyHostToDevice), cudaSuccess);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  }
  std::vector<uint8_t> Read(int64_t begin, int64_t end) override {
    std::vector<uint8_t> bytes(end - begin);
    EXPECT_EQ(cudaMemcpy(bytes.data(), memory_.data() + begin, bytes.size(), cudaMemcpyDeviceToHost), cudaSuccess);
    return bytes;
  }

 private:
  CudaMemory memory_;
};

std::unique_ptr<ContractMemory> MakeDeviceMemory(int64_t bytes) { return std::make_unique<CudaContractMemory>(bytes); }

std::vector<Implementation> CudaTransports() {
  const ThrottleOptions throttle = {.bytes_per_second = 2e9, .delay_us = 300};
  return {{"CudaIpc", [] { return MakeCudaIpcTransport(0); }, MakeDeviceMemory},
          {"ThrottledCudaIpc", [throttle] { return MakeThrottledTransport(MakeCudaIpcTransport(0), throttle); },
           MakeDeviceMemory}};
}

const auto kName = [](const auto& info) { return info.param.name; };
INSTANTIATE_TEST_SUITE_P(Gpu, TransportContractTest, testing::ValuesIn(CudaTransports()), kName);
INSTANTIATE_TEST_SUITE_P(Gpu, CrossProcessContractTest, testing::ValuesIn(CudaTransports()), kName);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(OneProcessContractTest);

const Implementation& CudaIpc() {
  static const Implementation implementation = CudaTransports()[0];
  return implementation;
}

// A gate on a stream that the test opens.
struct Gate {
  Mutex mutex;
  CondVar changed;
  bool open BATON_GUARDED_BY(mutex) = false;
  void Open() {
    MutexLock lock(mutex);
    open = true;
    changed.SignalAll();
  }
  static void Wait(void* self) {
    Gate& gate = *static_cast<Gate*>(self);
    MutexLock lock(gate.mutex);
    while (!gate.open) gate.changed.Wait(gate.mutex);
  }
};

class CudaTransportTest : public testing::Test {
 protected:
  CudaTransportTest()
      : memory_(MakeDeviceMemory(kBytes)), source_(MakeDeviceMemory(kBytes)), transport_(MakeCudaIpcTransport(0)) {
    memory_->Fill(kPoison);
    exported_ = *transport_->Export(memory_->local());
    remote_ = *transport_->Import(exported_.descriptor, UniqueFd());
  }
  std::unique_ptr<ContractMemory> memory_, source_;
  std::unique_ptr<Transport> transport_;
  ExportedMemory exported_;
  std::unique_ptr<RemoteMemory> remote_;
};

TEST_F(CudaTransportTest, SourcesAreReadWhenTheirEventHasPassed) {
  CudaStream stream = *CudaStream::Create();
  CudaEvent event = *CudaEvent::Create(false);
  Gate gate;
  CHECK_CUDA(cudaLaunchHostFunc(stream.get(), &Gate::Wait, &gate));
  CHECK_CUDA(cudaMemsetAsync(const_cast<uint8_t*>(source_->data()), 7, kBytes, stream.get()));
  CHECK_CUDA(cudaEventRecord(event.get(), stream.get()));
  std::atomic<int> early = 0, late = 0;
  ASSERT_TRUE(remote_
                  ->Post(
                      {{source_->data(), 0, 1000}}, Epoch{1}, [&](const TransferResult&) { ++late; }, event.get())
                  .ok());
  ASSERT_TRUE(remote_->Post({{source_->data(), 500, 1000}}, Epoch{1}, [&](const TransferResult&) { ++late; }).ok());
  // Others are not held up.
  ASSERT_TRUE(remote_->Post({{source_->data(), 5000, 1000}}, Epoch{2}, [&](const TransferResult&) { ++early; }).ok());
  ASSERT_TRUE(WaitUntil([&] { return early == 1; }));
  std::this_thread::sleep_for(milliseconds(20));
  EXPECT_EQ(late, 0);
  gate.Open();
  ASSERT_TRUE(WaitUntil([&] { return late == 2; }));
  EXPECT_EQ(memory_->Read(0, 1500), std::vector<uint8_t>(1500, 7));
  ASSERT_TRUE(stream.Synchronize().ok());
}

TEST_F(CudaTransportTest, ACancelDoesNotWaitForAnEvent) {
  CudaStream stream = *CudaStream::Create();
  CudaEvent event = *CudaEvent::Create(false);
  Gate gate;
  CHECK_CUDA(cudaLaunchHostFunc(stream.get(), &Gate::Wait, &gate));
  CHECK_CUDA(cudaEventRecord(event.get(), stream.get()));
  std::atomic<bool> cancelled = false, told = false;
  ASSERT_TRUE(remote_
                  ->Post(
                      {{source_->data(), 0, kBytes}}, Epoch{1},
                      [&](const TransferResult& result) { cancelled = absl::IsCancelled(result.status); }, event.get())
                  .ok());
  remote_->Cancel(Epoch{1}, [&] { told = true; });
  EXPECT_TRUE(WaitUntil([&] { return told.load(); }));
  EXPECT_TRUE(cancelled);
  gate.Open();
  ASSERT_TRUE(stream.Synchronize().ok());
  EXPECT_EQ(memory_->Byte(0), kPoison);
}

TEST_F(CudaTransportTest, WhatItCannotReachIsRefusedByName) {
  HostContractMemory host(kBytes);
  const absl::Status host_export = transport_->Export(host.local()).status();
  EXPECT_NE(Message(host_export).find("expected memory of GPU 0, found memory of the host"), std::string_view::npos)
      << host_export;
  const absl::Status middle = transport_->Export({.base = memory_->local().base + 512, .bytes = 512}).status();
  EXPECT_EQ(middle.code(), absl::StatusCode::kInvalidArgument) << middle;
  EXPECT_EQ(transport_->Export({.base = memory_->local().base, .bytes = int64_t{1} << 40}).status().code(),
            absl::StatusCode::kInvalidArgument);
  const auto shared = MakeSharedMemoryTransport();
  const absl::Status host_import = transport_->Import(shared->Export(host.local())->descriptor, UniqueFd()).status();
  EXPECT_NE(Message(host_import).find("the KV blocks there are host memory (shm), here GPU memory (cuda-ipc)"),
            std::string_view::npos)
      << host_import;
  const absl::Status gpu_import = shared->Import(exported_.descriptor, UniqueFd()).status();
  EXPECT_NE(Message(gpu_import).find("the KV blocks there are GPU memory (cuda-ipc), here host memory (shm)"),
            std::string_view::npos)
      << gpu_import;
}

TEST_F(CudaTransportTest, AHandleThatNobodyExportedIsRefusedAndHarmsNothing) {
  for (size_t byte = 8 + 5 * 8; byte < exported_.descriptor.size(); byte += 7) {
    std::string other = exported_.descriptor;
    other[0 + 8] = static_cast<char>(other[8] ^ 1);  // of another process
    other[byte] = static_cast<char>(other[byte] ^ 0x55);
    EXPECT_FALSE(transport_->Import(other, UniqueFd()).ok()) << byte;
  }
  ASSERT_TRUE(remote_->Post({{source_->data(), 0, kBytes}}, Epoch{1}, nullptr).ok());
  remote_->Flush();
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}

// Between processes, with memory so large that a kill comes in the middle of a write.
constexpr int64_t kLarge = int64_t{1} << 30;

TEST(CudaProcessTest, AWriterKilledInTheMiddleOfALargeWriteHasStoppedWhenReaped) {
  CudaContractMemory memory(kLarge);
  const auto transport = MakeCudaIpcTransport(0);
  const ExportedMemory exported = *transport->Export(memory.local());
  int in_the_middle = 0;
  for (int round = 0; round < 6; ++round) {
    memory.Fill(kPoison);
    WriterProcess writer("forever", CudaIpc(), exported);
    ASSERT_TRUE(WaitUntil([&] { return memory.Byte(kLarge - 1) == 1; }));
    memory.Fill(kPoison);  // the next rounds of the writer come over this
    std::this_thread::sleep_for(std::chrono::microseconds(200 * round));
    kill(writer.pid(), SIGKILL);
    ASSERT_TRUE(WIFSIGNALED(writer.Reap()));
    const std::vector<uint8_t> after = memory.Read(0, kLarge);
    const auto written = std::count(after.begin(), after.end(), 1);
    in_the_middle += written > 0 && written < kLarge ? 1 : 0;
    std::this_thread::sleep_for(milliseconds(50));
    EXPECT_TRUE(memory.Read(0, kLarge) == after) << "round " << round;
  }
  std::printf("[ killed in the middle of a gibibyte: %d of 6 ]\n", in_the_middle);
}

// The other way round: the owner of the memory dies while this process writes it.
TEST(CudaProcessTest, AWriterSurvivesTheDeathOfTheMemorysOwner) {
  WriterProcess owner("owner", CudaIpc(), {});
  const std::string hex = owner.ReadBytes(2 * (8 + 13 * 8));
  ASSERT_EQ(hex.size(), 2u * (8 + 13 * 8));
  const auto transport = MakeCudaIpcTransport(0);
  auto remote = transport->Import(FromHex(hex), UniqueFd());
  ASSERT_TRUE(remote.ok()) << remote.status();
  CudaContractMemory source(kLarge);
  source.Fill(3);
  std::atomic<bool> stop = false;
  std::atomic<int> ended = 0, failed = 0;
  std::function<void(const TransferResult&)> again = [&](const TransferResult& result) {
    ++ended;
    if (!result.status.ok()) ++failed;
    if (!stop) ASSERT_TRUE((*remote)->Post({{source.data(), 0, kLarge}}, Epoch{1}, again).ok());
  };
  ASSERT_TRUE((*remote)->Post({{source.data(), 0, kLarge}}, Epoch{1}, again).ok());
  ASSERT_TRUE(WaitUntil([&] { return ended > 3; }));
  kill(owner.pid(), SIGKILL);
  ASSERT_TRUE(WIFSIGNALED(owner.Reap()));
  const int before = ended;
  EXPECT_TRUE(WaitUntil([&] { return ended > before + 3; }));
  stop = true;
  (*remote)->Flush();
  EXPECT_EQ(failed, 0);
  size_t free_while_open = 0, free_after = 0, total = 0;
  CHECK_CUDA(cudaMemGetInfo(&free_while_open, &total));
  remote->reset();
  CHECK_CUDA(cudaMemGetInfo(&free_after, &total));
  EXPECT_GE(free_after, free_while_open + kLarge / 2);  // the dead owner's memory goes back when it is closed here
  // This process's device is as before.
  CudaContractMemory memory(kBytes);
  memory.Fill(9);
  EXPECT_EQ(memory.Byte(kBytes - 1), 9);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}

// Figures, not checked: layer groups and whole blocks of a 70B (8 heads, 80 layers, 128 tokens in FP8).
TEST(CudaProcessTest, Speed) {
  WriterProcess owner("owner", CudaIpc(), {});
  const auto transport = MakeCudaIpcTransport(0);
  const std::string hex = owner.ReadBytes(2 * (8 + 13 * 8));
  auto remote = transport->Import(FromHex(hex), UniqueFd());
  ASSERT_TRUE(remote.ok()) << remote.status();
  CudaContractMemory source(kLarge);
  for (const int64_t piece : {int64_t{32} << 10, int64_t{640} << 10, int64_t{20} << 20}) {
    std::vector<CopyRange> ranges;
    for (int64_t at = 0; at + piece <= int64_t{480} << 20; at += piece)
      ranges.push_back({source.data() + at, at, piece});
    int64_t best_ns = INT64_MAX;
    for (int round = 0; round < 5; ++round) {
      const int64_t begin = SteadyNanoseconds();
      ASSERT_TRUE((*remote)->Post(ranges, Epoch{1}, nullptr).ok());
      (*remote)->Flush();
      best_ns = std::min(best_ns, SteadyNanoseconds() - begin);
    }
    std::printf("[ 480 MiB in %zu pieces of %lld KiB: %.2f ms, %.0f GB/s ]\n", ranges.size(),
                static_cast<long long>(piece >> 10), static_cast<double>(best_ns) / 1e6,
                static_cast<double>(piece * static_cast<int64_t>(ranges.size())) / static_cast<double>(best_ns));
  }
  const auto report = ProbePath(*transport, **remote, {{source.data(), 0, 16 << 20}}, Epoch{2});
  ASSERT_TRUE(report.ok());
  std::printf("[ probe: %s, latency %lld us ]\n", report->Text().c_str(), static_cast<long long>(report->latency_us));
}

// A process that exports memory, says how to reach it, and waits to be killed.
void OwnMemory(const Writer& writer) {
  CudaContractMemory memory(kLarge);
  const auto exported = writer.transport->Export(memory.local());
  if (!exported.ok()) _exit(7);
  for (const char digit : Hex(exported->descriptor)) writer.Tell(digit);
  pause();
}

}  // namespace

std::vector<Implementation> ContractTransports() { return CudaTransports(); }
std::map<std::string, std::function<void(const Writer&)>> MoreWriterRoles() { return {{"owner", OwnMemory}}; }

}  // namespace baton

int main(int argc, char** argv) { return baton::RunProcessContract(argc, argv); }
