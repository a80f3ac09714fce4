#include "rpc/local_session.h"

#include <unistd.h>

#include <utility>

#include "base/mutex.h"

namespace baton {
namespace {

class LocalSession : public Session {
 public:
  explicit LocalSession(std::string name) : name_(std::move(name)) {}

  static void Join(const std::shared_ptr<LocalSession>& one, const std::shared_ptr<LocalSession>& other) {
    one->Attach(other);
    other->Attach(one);
  }
  void Listen(SessionEvents events) BATON_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    if (other_ != nullptr) events_ = std::make_shared<SessionEvents>(std::move(events));
  }

  void Send(std::string frame, UniqueFd fd) override {
    const std::shared_ptr<LocalSession> other = Other();
    if (other == nullptr) return;
    if (const auto events = other->Events(); events != nullptr && events->on_frame) {
      events->on_frame(frame, std::move(fd));
    }
  }

  void Close() override {
    const std::shared_ptr<LocalSession> other = Other();
    End(Cancelled("closed on this side"));
    if (other != nullptr) other->End(Unavailable(name_, " closed the session"));
  }

  std::string peer() const override { return name_; }
  int32_t peer_pid() const override { return getpid(); }
  bool within_process() const override { return true; }

 private:
  void Attach(std::shared_ptr<LocalSession> other) BATON_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    other_ = std::move(other);
  }
  std::shared_ptr<LocalSession> Other() BATON_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return other_;
  }
  std::shared_ptr<SessionEvents> Events() BATON_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return events_;
  }
  void End(absl::Status why) BATON_EXCLUDES(mutex_) {
    std::shared_ptr<SessionEvents> events;
    std::shared_ptr<LocalSession> other;
    {
      MutexLock lock(mutex_);
      events = std::exchange(events_, nullptr);
      other = std::exchange(other_, nullptr);
    }
    if (events != nullptr && events->on_closed) events->on_closed(std::move(why));
  }

  const std::string name_;
  Mutex mutex_;
  std::shared_ptr<LocalSession> other_ BATON_GUARDED_BY(mutex_);  // null: closed
  std::shared_ptr<SessionEvents> events_ BATON_GUARDED_BY(mutex_);
};

}  // namespace

std::shared_ptr<Session> ConnectWithin(const std::string& name, SessionEvents events, const Network::Accept& accept) {
  auto connecting = std::make_shared<LocalSession>(name);
  auto accepting = std::make_shared<LocalSession>(name);
  LocalSession::Join(connecting, accepting);
  connecting->Listen(std::move(events));
  accepting->Listen(accept(accepting));
  return connecting;
}

}  // namespace baton
