// One thread of the HTTP server: an Asio event loop, its connections, and the queue by which other threads reach them.
// Internal to this folder: it drags Asio in.
//
// Threading: Post and MarkDirty from any thread, the rest on the thread itself.
// Ownership: connections hold the thread, so that an event loop outlives its sockets; Shutdown breaks the circle.
#pragma once

#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <memory>
#include <thread>
#include <unordered_set>
#include <vector>

#include "base/mutex.h"
#include "http/server.h"

namespace baton {

class Connection;

// What all threads of one server share.
struct ServerState {
  HttpServerOptions options;
  HttpHandler handler;
  std::atomic<bool> draining{false};
  std::atomic<size_t> connections{0};
  std::atomic<size_t> answers_under_way{0};
  std::atomic<size_t> body_bytes{0};  // of requests that are being received or answered
};

class NetworkThread : public std::enable_shared_from_this<NetworkThread> {
 public:
  explicit NetworkThread(std::shared_ptr<ServerState> state);

  void Start();
  // Closes every connection and joins the thread.
  void Shutdown() BATON_EXCLUDES(mutex_);

  // Queues work; one wake-up serves everything that is queued until the thread gets to it. After Shutdown, nothing.
  void Post(std::function<void()> task) BATON_EXCLUDES(mutex_);
  void MarkDirty(std::shared_ptr<Connection> connection) BATON_EXCLUDES(mutex_);

  bool Add(const std::shared_ptr<Connection>& connection);  // false while shutting down
  void Remove(const std::shared_ptr<Connection>& connection);

  boost::asio::io_context& context() { return context_; }
  const std::shared_ptr<ServerState>& state() const { return state_; }
  std::vector<char>& scratch() { return scratch_; }  // where bytes are received

 private:
  void Schedule();
  void RunQueued() BATON_EXCLUDES(mutex_);
  void ArmTick();

  std::shared_ptr<ServerState> state_;
  boost::asio::io_context context_{1};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_{context_.get_executor()};
  boost::asio::steady_timer tick_{context_};
  std::vector<char> scratch_ = std::vector<char>(64 << 10);
  std::unordered_set<std::shared_ptr<Connection>> connections_;
  std::vector<std::function<void()>> running_;
  std::vector<std::shared_ptr<Connection>> flushing_;
  bool stopping_ = false;
  std::thread thread_;

  Mutex mutex_;
  std::vector<std::function<void()>> tasks_ BATON_GUARDED_BY(mutex_);
  std::vector<std::shared_ptr<Connection>> dirty_ BATON_GUARDED_BY(mutex_);
  bool scheduled_ BATON_GUARDED_BY(mutex_) = false;
  bool stopped_ BATON_GUARDED_BY(mutex_) = false;
};

}  // namespace baton
