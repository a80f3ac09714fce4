// Folders: transfer
// What every Transport that crosses processes promises when the writer is a process of its own, killed or frozen.
//
// Writers are forked while this process has no thread: a transport starts its thread with the first post, and owners of
// memory never post. So this is a program of its own.
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>

#include "transport_contract.h"

namespace baton {
namespace {

class WriterProcess {
 public:
  // `work` runs in a process of its own, with a pipe to tell the test something.
  explicit WriterProcess(const std::function<void(int pipe)>& work) {
    int ends[2];
    EXPECT_EQ(pipe(ends), 0);
    news_ = UniqueFd(ends[0]);
    UniqueFd writing_end(ends[1]);
    pid_ = fork();
    if (pid_ == 0) {
      alarm(120);  // whatever happens to the test
      work(writing_end.get());
      _exit(0);
    }
  }
  ~WriterProcess() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      Reap();
    }
  }
  pid_t pid() const { return pid_; }
  // The wait status.
  int Reap() {
    int status = 0;
    EXPECT_EQ(waitpid(pid_, &status, 0), pid_);
    pid_ = 0;
    return status;
  }
  bool WaitForByte() {
    pollfd ready = {.fd = news_.get(), .events = POLLIN};
    char byte;
    return poll(&ready, 1, 60'000) == 1 && read(news_.get(), &byte, 1) == 1;
  }

 private:
  UniqueFd news_;
  pid_t pid_ = 0;
};

class CrossProcessContractTest : public TransportContractTest {
 protected:
  // In the writer's process: never returns a null pointer.
  std::unique_ptr<RemoteMemory> ImportInWriter(std::unique_ptr<Transport>& transport) {
    transport = GetParam().make();
    auto remote = ImportFrom(*transport);
    if (!remote.ok()) _exit(3);
    return *std::move(remote);
  }
};

using OneProcessContractTest = TransportContractTest;

INSTANTIATE_TEST_SUITE_P(Transports, OneProcessContractTest, testing::ValuesIn(TransportsThatCrossProcesses(false)),
                         [](const auto& info) { return info.param.name; });
INSTANTIATE_TEST_SUITE_P(Transports, CrossProcessContractTest, testing::ValuesIn(TransportsThatCrossProcesses(true)),
                         [](const auto& info) { return info.param.name; });

TEST_P(CrossProcessContractTest, WhatACallbackTellsOfIsVisible) {
  const std::vector<uint8_t> source = RandomBytes(kBytes, 5);
  WriterProcess writer([&](int news) {
    std::unique_ptr<Transport> transport;
    auto remote = ImportInWriter(transport);
    std::vector<CopyRange> ranges;
    for (int64_t offset = 0; offset < kBytes; offset += 100'000) {
      ranges.push_back({source.data() + offset, offset, std::min<int64_t>(100'000, kBytes - offset)});
    }
    const absl::Status status = remote->Post(ranges, Epoch{1}, [news](const TransferResult& result) {
      if (write(news, result.status.ok() ? "y" : "n", 1) != 1) _exit(4);
    });
    if (!status.ok()) _exit(5);
    pause();
  });
  ASSERT_TRUE(writer.WaitForByte());
  EXPECT_TRUE(std::equal(source.begin(), source.end(), memory_.data()));
}

TEST_P(CrossProcessContractTest, AKilledWriterWritesNothingAfterItWasReaped) {
  Poison();
  WriterProcess writer([&](int) {
    std::unique_ptr<Transport> transport;
    auto remote = ImportInWriter(transport);
    const std::vector<uint8_t> source(kBytes, 1);
    while (true) {
      if (!remote->Post({{source.data(), 0, kBytes}}, Epoch{1}, nullptr).ok()) _exit(5);
      remote->Flush();
    }
  });
  ASSERT_TRUE(WaitUntil([this] { return std::atomic_ref(memory_.data()[kBytes / 3]).load() == 1; }));
  kill(writer.pid(), SIGKILL);
  ASSERT_TRUE(WIFSIGNALED(writer.Reap()));
  Poison();
  std::this_thread::sleep_for(milliseconds(50));
  EXPECT_EQ(FirstChange(0, kBytes), kBytes);
}

TEST_P(CrossProcessContractTest, AFrozenWriterResumesAndWritesOnlyItsOwnRanges) {
  Poison();
  constexpr int64_t kBegin = kBytes / 4, kEnd = kBytes / 2;
  constexpr uint8_t kEnough = 77;  // in the first byte: the writer may stop
  WriterProcess writer([&](int news) {
    std::unique_ptr<Transport> transport;
    auto remote = ImportInWriter(transport);
    const std::vector<uint8_t> source(kEnd - kBegin, 1);
    while (std::atomic_ref(memory_.data()[0]).load() != kEnough) {
      if (!remote->Post({{source.data(), kBegin, kEnd - kBegin}}, Epoch{1}, nullptr).ok()) _exit(5);
      remote->Flush();
    }
    if (write(news, "y", 1) != 1) _exit(4);
  });
  const auto last_byte_is_written = [this] { return std::atomic_ref(memory_.data()[kEnd - 1]).load() == 1; };
  ASSERT_TRUE(WaitUntil(last_byte_is_written));
  kill(writer.pid(), SIGSTOP);
  int status = 0;
  ASSERT_EQ(waitpid(writer.pid(), &status, WUNTRACED), writer.pid());
  ASSERT_TRUE(WIFSTOPPED(status));
  Poison();
  std::this_thread::sleep_for(milliseconds(20));
  EXPECT_EQ(FirstChange(0, kBytes), kBytes);
  kill(writer.pid(), SIGCONT);
  ASSERT_TRUE(WaitUntil(last_byte_is_written));  // late writes do arrive: no lease would have protected this memory
  std::atomic_ref(memory_.data()[0]).store(kEnough);
  ASSERT_TRUE(writer.WaitForByte());
  EXPECT_TRUE(WIFEXITED(writer.Reap()));
  // It may have stopped in the middle of a round, and ends after that round: the first change is then later than kBegin.
  EXPECT_GE(FirstChange(1, kEnd), kBegin);
  EXPECT_EQ(FirstChange(kEnd, kBytes), kBytes);
}

TEST_P(OneProcessContractTest, RefusesTheMemoryOfAnotherProcess) {
  WriterProcess writer([&](int) {
    auto transport = GetParam().make();
    const auto remote = ImportFrom(*transport);
    _exit(remote.status().code() == absl::StatusCode::kInvalidArgument ? 0 : 1);
  });
  EXPECT_EQ(writer.Reap(), 0);
}

}  // namespace
}  // namespace baton
