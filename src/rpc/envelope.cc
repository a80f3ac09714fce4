#include "rpc/envelope.h"

#include <deque>
#include <thread>
#include <utility>

#include "base/mutex.h"

namespace baton {
namespace {

class ThreadConnector : public Connector {
 public:
  explicit ThreadConnector(Network& network) : network_(network), thread_([this] { Loop(); }) {}

  ~ThreadConnector() override {
    {
      MutexLock lock(mutex_);
      stopping_ = true;
    }
    changed_.SignalAll();
    thread_.join();
  }

  void Connect(std::string address, SessionEvents events, int64_t timeout_ms, Done done) override {
    {
      MutexLock lock(mutex_);
      queue_.push_back({std::move(address), std::move(events), timeout_ms, std::move(done)});
    }
    changed_.Signal();
  }

 private:
  struct Task {
    std::string address;
    SessionEvents events;
    int64_t timeout_ms;
    Done done;
  };

  void Loop() {
    while (true) {
      Task task;
      {
        MutexLock lock(mutex_);
        while (queue_.empty() && !stopping_) changed_.Wait(mutex_);
        if (stopping_) return;
        task = std::move(queue_.front());
        queue_.pop_front();
      }
      auto session = network_.Connect(task.address, std::move(task.events), task.timeout_ms);
      network_.Post(
          [done = std::move(task.done), session = std::move(session)]() mutable { done(std::move(session)); });
    }
  }

  Network& network_;
  Mutex mutex_;
  CondVar changed_;
  std::deque<Task> queue_ BATON_GUARDED_BY(mutex_);
  bool stopping_ BATON_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: starts when everything else is there
};

}  // namespace

void SendEnvelope(Session& session, const proto::Envelope& envelope, UniqueFd fd) {
  session.Send(envelope.SerializeAsString(), std::move(fd));
}

absl::Status ParseEnvelope(std::string_view frame, proto::Envelope& envelope) {
  if (!envelope.ParseFromArray(frame.data(), static_cast<int>(frame.size()))) {
    return DataLoss("a frame of ", frame.size(), " bytes is no message of this version");
  }
  return absl::OkStatus();
}

std::unique_ptr<Connector> CreateConnector(Network& network) { return std::make_unique<ThreadConnector>(network); }

}  // namespace baton
