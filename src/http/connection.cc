#include "http/connection.h"

#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/log.h"
#include "base/status.h"

namespace baton {
namespace {

using boost::asio::ip::tcp;

constexpr std::chrono::milliseconds kLingerTime{3'000};
constexpr size_t kIdleBufferBytes = 16 << 10;  // buffers larger than this are given back between answers

void SetTcpOption(int fd, int option, int value) { ::setsockopt(fd, IPPROTO_TCP, option, &value, sizeof(value)); }

void GiveBackMemory(std::string& buffer) {
  if (buffer.capacity() > kIdleBufferBytes) std::string().swap(buffer);
}

}  // namespace

Connection::Connection(tcp::socket socket, std::shared_ptr<NetworkThread> thread)
    : thread_(std::move(thread)),
      socket_(std::move(socket)),
      timer_(socket_.get_executor()),
      reader_({options().header_bytes_max, options().body_bytes_max}) {
  thread_->state()->connections.fetch_add(1);
}

Connection::~Connection() { thread_->state()->connections.fetch_sub(1); }

void Connection::Start() {
  boost::system::error_code error;
  socket_.non_blocking(true, error);
  if (error || !thread_->Add(shared_from_this())) return;
  SetTcpOption(socket_.native_handle(), TCP_NODELAY, 1);
  UpdateReadDeadline();
  ArmRead();
}

// A client that writes header and body apart, with Nagle's algorithm on, sends the body only when the header has been
// acknowledged. The kernel delays that by 40 ms unless TCP_QUICKACK is set, and forgets it again at will.
void Connection::ArmRead() {
  if (read_armed_ || input_ended_ || phase_ == Phase::kClosed) return;
  if (phase_ == Phase::kAnswering && reader_.buffered() > options().header_bytes_max) return;
  SetTcpOption(socket_.native_handle(), TCP_QUICKACK, 1);
  read_armed_ = true;
  socket_.async_wait(tcp::socket::wait_read, [self = shared_from_this()](const boost::system::error_code& error) {
    self->read_armed_ = false;
    if (!error) self->OnReadable();
  });
}

void Connection::OnReadable() {
  if (phase_ == Phase::kClosed) return;
  auto& scratch = thread_->scratch();
  const ssize_t count = ::recv(socket_.native_handle(), scratch.data(), scratch.size(), MSG_DONTWAIT);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return ArmRead();
  if (count < 0) return Close();
  if (count == 0) return OnEndOfInput();
  if (phase_ != Phase::kLingering && !refused_) reader_.Feed({scratch.data(), static_cast<size_t>(count)});
  if (phase_ == Phase::kReading) Advance();
  ArmRead();
}

// A client that has shut its side down while it waits for an answer counts as gone; one whose answer is complete still
// gets the rest of it.
void Connection::OnEndOfInput() {
  input_ended_ = true;
  bool open = false;
  {
    MutexLock lock(mutex_);
    open = answer_.open;
  }
  if (phase_ != Phase::kAnswering || open) Close();
}

// Counts what has arrived of the request's body; false when all bodies together are too large.
bool Connection::CountBody() {
  const size_t bytes = reader_.body_bytes();
  const size_t more = bytes - std::min(bytes, body_bytes_);
  body_bytes_ += more;
  return thread_->state()->body_bytes.fetch_add(more) + more <= options().all_bodies_bytes_max;
}

void Connection::ForgetBody() { thread_->state()->body_bytes.fetch_sub(std::exchange(body_bytes_, 0)); }

void Connection::Advance() {
  if (!CountBody()) {
    return Refuse({503, "the server is busy with too many large requests: try again later"});
  }
  switch (reader_.state()) {
    case RequestReader::State::kDone:
      return Dispatch();
    case RequestReader::State::kError:
      return Refuse(reader_.error());
    default:
      if (reader_.TakeExpectation()) {
        MutexLock lock(mutex_);
        outbox_ += "HTTP/1.1 100 Continue\r\n\r\n";
        MarkDirty();
      }
      UpdateReadDeadline();
  }
}

// Each phase of reading has its time as a whole, so that a client which sends a byte now and then gains nothing.
void Connection::UpdateReadDeadline() {
  const RequestReader::State state = reader_.state();
  if (state == deadline_state_) return;
  deadline_state_ = state;
  const auto limit = state == RequestReader::State::kEmpty    ? options().idle_timeout
                     : state == RequestReader::State::kHeader ? options().header_timeout
                                                              : options().body_timeout;
  deadline_ = Clock::now() + limit;
}

uint64_t Connection::BeginAnswer(Answer answer) {
  phase_ = Phase::kAnswering;
  deadline_ = Clock::time_point::max();
  deadline_state_ = RequestReader::State::kDone;
  last_sent_ = Clock::now();
  thread_->state()->answers_under_way.fetch_add(1);
  MutexLock lock(mutex_);
  answer.number = answer_.number + 1;
  answer.open = true;
  answer_ = std::move(answer);
  return answer_.number;
}

void Connection::Dispatch() {
  HttpRequest request = reader_.Take();
  const uint64_t number = BeginAnswer(
      {.head_only = request.method == "HEAD", .keep_alive = request.keep_alive, .http_1_0 = request.http_1_0});
  if (AnswersItself(number, request)) return;
  thread_->state()->handler(std::move(request), MakeWriter(number));
}

bool Connection::AnswersItself(uint64_t answer, const HttpRequest& request) {
  if (request.method == "OPTIONS") {
    HttpHeaders headers = {{"allow", "GET, HEAD, POST, OPTIONS"}};
    if (options().cors) {
      headers.emplace_back("access-control-allow-methods", "GET, HEAD, POST, OPTIONS");
      const std::string_view asked = request.Header("access-control-request-headers");
      headers.emplace_back("access-control-allow-headers", asked.empty() ? "*" : asked);
      headers.emplace_back("access-control-max-age", "86400");
    }
    Send(answer, 204, std::move(headers), "");
    return true;
  }
  if (thread_->state()->draining.load() && request.method != "GET" && request.method != "HEAD") {
    Send(answer, 503, {{"content-type", "application/json"}, {"retry-after", "5"}},
         ErrorBody({503, "the server is shutting down: send the request to another one, or try again later"}));
    return true;
  }
  return false;
}

// Answers a request that could not be read; whatever else the client sends is thrown away.
void Connection::Refuse(const HttpError& error) {
  refused_ = true;
  const uint64_t number = BeginAnswer({.keep_alive = false});
  Send(number, error.status, {{"content-type", "application/json"}}, ErrorBody(error));
}

std::string Connection::ErrorBody(const HttpError& error) const {
  if (options().error_body) return options().error_body(error);
  return Cat("{\"error\":", error.status, "}");
}

void Connection::Flush() {
  if (phase_ == Phase::kClosed) return;
  bool overflow = false;
  {
    MutexLock lock(mutex_);
    dirty_ = false;
    if (sent_ == sending_.size()) {
      sending_.clear();
      sent_ = 0;
      sending_.swap(outbox_);
    } else {
      sending_ += outbox_;
      outbox_.clear();
      unsent_ = sending_.size() - sent_;
    }
    events_ = answer_.events && answer_.open;
    overflow = answer_.overflow;
  }
  if (overflow) {
    LogDebug("a client reads too slowly and is disconnected");
    return Close();
  }
  if (!write_armed_) SendPending();
}

void Connection::SendPending() {
  while (sent_ < sending_.size()) {
    const ssize_t count =
        ::send(socket_.native_handle(), sending_.data() + sent_, sending_.size() - sent_, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno != EAGAIN) return Close();
    if (count < 0) {
      write_armed_ = true;
      socket_.async_wait(tcp::socket::wait_write, [self = shared_from_this()](const boost::system::error_code& error) {
        self->write_armed_ = false;
        if (!error) self->Flush();
      });
      break;
    }
    sent_ += static_cast<size_t>(count);
    last_sent_ = Clock::now();
  }
  bool ended = false;
  bool keep_alive = false;
  {
    MutexLock lock(mutex_);
    unsent_ = sending_.size() - sent_;
    ended = phase_ == Phase::kAnswering && !answer_.open && unsent_ == 0 && outbox_.empty();
    keep_alive = answer_.keep_alive;
  }
  if (ended) OnAnswerSent(keep_alive);
}

void Connection::OnAnswerSent(bool keep_alive) {
  thread_->state()->answers_under_way.fetch_sub(1);
  ForgetBody();
  timer_.cancel();
  GiveBackMemory(sending_);
  sent_ = sending_.size();
  {
    MutexLock lock(mutex_);
    GiveBackMemory(outbox_);
  }
  if (input_ended_) {
    phase_ = Phase::kReading;
    return Close();
  }
  if (!keep_alive) return Linger();
  phase_ = Phase::kReading;
  reader_.Next();
  Advance();
  ArmRead();
}

// Closing a socket with unread input resets it, and the client might never see the answer: say goodbye, and read on for
// a moment.
void Connection::Linger() {
  phase_ = Phase::kLingering;
  deadline_ = Clock::now() + kLingerTime;
  ::shutdown(socket_.native_handle(), SHUT_WR);
  ArmRead();
}

void Connection::Close() {
  if (phase_ == Phase::kClosed) return;
  const auto self = shared_from_this();  // the thread's reference goes
  if (phase_ == Phase::kAnswering) thread_->state()->answers_under_way.fetch_sub(1);
  phase_ = Phase::kClosed;
  ForgetBody();
  boost::system::error_code ignored;
  timer_.cancel();
  socket_.close(ignored);
  thread_->Remove(self);
  std::function<void()> on_disconnect;
  {
    MutexLock lock(mutex_);
    on_disconnect = std::exchange(answer_.on_disconnect, nullptr);
    answer_.lost = answer_.open;
    answer_.open = false;
    outbox_.clear();
  }
  if (on_disconnect) on_disconnect();
}

bool Connection::IsDue(Clock::time_point now) const {
  if (phase_ == Phase::kClosed) return false;
  if (now >= deadline_) return true;
  if (phase_ != Phase::kAnswering) return false;
  if (sent_ < sending_.size()) return now - last_sent_ >= options().write_timeout;
  // A client whose pipelined bytes fill the buffer is not read from: look here whether it has left.
  if (!read_armed_ && !input_ended_) return true;
  return events_ && options().comment_interval.count() > 0 && now - last_sent_ >= options().comment_interval;
}

void Connection::OnDue(Clock::time_point now) {
  if (phase_ == Phase::kClosed) return;
  if (phase_ == Phase::kReading && now >= deadline_ && reader_.state() != RequestReader::State::kEmpty) {
    return Refuse({408, "the request did not arrive in time"});
  }
  if (now >= deadline_ || sent_ < sending_.size()) return Close();
  if (!read_armed_) {
    tcp_info info{};
    socklen_t size = sizeof(info);
    ::getsockopt(socket_.native_handle(), IPPROTO_TCP, TCP_INFO, &info, &size);
    if (info.tcpi_state != TCP_ESTABLISHED) return OnEndOfInput();
  }
  if (!events_ || now - last_sent_ < options().comment_interval) return;
  MutexLock lock(mutex_);
  if (!answer_.open || !answer_.events) return;
  constexpr std::string_view kComment = ": keep-alive\n\n";
  if (answer_.chunked) {
    AppendChunk(outbox_, kComment);
  } else {
    outbox_ += kComment;
  }
  MarkDirty();
}

}  // namespace baton
