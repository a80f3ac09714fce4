// What every Transport that crosses processes promises when the writer is a process of its own, killed or frozen. A
// program that includes this defines ContractTransports and MoreWriterRoles, instantiates the two suites, and has
// `int main(int argc, char** argv) { return baton::RunProcessContract(argc, argv); }`.
//
// Writers are this program started anew: a forked child could use no device, and none of its parent's threads.
#pragma once

#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <map>

#include "transport_contract.h"

namespace baton {

struct Writer;
std::vector<Implementation> ContractTransports();
// Beside those that the suite needs.
std::map<std::string, std::function<void(const Writer&)>> MoreWriterRoles();

// In the writer's process.
struct Writer {
  std::unique_ptr<Transport> transport;
  Implementation implementation;
  std::string descriptor;
  int fd = -1;
  int news = -1;  // a pipe to the test
  int told = -1;  // and one from it

  // Never returns a null pointer.
  std::unique_ptr<RemoteMemory> Import() const {
    auto remote = transport->Import(descriptor, UniqueFd(fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0)));
    if (!remote.ok()) {
      fprintf(stderr, "writer: %s\n", std::string(Message(remote.status())).c_str());
      _exit(3);
    }
    return *std::move(remote);
  }
  std::unique_ptr<ContractMemory> Source(const std::vector<uint8_t>& contents) const {
    auto source = implementation.make_memory(static_cast<int64_t>(contents.size()));
    source->Write(contents);
    return source;
  }
  void Tell(char what) const {
    if (write(news, &what, 1) != 1) _exit(4);
  }
  bool WasTold() const {
    pollfd ready = {.fd = told, .events = POLLIN};
    return poll(&ready, 1, 0) == 1;
  }
};

inline constexpr int64_t kFrozenBegin = kBytes / 4;
inline constexpr int64_t kFrozenEnd = kBytes / 2;
inline constexpr uint32_t kWriterSeed = 5;

