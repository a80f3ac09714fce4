#include "rpc/session.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "rpc/frame_decoder.h"
#include "rpc/handshake.h"

namespace baton {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr auto kPatience = std::chrono::seconds(20);

// Keeps what a session's callbacks said.
class Recorder {
 public:
  SessionEvents Events() {
    return {.on_frame =
                [this](std::string_view frame, UniqueFd fd) {
                  MutexLock lock(mutex_);
                  if (!closed_.empty()) frames_.push_back("after on_closed");
                  frames_.emplace_back(frame);
                  fds_.push_back(std::move(fd));
                  changed_.SignalAll();
                },
            .on_closed =
                [this](absl::Status why) {
                  MutexLock lock(mutex_);
                  closed_.push_back(std::move(why));
                  changed_.SignalAll();
                }};
  }
  bool WaitForFrames(size_t count) {
    return Wait([this, count]() BATON_REQUIRES(mutex_) { return frames_.size() >= count; });
  }
  bool WaitForClose() {
    return Wait([this]() BATON_REQUIRES(mutex_) { return !closed_.empty(); });
  }
  std::vector<std::string> frames() {
    MutexLock lock(mutex_);
    return frames_;
  }
  std::vector<UniqueFd> TakeFds() {
    MutexLock lock(mutex_);
    return std::move(fds_);
  }
  std::vector<absl::Status> closed() {
    MutexLock lock(mutex_);
    return closed_;
  }

 private:
  template <typename Condition>
  bool Wait(Condition condition) {
    const auto deadline = steady_clock::now() + kPatience;
    MutexLock lock(mutex_);
    while (!condition()) {
      if (steady_clock::now() > deadline) return false;
      changed_.WaitFor(mutex_, milliseconds(100));
    }
    return true;
  }

