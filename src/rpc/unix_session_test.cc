// What only sessions over unix sockets can do, and peers that are processes or break the rules.
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <cstring>

#include "rpc/frame_decoder.h"
#include "rpc/handshake.h"
#include "rpc/session_test_fixture.h"

namespace baton {
namespace {

using UnixSessionTest = SessionTest;

INSTANTIATE_TEST_SUITE_P(Unix, UnixSessionTest, testing::Values("unix"));

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

}  // namespace
}  // namespace baton
