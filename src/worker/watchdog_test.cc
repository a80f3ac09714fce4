#include "worker/watchdog.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

#include "rpc/envelope.h"

namespace baton {
namespace {

TEST(ProgressWatchTest, CountsLooksWithoutProgress) {
  ProgressWatch watch;
  for (uint64_t moved = 1; moved < 20; ++moved) {
    watch.Look(moved, true, 200);
    EXPECT_EQ(watch.still_ms(), 0);
  }
  watch.Look(19, true, 200);
  watch.Look(19, true, 200);
  EXPECT_EQ(watch.still_ms(), 400);
  watch.Look(20, true, 200);
  EXPECT_EQ(watch.still_ms(), 0);
}

TEST(ProgressWatchTest, WhatHasNothingToDoIsNotStuck) {
  ProgressWatch watch;
  for (int i = 0; i < 20; ++i) watch.Look(7, false, 200);
  EXPECT_EQ(watch.still_ms(), 0);
  watch.Look(7, true, 200);
  EXPECT_EQ(watch.still_ms(), 200);
}

// A path that takes everything and moves nothing.
class StuckTransport : public Transport {
 public:
  const std::string& name() const override { return name_; }
  const TransportCapabilities& capabilities() const override { return capabilities_; }
  absl::StatusOr<ExportedMemory> Export(const LocalMemory&) override { return Unimplemented("export"); }
  absl::StatusOr<std::unique_ptr<RemoteMemory>> Import(std::string_view, UniqueFd) override {
    return Unimplemented("import");
  }
  TransferProgress progress() const override { return {.moved = 3, .busy = busy}; }
  std::atomic<bool> busy = false;

 private:
  const std::string name_ = "stuck";
  const TransportCapabilities capabilities_;
};

class WatchdogTest : public testing::Test {
 protected:
  WatchdogTest() {
    listener_ = *network_->Listen(Cat("unix:", folder_.string(), "/socket"), [this](std::shared_ptr<Session> peer) {
      watchdog_.AddFrontEnd(peer);
      return SessionEvents{.on_closed = [this, peer](absl::Status) { watchdog_.RemoveFrontEnd(peer); }};
    });
    Connect();
  }
  ~WatchdogTest() override {
    watchdog_.Stop();
    listener_.reset();
    network_.reset();
    std::filesystem::remove_all(folder_);
  }
  void Connect() {
    SessionEvents events{.on_frame = [this](std::string_view frame, UniqueFd) {
      proto::Envelope envelope;
      ASSERT_TRUE(ParseEnvelope(frame, envelope).ok());
      ASSERT_TRUE(envelope.has_wedged());
      MutexLock lock(mutex_);
      reasons_.push_back(envelope.wedged().reason());
    }};
    sessions_.push_back(*network_->Connect(listener_->address(), std::move(events), 5000));
  }
  std::vector<std::string> reasons() {
    MutexLock lock(mutex_);
    return reasons_;
  }
  // Keeps the step loop going, or not, until the front end has heard so often.
  void WaitForReasons(size_t count, bool progress) {
    for (int i = 0; i < 1000 && reasons().size() < count; ++i) {
      if (progress) watchdog_.Progress();
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    ASSERT_EQ(reasons().size(), count);
  }

  const std::filesystem::path folder_ = std::filesystem::temp_directory_path() / Cat("baton-watchdog-test-", getpid());
  StuckTransport transport_;
  Mutex mutex_;
  std::vector<std::string> reasons_ BATON_GUARDED_BY(mutex_);
  std::atomic<int> ended_ = 0;
  std::unique_ptr<Network> network_ = *Network::Create();
  Watchdog watchdog_{
      *network_, transport_, {.wedged_after_ms = 600, .restart_after_ms = 1200}, [this](const std::string&) {
        ended_ += 1;
      }};
  std::unique_ptr<Listener> listener_;
  std::vector<std::shared_ptr<Session>> sessions_;
};

TEST_F(WatchdogTest, AStepLoopThatHangsIsReportedAndEndedOnce) {
  watchdog_.Start();
  WaitForReasons(1, false);
  EXPECT_NE(reasons()[0].find("step loop"), std::string::npos);
  Connect();  // a front end that comes later hears of it too
  WaitForReasons(2, false);
  for (int i = 0; i < 500 && ended_ == 0; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  std::this_thread::sleep_for(std::chrono::milliseconds(600));
  EXPECT_EQ(ended_, 1);
}

TEST_F(WatchdogTest, CopiesThatDoNotMoveAreReportedAndTheirGoingOnToo) {
  watchdog_.Start();
  transport_.busy = true;
  WaitForReasons(1, true);
  EXPECT_NE(reasons()[0].find("copies"), std::string::npos);
  transport_.busy = false;
  WaitForReasons(2, true);
  EXPECT_EQ(reasons()[1], "");
}

TEST_F(WatchdogTest, ProgressIsNoNews) {
  watchdog_.Start();
  for (int i = 0; i < 100; ++i) {
    watchdog_.Progress();
    std::this_thread::sleep_for(std::chrono::milliseconds(15));
  }
  EXPECT_TRUE(reasons().empty());
}

}  // namespace
}  // namespace baton