  Mutex mutex_;
  CondVar changed_;
  std::vector<std::string> frames_ BATON_GUARDED_BY(mutex_);
  std::vector<UniqueFd> fds_ BATON_GUARDED_BY(mutex_);
  std::vector<absl::Status> closed_ BATON_GUARDED_BY(mutex_);
};

template <typename Condition>
bool WaitUntil(Condition condition) {
  const auto deadline = steady_clock::now() + kPatience;
  while (!condition()) {
    if (steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(milliseconds(1));
  }
  return true;
}

class SessionTest : public testing::TestWithParam<const char*> {
 protected:
  SessionTest() : folder_(std::filesystem::temp_directory_path() / Cat("baton-rpc-test-", getpid())) {}
  ~SessionTest() override {
    listener_.reset();
    client_.reset();
    server_.reset();
    std::filesystem::remove_all(folder_);
  }

  std::string address() const {
    return GetParam() == std::string_view("unix") ? Cat("unix:", (folder_ / "socket").string()) : "tcp:127.0.0.1:0";
  }
  // Connects client_session_ to server_session_, which record into client_side_ and server_side_.
  void Connect(NetworkOptions options = {}) {
    server_ = *Network::Create(options);
    client_ = *Network::Create(options);
    auto listener = server_->Listen(address(), [this](std::shared_ptr<Session> peer) {
      MutexLock lock(mutex_);
      server_session_ = std::move(peer);
      return server_side_.Events();
    });
    ASSERT_TRUE(listener.ok()) << listener.status();
    listener_ = *std::move(listener);
    auto session = client_->Connect(listener_->address(), client_side_.Events(), 5000);
    ASSERT_TRUE(session.ok()) << session.status();
    client_session_ = *std::move(session);
    ASSERT_TRUE(WaitUntil([this] { return server_session() != nullptr; }));
  }
  std::shared_ptr<Session> server_session() {
    MutexLock lock(mutex_);
    return server_session_;
  }

  const std::filesystem::path folder_;
  Recorder client_side_, server_side_;
  Mutex mutex_;
  std::shared_ptr<Session> server_session_ BATON_GUARDED_BY(mutex_);
  std::shared_ptr<Session> client_session_;
  std::unique_ptr<Network> server_, client_;
  std::unique_ptr<Listener> listener_;
};

using UnixSessionTest = SessionTest;

INSTANTIATE_TEST_SUITE_P(All, SessionTest, testing::Values("unix", "tcp"));
INSTANTIATE_TEST_SUITE_P(All, UnixSessionTest, testing::Values("unix"));

TEST_P(SessionTest, FramesArriveWholeAndInOrderBothWays) {
  Connect();
  std::vector<std::string> sent;
  for (int i = 0; i < 1000; ++i) sent.push_back(Cat("frame ", i, std::string(i % 7 == 0 ? i * 10 : 0, 'x')));
  sent.push_back("");
  for (const std::string& frame : sent) {
    client_session_->Send(frame);
    server_session()->Send(frame);
  }
  ASSERT_TRUE(server_side_.WaitForFrames(sent.size()));
  ASSERT_TRUE(client_side_.WaitForFrames(sent.size()));
  EXPECT_EQ(server_side_.frames(), sent);
  EXPECT_EQ(client_side_.frames(), sent);
}

TEST_P(SessionTest, TheLargestFrameArrives) {
  Connect();
  std::string frame(kMaxFrameBytes, 'a');
  for (size_t i = 0; i < frame.size(); i += 4096) frame[i] = static_cast<char>(i >> 12);
  client_session_->Send(frame);
  client_session_->Send("after");
  ASSERT_TRUE(server_side_.WaitForFrames(2));
  EXPECT_TRUE(server_side_.frames()[0] == frame);
  EXPECT_EQ(server_side_.frames()[1], "after");
}

TEST_P(SessionTest, AFrameOverTheLimitClosesTheSessionOfItsSender) {
  Connect();
  client_session_->Send(std::string(kMaxFrameBytes + 1, 'x'));
  ASSERT_TRUE(client_side_.WaitForClose());
  EXPECT_EQ(client_side_.closed()[0].code(), absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(server_side_.WaitForClose());
  EXPECT_TRUE(absl::IsUnavailable(server_side_.closed()[0]));
  EXPECT_TRUE(server_side_.frames().empty());
}

TEST_P(SessionTest, ManyThreadsEachKeepTheirOrder) {
  Connect();
  constexpr int kThreads = 4, kFrames = 5000;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([this, t] {
      for (int i = 0; i < kFrames; ++i) client_session_->Send(Cat(t, ' ', i));
    });
  }
  for (std::thread& thread : threads) thread.join();
  ASSERT_TRUE(server_side_.WaitForFrames(kThreads * kFrames));
  int next[kThreads] = {};
  for (const std::string& frame : server_side_.frames()) {
    const int t = frame[0] - '0';
    ASSERT_EQ(frame, Cat(t, ' ', next[t]++));
  }
}

TEST_P(SessionTest, AHundredThousandFramesPassQuickly) {
  Connect();
  constexpr size_t kFrames = 100'000;
  const auto start = steady_clock::now();
  client_->Post([this] {
    for (size_t i = 0; i < kFrames; ++i) client_session_->Send(std::string(230, 'x'));
  });
  ASSERT_TRUE(server_side_.WaitForFrames(kFrames));
  EXPECT_LT(steady_clock::now() - start, std::chrono::seconds(10));
}

TEST_P(SessionTest, ASlowReaderClosesTheSessionInsteadOfFillingMemory) {
  Connect({.max_queued_bytes = kMaxFrameBytes});
  std::atomic<bool> released = false;
  server_->Post([&released] {
    while (!released) std::this_thread::sleep_for(milliseconds(1));
  });
  for (int i = 0; i < 200; ++i) client_session_->Send(std::string(1 << 20, 'x'));
  ASSERT_TRUE(client_side_.WaitForClose());
  EXPECT_TRUE(absl::IsResourceExhausted(client_side_.closed()[0])) << client_side_.closed()[0];
  released = true;
  ASSERT_TRUE(server_side_.WaitForClose());
  EXPECT_LT(server_side_.frames().size(), 100u);
}

TEST_P(SessionTest, AQueueThatWaitedForTheReaderGoesOn) {
  Connect();
  std::atomic<bool> released = false;
  server_->Post([&released] {
    while (!released) std::this_thread::sleep_for(milliseconds(1));
  });
  std::vector<std::string> sent;
  for (int i = 0; i < 40; ++i) sent.emplace_back(1 << 20, static_cast<char>('a' + i % 26));
  for (const std::string& frame : sent) client_session_->Send(frame);
  std::this_thread::sleep_for(milliseconds(20));
  released = true;
  ASSERT_TRUE(server_side_.WaitForFrames(sent.size()));
  EXPECT_TRUE(server_side_.frames() == sent);
}

TEST_P(SessionTest, WhatWasSentBeforeCloseArrivesFirst) {
  Connect();
  for (int i = 0; i < 100; ++i) client_session_->Send(Cat(i));
  client_session_->Close();
  client_session_->Send("too late");
  ASSERT_TRUE(server_side_.WaitForClose());
  EXPECT_EQ(server_side_.frames().size(), 100u);
  EXPECT_TRUE(absl::IsUnavailable(server_side_.closed()[0]));
  ASSERT_TRUE(client_side_.WaitForClose());
  EXPECT_TRUE(absl::IsCancelled(client_side_.closed()[0]));
}

TEST_P(SessionTest, ClosingInACallbackStopsFramesAndTellsOnce) {
  server_ = *Network::Create();
  client_ = *Network::Create();
  std::atomic<int> frames = 0, closed = 0;
  listener_ = *server_->Listen(address(), [&](std::shared_ptr<Session> peer) {
    return SessionEvents{.on_frame =
                             [&, peer](std::string_view, UniqueFd) {
                               ++frames;
                               peer->Close();
                               peer->Close();
                             },
                         .on_closed =
                             [&, peer](absl::Status) {
                               peer->Close();
                               peer->Send("dropped");
                               ++closed;
                             }};
  });
  client_session_ = *client_->Connect(listener_->address(), client_side_.Events(), 5000);
  client_->Post([this] {
    for (int i = 0; i < 100; ++i) client_session_->Send("x");
  });
  ASSERT_TRUE(client_side_.WaitForClose());
  ASSERT_TRUE(WaitUntil([&] { return closed == 1; }));
  EXPECT_EQ(frames, 1);
  server_.reset();
  EXPECT_EQ(closed, 1);
}

TEST_P(SessionTest, TheEndOfANetworkClosesItsSessions) {
  Connect();
  std::weak_ptr<Session> weak = client_session_;
  client_.reset();
  ASSERT_EQ(client_side_.closed().size(), 1u);
  EXPECT_TRUE(absl::IsCancelled(client_side_.closed()[0]));
  client_session_->Send("dropped");
  client_session_->Close();
  client_session_.reset();
  EXPECT_TRUE(weak.expired());
  ASSERT_TRUE(server_side_.WaitForClose());
}

TEST_P(SessionTest, AnotherVersionIsRefusedWithBothShown) {
  EXPECT_TRUE(CheckHandshake(EncodeHandshake()).ok());
  const absl::Status status = CheckHandshake(EncodeHandshake(7));
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(Message(status).find("version 7 of Baton's protocol, this process version 1"), std::string::npos) << status;
  EXPECT_FALSE(CheckHandshake("batonrpc\1").ok());
  EXPECT_NE(Message(CheckHandshake("GET / HTTP/1.1\r\n")).find("found \"GET / HTTP/1.1\\x0d"), std::string::npos);
}

TEST_P(SessionTest, AddressesThatCannotBeAreRefused) {
  client_ = *Network::Create();
  for (const char* address : {"", "unix:", "unix:relative", "tcp:", "tcp:host", "tcp::80",
                              "tcp:host:", "tcp:host:70000", "tcp:host:8x", "http://x"}) {
    EXPECT_EQ(client_->Connect(address, {}, 10).status().code(), absl::StatusCode::kInvalidArgument) << address;
  }
  EXPECT_TRUE(absl::IsUnavailable(client_->Connect("tcp:127.0.0.1:1", {}, 1000).status()));
}

// ---- over unix sockets ----

int Pipe() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return -1;
  close(ends[1]);
  return ends[0];
}

ino_t FileNumber(int fd) {
  struct stat info = {};
  EXPECT_EQ(fstat(fd, &info), 0);
  return info.st_ino;
}

TEST_P(UnixSessionTest, DescriptorsStayWithTheirFrames) {
  Connect();
  std::vector<ino_t> expected;
  for (int i = 0; i < 500; ++i) {
    UniqueFd fd;
    if (i % 3 == 0) fd = UniqueFd(Pipe());
    expected.push_back(fd.valid() ? FileNumber(fd.get()) : 0);
    client_session_->Send(std::string(i * 37 % 5000, 'x'), std::move(fd));
  }
  ASSERT_TRUE(server_side_.WaitForFrames(expected.size()));
  const std::vector<UniqueFd> got = server_side_.TakeFds();
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_EQ(got[i].valid() ? FileNumber(got[i].get()) : 0, expected[i]) << i;
  }
}

