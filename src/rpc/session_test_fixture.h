// Two networks of one process and a session between them, for the tests of sessions.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "rpc/session.h"

namespace baton {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr auto kPatience = std::chrono::seconds(60);

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

}  // namespace baton
