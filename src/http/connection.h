// One client's connection: reads requests, hands them to the handler one at a time, sends what their writers write.
// Internal to this folder.
//
// Threading: everything on its network thread, but what is under mutex_: the writer's side, from any thread.
// Ownership: held by its network thread until closed, and by the writers of its requests.
// Limits: holds at most one request, and pipelined bytes up to the header's limit, while one is answered.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/mutex.h"
#include "http/message.h"
#include "http/network_thread.h"
#include "http/request_reader.h"

namespace baton {

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  using Clock = std::chrono::steady_clock;

  Connection(boost::asio::ip::tcp::socket socket, std::shared_ptr<NetworkThread> thread);
  ~Connection();

  // On the network thread.
  void Start();
  void Flush() BATON_EXCLUDES(mutex_);
  void Close() BATON_EXCLUDES(mutex_);
  bool IsDue(Clock::time_point now) const;
  void OnDue(Clock::time_point now);

  // The writer's side, from any thread. `answer` is the number of the request on this connection; calls for one that
  // has ended do nothing.
  void Send(uint64_t answer, int status, HttpHeaders headers, std::string_view body) BATON_EXCLUDES(mutex_);
  void StartStream(uint64_t answer, int status, HttpHeaders headers) BATON_EXCLUDES(mutex_);
  bool Write(uint64_t answer, std::string_view bytes) BATON_EXCLUDES(mutex_);
  void Finish(uint64_t answer) BATON_EXCLUDES(mutex_);
  void Abandon(uint64_t answer) BATON_EXCLUDES(mutex_);  // the writer is gone
  void OnDisconnect(uint64_t answer, std::function<void()> callback) BATON_EXCLUDES(mutex_);
  void SetTimer(uint64_t answer, std::chrono::milliseconds delay, std::function<void()> callback);
  NetworkThread& thread() { return *thread_; }

 private:
  enum class Phase { kReading, kAnswering, kLingering, kClosed };
  // The answer under way.
  struct Answer {
    uint64_t number = 0;
    bool open = false;  // a writer may still write
    bool head_only = false;
    bool keep_alive = true;
    bool http_1_0 = false;
    bool started = false;  // the head is written
    bool events = false;   // a server-sent event stream: may carry comments
    bool chunked = false;
    bool overflow = false;  // the client reads too slowly
    bool lost = false;      // the client left before the end
    std::function<void()> on_disconnect;
  };

  std::shared_ptr<ResponseWriter> MakeWriter(uint64_t answer);
  void ArmRead();
  void OnReadable();
  void OnEndOfInput();
  void Advance();
  void Dispatch();
  void Refuse(const HttpError& error);
  uint64_t BeginAnswer(Answer answer) BATON_EXCLUDES(mutex_);
  bool AnswersItself(uint64_t answer, const HttpRequest& request);
  void OnAnswerSent(bool keep_alive);
  void Linger();
  void SendPending();
  void UpdateReadDeadline();
  bool CountBody();
  void ForgetBody();
  void AppendHead(int status, HttpHeaders headers) BATON_REQUIRES(mutex_);
  void MarkDirty() BATON_REQUIRES(mutex_);
  std::string ErrorBody(const HttpError& error) const;
  const HttpServerOptions& options() const { return thread_->state()->options; }

  std::shared_ptr<NetworkThread> thread_;
  boost::asio::ip::tcp::socket socket_;
  boost::asio::steady_timer timer_;
  RequestReader reader_;
  Phase phase_ = Phase::kReading;
  RequestReader::State deadline_state_ = RequestReader::State::kDone;
  Clock::time_point deadline_ = Clock::time_point::max();  // of reading or lingering
  Clock::time_point last_sent_ = Clock::now();
  bool read_armed_ = false;
  bool write_armed_ = false;
  bool input_ended_ = false;
  bool refused_ = false;  // what else comes is thrown away
  bool events_ = false;   // a copy of the answer's, for IsDue
  std::string sending_;
  size_t body_bytes_ = 0;  // counted in ServerState::body_bytes
  size_t sent_ = 0;        // bytes of sending_ that the kernel has taken

  Mutex mutex_;
  Answer answer_ BATON_GUARDED_BY(mutex_);
  std::string outbox_ BATON_GUARDED_BY(mutex_);
  bool dirty_ BATON_GUARDED_BY(mutex_) = false;  // Flush is on its way
  size_t unsent_ BATON_GUARDED_BY(mutex_) = 0;   // bytes that Flush could not send
};

}  // namespace baton