int CountFds() {
  int count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) ++count;
  return count;
}

TEST_P(UnixSessionTest, NoDescriptorIsLeftWhenNobodyTakesThem) {
  const int before = CountFds();
  {
    Connect();
    for (int i = 0; i < 50; ++i) client_session_->Send("x", UniqueFd(Pipe()));
    client_session_->Close();
    for (int i = 0; i < 50; ++i) client_session_->Send("x", UniqueFd(Pipe()));
    ASSERT_TRUE(server_side_.WaitForClose());
    server_side_.TakeFds();
    listener_.reset();
    client_.reset();
    server_.reset();
  }
  client_session_.reset();
  {
    MutexLock lock(mutex_);
    server_session_.reset();
  }
  EXPECT_EQ(CountFds(), before);
}

// A plain socket that has said our handshake.
UniqueFd RawClient(const std::string& address, bool handshake) {
  sockaddr_un name = {.sun_family = AF_UNIX};
  const std::string path = address.substr(5);
  std::memcpy(name.sun_path, path.data(), path.size());
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(connect(fd.get(), reinterpret_cast<sockaddr*>(&name), sizeof(name)), 0);
  if (handshake) {
    const std::string hello = EncodeHandshake();
    const uint32_t header = EncodeFrameHeader(hello.size(), false);
    EXPECT_EQ(send(fd.get(), &header, 4, 0), 4);
    EXPECT_EQ(send(fd.get(), hello.data(), hello.size(), 0), static_cast<ssize_t>(hello.size()));
  }
  return fd;
}

