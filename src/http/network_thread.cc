#include "http/network_thread.h"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <utility>

#include "base/wake_batch.h"
#include "http/connection.h"

namespace baton {

NetworkThread::NetworkThread(std::shared_ptr<ServerState> state) : state_(std::move(state)) {}

void NetworkThread::Start() {
  ArmTick();
  thread_ = std::thread([self = shared_from_this()] { self->context_.run(); });
}

void NetworkThread::Shutdown() {
  boost::asio::post(context_, [self = shared_from_this()] {
    self->stopping_ = true;
    self->tick_.cancel();
    self->work_.reset();
    const auto connections = self->connections_;  // Close() removes from the set
    for (const auto& connection : connections) connection->Close();
  });
  if (thread_.joinable()) thread_.join();
  std::vector<std::function<void()>> tasks;
  std::vector<std::shared_ptr<Connection>> dirty;
  {
    MutexLock lock(mutex_);
    stopped_ = true;
    tasks.swap(tasks_);
    dirty.swap(dirty_);
  }
}

void NetworkThread::Post(std::function<void()> task) {
  {
    MutexLock lock(mutex_);
    if (stopped_) return;
    tasks_.push_back(std::move(task));
    if (std::exchange(scheduled_, true)) return;
  }
  WakeBatch::Wake([self = shared_from_this()] { self->Schedule(); });
}

void NetworkThread::MarkDirty(std::shared_ptr<Connection> connection) {
  {
    MutexLock lock(mutex_);
    if (stopped_) return;
    dirty_.push_back(std::move(connection));
    if (std::exchange(scheduled_, true)) return;
  }
  Schedule();
}

void NetworkThread::Schedule() {
  boost::asio::post(context_, [self = shared_from_this()] { self->RunQueued(); });
}

// Tasks first, then the output that they and other threads have left. One round only, so that sockets get their turn.
void NetworkThread::RunQueued() {
  {
    MutexLock lock(mutex_);
    running_.swap(tasks_);
  }
  for (const auto& task : running_) task();
  running_.clear();
  {
    MutexLock lock(mutex_);
    flushing_.swap(dirty_);
  }
  for (const auto& connection : flushing_) connection->Flush();
  flushing_.clear();
  {
    MutexLock lock(mutex_);
    if (tasks_.empty() && dirty_.empty()) {
      scheduled_ = false;
      return;
    }
  }
  Schedule();
}

bool NetworkThread::Add(const std::shared_ptr<Connection>& connection) {
  if (stopping_) return false;
  connections_.insert(connection);
  return true;
}

void NetworkThread::Remove(const std::shared_ptr<Connection>& connection) { connections_.erase(connection); }

// Time-outs and keep-alive comments are looked after a few times in the shortest of their periods.
void NetworkThread::ArmTick() {
  const HttpServerOptions& options = state_->options;
  auto period = std::min({options.header_timeout, options.body_timeout, options.idle_timeout, options.write_timeout});
  if (options.comment_interval.count() > 0) period = std::min(period, options.comment_interval);
  tick_.expires_after(std::clamp(period / 4, std::chrono::milliseconds(10), std::chrono::milliseconds(1000)));
  tick_.async_wait([self = shared_from_this()](const boost::system::error_code& error) {
    if (error || self->stopping_) return;
    const auto now = std::chrono::steady_clock::now();
    std::vector<std::shared_ptr<Connection>> due;
    for (const auto& connection : self->connections_) {
      if (connection->IsDue(now)) due.push_back(connection);
    }
    for (const auto& connection : due) connection->OnDue(now);
    self->ArmTick();
  });
}

}  // namespace baton
