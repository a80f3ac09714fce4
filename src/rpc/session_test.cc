// What sessions promise over every kind of address.
#include "rpc/session.h"

#include <atomic>

#include "base/wake_batch.h"
#include "rpc/frame_decoder.h"
#include "rpc/handshake.h"
#include "rpc/session_test_fixture.h"

namespace baton {
namespace {

INSTANTIATE_TEST_SUITE_P(All, SessionTest, testing::Values("unix", "tcp"));

TEST_P(SessionTest, FramesOfABatchLeaveTogetherInOrder) {
  Connect();
  std::vector<std::string> expected;
  {
    const WakeBatch batch;
    for (int i = 0; i < 200; ++i) {
      expected.push_back(Cat("frame ", i, std::string(i * 91 % 3000, 'x')));
      client_session_->Send(expected.back());
    }
    std::this_thread::sleep_for(milliseconds(20));
    EXPECT_EQ(server_side_.frames().size(), 0u);
  }
  client_session_->Send("after");
  expected.push_back("after");
  ASSERT_TRUE(server_side_.WaitForFrames(expected.size()));
  EXPECT_EQ(server_side_.frames(), expected);
}

TEST_P(SessionTest, ASessionThatClosesWithinABatchDoesSoCleanly) {
  Connect();
  {
    const WakeBatch batch;
    client_session_->Send("last words");
    client_session_->Close();
    client_session_->Send("never");
  }
  ASSERT_TRUE(server_side_.WaitForClose());
  ASSERT_TRUE(client_side_.WaitForClose());
  EXPECT_EQ(server_side_.frames(), std::vector<std::string>{"last words"});
}

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

TEST_P(SessionTest, AHundredThousandFramesAtOnceArrive) {
  Connect();
  constexpr size_t kFrames = 100'000;
  client_->Post([this] {
    for (size_t i = 0; i < kFrames; ++i) client_session_->Send(Cat(i));
  });
  ASSERT_TRUE(server_side_.WaitForFrames(kFrames));
  const std::vector<std::string> frames = server_side_.frames();
  for (size_t i = 0; i < kFrames; ++i) ASSERT_EQ(frames[i], Cat(i));
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
  const std::string both = Cat("version 7 of Baton's protocol, this process version ", kProtocolVersion);
  EXPECT_NE(Message(status).find(both), std::string::npos) << status;
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

TEST(NetworkTest, TimersRunInOrderAndCancelledOnesDoNot) {
  auto network = *Network::Create();
  std::vector<int> ran;  // by the network's thread until it is gone
  std::vector<std::unique_ptr<Timer>> timers;
  std::atomic<bool> last_ran = false;
  // None of them can run before this has returned.
  network->Post([&] {
    timers.push_back(network->RunAfter(30, [&] {
      ran.push_back(3);
      last_ran = true;
    }));
    timers.push_back(network->RunAfter(1, [&] { ran.push_back(1); }));
    timers.push_back(network->RunAfter(15, [&] { ran.push_back(2); }));
    const auto never = network->RunAfter(10, [&] { ran.push_back(0); });
  });
  ASSERT_TRUE(WaitUntil([&last_ran] { return last_ran.load(); }));
  auto at_the_end = network->RunAfter(60'000, [&] { ran.push_back(0); });
  network.reset();
  EXPECT_EQ(ran, (std::vector<int>{1, 2, 3}));
}

TEST(NetworkTest, ATimerFromAnotherThreadWakesASleepingNetwork) {
  auto network = *Network::Create();
  const auto late = network->RunAfter(60'000, [] {});
  std::this_thread::sleep_for(milliseconds(5));  // it sleeps now until then
  std::atomic<bool> ran = false;
  const auto soon = network->RunAfter(1, [&ran] { ran = true; });
  EXPECT_TRUE(WaitUntil([&ran] { return ran.load(); }));
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