TEST_P(UnixSessionTest, AStreamCutIntoSingleBytesGivesWholeFrames) {
  Connect();
  UniqueFd raw = RawClient(address(), true);
  std::string stream;
  for (const std::string_view payload : {"first", "", "third"}) {
    const uint32_t header = EncodeFrameHeader(payload.size(), false);
    stream.append(reinterpret_cast<const char*>(&header), 4).append(payload);
  }
  for (const char byte : stream) {
    ASSERT_EQ(send(raw.get(), &byte, 1, 0), 1);
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  ASSERT_TRUE(server_side_.WaitForFrames(3));
  EXPECT_EQ(server_side_.frames(), (std::vector<std::string>{"first", "", "third"}));
}

TEST_P(UnixSessionTest, APeerThatBreaksTheFramingIsClosed) {
  Connect();
  UniqueFd raw = RawClient(address(), true);
  const uint32_t header = kMaxFrameBytes + 1;
  ASSERT_EQ(send(raw.get(), &header, 4, 0), 4);
  ASSERT_TRUE(server_side_.WaitForClose());
  EXPECT_EQ(server_side_.closed()[0].code(), absl::StatusCode::kInvalidArgument);
}

TEST_P(UnixSessionTest, AStrangerIsRefusedBeforeAccept) {
  Connect();
  std::shared_ptr<Session> first = server_session();
  UniqueFd raw = RawClient(address(), false);
  ASSERT_EQ(send(raw.get(), "GET / HTTP/1.1\r\n\r\n", 18, 0), 18);
  char bytes[64];
  ssize_t got = recv(raw.get(), bytes, sizeof(bytes), 0);  // the server's own handshake
  while (got > 0) got = recv(raw.get(), bytes, sizeof(bytes), 0);
  EXPECT_LE(got, 0);
  EXPECT_EQ(server_session(), first);
}

TEST_P(UnixSessionTest, FramesOfAPeerThatWasKilledArriveBeforeTheNews) {
  Connect();
  const pid_t child = fork();
  if (child == 0) {
    // The child of a threaded process does only system calls.
    UniqueFd raw = RawClient(address(), true);
    for (uint32_t i = 0; i < 100; ++i) {
      const uint32_t frame[2] = {4, i};
      if (send(raw.get(), frame, sizeof(frame), 0) != sizeof(frame)) _exit(1);
    }
    kill(getpid(), SIGKILL);
    _exit(2);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  const auto killed = steady_clock::now();
  ASSERT_TRUE(server_side_.WaitForClose());
  EXPECT_LT(steady_clock::now() - killed, std::chrono::seconds(1));
  EXPECT_EQ(server_side_.frames().size(), 100u);
  EXPECT_TRUE(absl::IsUnavailable(server_side_.closed()[0]));
  EXPECT_EQ(server_session()->peer_pid(), child);
}

TEST_P(UnixSessionTest, TheSocketIsPrivateAndLeavesWithItsListener) {
  Connect();
  struct stat info;
  ASSERT_EQ(stat(folder_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700u);
  ASSERT_EQ(stat((folder_ / "socket").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  EXPECT_EQ(client_session_->peer_pid(), getpid());
  EXPECT_EQ(client_session_->peer(), Cat(address(), " (pid ", getpid(), ")"));
  listener_.reset();
  EXPECT_FALSE(std::filesystem::exists(folder_ / "socket"));
  EXPECT_TRUE(absl::IsUnavailable(client_->Connect(address(), {}, 1000).status()));
  client_session_->Send("sessions go on");
  EXPECT_TRUE(server_side_.WaitForFrames(1));
}

TEST_P(UnixSessionTest, AFolderThatOthersCanEnterIsRefused) {
  std::filesystem::create_directories(folder_);
  chmod(folder_.c_str(), 0755);
  server_ = *Network::Create();
  const auto listener = server_->Listen(address(), [](std::shared_ptr<Session>) { return SessionEvents{}; });
  EXPECT_EQ(listener.status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_P(UnixSessionTest, AStaleSocketFileIsReplacedAndALivingListenerIsNot) {
  Connect();
  const auto second = server_->Listen(address(), [](std::shared_ptr<Session>) { return SessionEvents{}; });
  EXPECT_TRUE(absl::IsAlreadyExists(second.status())) << second.status();
  listener_.reset();
  {
    UniqueFd dead(socket(AF_UNIX, SOCK_STREAM, 0));
    sockaddr_un name = {.sun_family = AF_UNIX};
    std::strcpy(name.sun_path, (folder_ / "socket").c_str());
    ASSERT_EQ(bind(dead.get(), reinterpret_cast<sockaddr*>(&name), sizeof(name)), 0);
  }
  const auto third = server_->Listen(address(), [](std::shared_ptr<Session>) { return SessionEvents{}; });
  EXPECT_TRUE(third.ok()) << third.status();
}

TEST_P(UnixSessionTest, ConnectGivesUpInTime) {
  Connect();
  // A listener that never answers: nobody accepts.
  UniqueFd mute(socket(AF_UNIX, SOCK_STREAM, 0));
  sockaddr_un name = {.sun_family = AF_UNIX};
  const std::string path = (folder_ / "mute").string();
  std::memcpy(name.sun_path, path.data(), path.size());
  ASSERT_EQ(bind(mute.get(), reinterpret_cast<sockaddr*>(&name), sizeof(name)), 0);
  ASSERT_EQ(listen(mute.get(), 1), 0);
  const auto start = steady_clock::now();
  const auto session = client_->Connect(Cat("unix:", path), {}, 50);
  EXPECT_TRUE(absl::IsDeadlineExceeded(session.status())) << session.status();
  EXPECT_LT(steady_clock::now() - start, std::chrono::seconds(5));
}

// ---- timers and posted work ----

TEST(NetworkTest, TimersRunInOrderAndCancelledOnesDoNot) {
  auto network = *Network::Create();
  std::vector<int> ran;  // by the network's thread until it is gone
  auto third = network->RunAfter(30, [&] { ran.push_back(3); });
  auto first = network->RunAfter(10, [&] { ran.push_back(1); });
  auto never = network->RunAfter(15, [&] { ran.push_back(0); });
  std::unique_ptr<Timer> second;
  network->Post([&] { second = network->RunAfter(20, [&] { ran.push_back(2); }); });
  never.reset();
  std::this_thread::sleep_for(milliseconds(80));
  auto at_the_end = network->RunAfter(60'000, [&] { ran.push_back(0); });
  network.reset();
  EXPECT_EQ(ran, (std::vector<int>{1, 2, 3}));
}

TEST(NetworkTest, PostedWorkRunsInOrderAlsoWhenTheNetworkEnds) {
  auto network = *Network::Create();
  std::vector<int> ran;
  for (int i = 0; i < 100; ++i) network->Post([&ran, i] { ran.push_back(i); });
  network.reset();
  ASSERT_EQ(ran.size(), 100u);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(ran[i], i);
}

}  // namespace
}  // namespace baton
