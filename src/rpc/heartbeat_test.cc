// Heart-beats of real sessions: a side whose network thread hangs is suspected, comes back, or is lost.
#include <gtest/gtest.h>

#include <atomic>

#include "rpc/session_test_fixture.h"

namespace baton {
namespace {

class HeartbeatTest : public SessionTest {
 protected:
  // The client watches the server; its beats are short, and the server's process does what `state_` says.
  void ConnectWatched() {
    NetworkOptions options{.watch = {.interval_ms = 10}, .look = [this](int32_t pid) {
                             looked_at_ = pid;
                             return state_.load();
                           }};
    client_ = *Network::Create(options);
    server_ = *Network::Create();
    auto listener = server_->Listen(address(), [this](std::shared_ptr<Session> peer) {
      MutexLock lock(mutex_);
      server_session_ = std::move(peer);
      return server_side_.Events();
    });
    ASSERT_TRUE(listener.ok()) << listener.status();
    listener_ = *std::move(listener);
    SessionEvents events = client_side_.Events();
    events.watched = true;
    events.on_health = [this](PeerHealth health, const std::string& why) {
      why_ = why;
      health_ = health;
      changes_ += 1;
    };
    client_session_ = *client_->Connect(listener_->address(), std::move(events), 5000);
    ASSERT_TRUE(WaitUntil([this] { return server_session() != nullptr; }));
  }
  // The threads of the networks use this object: they end before it does.
  void TearDown() override {
    released_ = true;
    listener_.reset();
    client_.reset();
    server_.reset();
  }
  void FreezeServer() {
    released_ = false;
    server_->Post([this] {
      while (!released_) std::this_thread::sleep_for(milliseconds(1));
    });
  }

  std::atomic<ProcessState> state_ = ProcessState::kActive;
  std::atomic<PeerHealth> health_ = PeerHealth::kWell;
  std::atomic<int> changes_ = 0;
  std::atomic<int32_t> looked_at_ = 0;
  std::atomic<bool> released_ = true;
  std::string why_;  // of the last change
};

TEST_P(HeartbeatTest, AnIdleSessionIsWell) {
  ConnectWatched();
  std::this_thread::sleep_for(milliseconds(600));
  EXPECT_EQ(health_, PeerHealth::kWell);
  EXPECT_TRUE(client_side_.closed().empty());
  EXPECT_TRUE(client_side_.frames().empty());  // beats are nobody's frames
  EXPECT_TRUE(server_side_.frames().empty());
  client_session_->Send("still here");
  ASSERT_TRUE(server_side_.WaitForFrames(1));
}

TEST_P(HeartbeatTest, AFrozenSideIsSuspectedAndComesBack) {
  ConnectWatched();
  FreezeServer();
  ASSERT_TRUE(WaitUntil([this] { return health_ == PeerHealth::kSuspected; }));
  EXPECT_NE(why_.find("silent for"), std::string::npos) << why_;
  if (GetParam() == std::string_view("unix")) EXPECT_EQ(looked_at_, getpid());
  client_session_->Send("for later");
  std::this_thread::sleep_for(milliseconds(700));  // it is seen at work: never lost
  EXPECT_TRUE(client_side_.closed().empty());
  released_ = true;
  ASSERT_TRUE(WaitUntil([this] { return health_ == PeerHealth::kWell; }));
  ASSERT_TRUE(server_side_.WaitForFrames(1));
  EXPECT_EQ(changes_, 2);
}

TEST_P(HeartbeatTest, AStoppedSideIsLost) {
  ConnectWatched();
  FreezeServer();
  state_ = ProcessState::kStopped;
  ASSERT_TRUE(client_side_.WaitForClose());
  EXPECT_TRUE(absl::IsDeadlineExceeded(client_side_.closed()[0])) << client_side_.closed()[0];
  EXPECT_NE(client_side_.closed()[0].ToString().find("stopped"), std::string::npos);
  EXPECT_EQ(health_, PeerHealth::kSuspected);  // it was that first
  released_ = true;
  ASSERT_TRUE(server_side_.WaitForClose());  // the other side learns that it was given up
}

TEST_P(HeartbeatTest, FramesAreSignsOfLife) {
  ConnectWatched();
  state_ = ProcessState::kStopped;
  FreezeServer();
  // The server's network thread is blocked, but another of its threads sends: tokens come.
  for (int i = 0; i < 60; ++i) {
    server_session()->Send("token");
    std::this_thread::sleep_for(milliseconds(5));
  }
  EXPECT_TRUE(client_side_.closed().empty());
}

TEST_P(HeartbeatTest, AnObserverThatWasFrozenSuspectsNobody) {
  ConnectWatched();
  state_ = ProcessState::kStopped;
  released_ = false;
  client_->Post([this] {
    while (!released_) std::this_thread::sleep_for(milliseconds(1));
  });
  std::this_thread::sleep_for(milliseconds(300));
  released_ = true;  // an observer that was frozen itself has missed one beat
  std::this_thread::sleep_for(milliseconds(100));
  EXPECT_EQ(health_, PeerHealth::kWell);
  EXPECT_TRUE(server_side_.closed().empty());
}

INSTANTIATE_TEST_SUITE_P(Addresses, HeartbeatTest, testing::Values("unix", "tcp"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace baton