// What writers do, by name.
inline std::map<std::string, std::function<void(const Writer&)>> WriterRoles() {
  std::map<std::string, std::function<void(const Writer&)>> roles = MoreWriterRoles();
  roles.insert({
      {"once",
       [](const Writer& writer) {
         auto remote = writer.Import();
         const auto source = writer.Source(RandomBytes(kBytes, kWriterSeed));
         std::vector<CopyRange> ranges;
         for (int64_t offset = 0; offset < kBytes; offset += 100'000) {
           ranges.push_back({source->data() + offset, offset, std::min<int64_t>(100'000, kBytes - offset)});
         }
         const absl::Status status = remote->Post(
             ranges, Epoch{1}, [&](const TransferResult& result) { writer.Tell(result.status.ok() ? 'y' : 'n'); });
         if (!status.ok()) _exit(5);
         pause();
       }},
      {"forever",
       [](const Writer& writer) {
         auto remote = writer.Import();
         const int64_t bytes = remote->bytes();
         const auto source = writer.Source(std::vector<uint8_t>(bytes, 1));
         while (true) {
           if (!remote->Post({{source->data(), 0, bytes}}, Epoch{1}, nullptr).ok()) _exit(5);
           remote->Flush();
         }
       }},
      {"until-told",
       [](const Writer& writer) {
         auto remote = writer.Import();
         const int64_t bytes = kFrozenEnd - kFrozenBegin;
         const auto source = writer.Source(std::vector<uint8_t>(bytes, 1));
         while (!writer.WasTold()) {
           if (!remote->Post({{source->data(), kFrozenBegin, bytes}}, Epoch{1}, nullptr).ok()) _exit(5);
           remote->Flush();
         }
         writer.Tell('y');
       }},
      {"refused",
       [](const Writer& writer) {
         const auto remote = writer.transport->Import(writer.descriptor, UniqueFd());
         _exit(remote.status().code() == absl::StatusCode::kInvalidArgument ? 0 : 1);
       }},
  });
  return roles;
}

// Bytes as an argument of a program.
inline std::string Hex(const std::string& bytes) {
  std::string text;
  for (const char byte : bytes) {
    text += "0123456789abcdef"[static_cast<uint8_t>(byte) >> 4];
    text += "0123456789abcdef"[static_cast<uint8_t>(byte) & 15];
  }
  return text;
}
inline std::string FromHex(const std::string& text) {
  std::string bytes;
  for (size_t i = 0; i + 1 < text.size(); i += 2) {
    bytes += static_cast<char>(std::strtol(text.substr(i, 2).c_str(), nullptr, 16));
  }
  return bytes;
}

class WriterProcess {
 public:
  WriterProcess(const std::string& role, const Implementation& implementation, const ExportedMemory& exported) {
    int news[2], tell[2];
    EXPECT_EQ(pipe2(news, O_CLOEXEC), 0);
    EXPECT_EQ(pipe2(tell, O_CLOEXEC), 0);
    news_ = UniqueFd(news[0]);
    tell_ = UniqueFd(tell[1]);
    UniqueFd news_end(news[1]), tell_end(tell[0]);
    const int memory = exported.fd < 0 ? -1 : fcntl(exported.fd, F_DUPFD_CLOEXEC, 0);
    UniqueFd memory_end(memory);
    std::vector<std::string> arguments = {"writer",
                                          "--writer",
                                          role,
                                          implementation.name,
                                          Hex(exported.descriptor),
                                          std::to_string(memory),
                                          std::to_string(news[1]),
                                          std::to_string(tell[0])};
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    pid_ = fork();
    if (pid_ != 0) return;
    for (const int inherited : {memory, news[1], tell[0]}) {
      if (inherited >= 0) fcntl(inherited, F_SETFD, 0);
    }
    execv("/proc/self/exe", argv.data());
    _exit(127);
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
  void Tell() { EXPECT_EQ(write(tell_.get(), "s", 1), 1); }
  // What the writer says next; 0 when it says nothing for a minute, or ended.
  char WaitForByte() {
    pollfd ready = {.fd = news_.get(), .events = POLLIN};
    char byte = 0;
    return poll(&ready, 1, 60'000) == 1 && read(news_.get(), &byte, 1) == 1 ? byte : '\0';
  }
  // Everything until the writer closes its end, up to `bytes`.
  std::string ReadBytes(size_t bytes) {
    std::string all;
    while (all.size() < bytes) {
      const char byte = WaitForByte();
      if (byte == 0) break;
      all += byte;
    }
    return all;
  }

 private:
  UniqueFd news_, tell_;
  pid_t pid_ = 0;
};

// The program is a writer, or runs the tests.
inline int RunProcessContract(int argc, char** argv) {
  if (argc == 8 && std::string(argv[1]) == "--writer") {
    alarm(120);  // whatever happens to the test
    for (const Implementation& implementation : ContractTransports()) {
      if (implementation.name != argv[3]) continue;
      const Writer writer{.transport = implementation.make(),
                          .implementation = implementation,
                          .descriptor = FromHex(argv[4]),
                          .fd = std::atoi(argv[5]),
                          .news = std::atoi(argv[6]),
                          .told = std::atoi(argv[7])};
      WriterRoles().at(argv[2])(writer);
      return 0;
    }
    return 6;
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}

class CrossProcessContractTest : public TransportContractTest {
 protected:
  WriterProcess Start(const std::string& role) { return {role, GetParam(), exported_}; }
};
class OneProcessContractTest : public CrossProcessContractTest {};

namespace {

TEST_P(CrossProcessContractTest, WhatACallbackTellsOfIsVisible) {
  WriterProcess writer = Start("once");
  ASSERT_EQ(writer.WaitForByte(), 'y');
  EXPECT_TRUE(memory_->Read(0, kBytes) == RandomBytes(kBytes, kWriterSeed));
}

TEST_P(CrossProcessContractTest, AKilledWriterWritesNothingAfterItWasReaped) {
  Poison();
  WriterProcess writer = Start("forever");
  ASSERT_TRUE(WaitUntil([this] { return memory_->Byte(kBytes / 3) == 1; }));
  kill(writer.pid(), SIGKILL);
  ASSERT_TRUE(WIFSIGNALED(writer.Reap()));
  Poison();
  std::this_thread::sleep_for(milliseconds(50));
  EXPECT_EQ(FirstChange(0, kBytes), kBytes);
}

TEST_P(CrossProcessContractTest, AFrozenWriterResumesAndWritesOnlyItsOwnRanges) {
  Poison();
  WriterProcess writer = Start("until-told");
  const auto last_byte_is_written = [this] { return memory_->Byte(kFrozenEnd - 1) == 1; };
  ASSERT_TRUE(WaitUntil(last_byte_is_written));
  kill(writer.pid(), SIGSTOP);
  int status = 0;
  ASSERT_EQ(waitpid(writer.pid(), &status, WUNTRACED), writer.pid());
  ASSERT_TRUE(WIFSTOPPED(status));
  std::this_thread::sleep_for(milliseconds(50));  // a device finishes the piece that it was given
  Poison();
  std::this_thread::sleep_for(milliseconds(20));
  EXPECT_EQ(FirstChange(0, kBytes), kBytes);
  kill(writer.pid(), SIGCONT);
  ASSERT_TRUE(WaitUntil(last_byte_is_written));  // late writes do arrive: no lease would have protected this memory
  writer.Tell();
  ASSERT_EQ(writer.WaitForByte(), 'y');
  EXPECT_TRUE(WIFEXITED(writer.Reap()));
  // It may have stopped in the middle of a round, and ends after that round: the first change may be later than its
  // first byte.
  EXPECT_GE(FirstChange(0, kFrozenEnd), kFrozenBegin);
  EXPECT_EQ(FirstChange(kFrozenEnd, kBytes), kBytes);
}

TEST_P(OneProcessContractTest, RefusesTheMemoryOfAnotherProcess) {
  WriterProcess writer = Start("refused");
  EXPECT_EQ(writer.Reap(), 0);
}

}  // namespace
}  // namespace baton
