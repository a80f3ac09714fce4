// The writer's side of a connection: what a handler does with its answer, from any thread.
#include <utility>

#include "base/status.h"
#include "http/connection.h"

namespace baton {
namespace {

class Writer : public ResponseWriter {
 public:
  Writer(std::shared_ptr<Connection> connection, uint64_t answer)
      : connection_(std::move(connection)), answer_(answer) {}
  ~Writer() override { connection_->Abandon(answer_); }

  void Send(int status, HttpHeaders headers, std::string_view body) override {
    connection_->Send(answer_, status, std::move(headers), body);
  }
  void StartStream(int status, HttpHeaders headers) override {
    connection_->StartStream(answer_, status, std::move(headers));
  }
  bool Write(std::string_view bytes) override { return connection_->Write(answer_, bytes); }
  void Finish() override { connection_->Finish(answer_); }
  void OnDisconnect(std::function<void()> callback) override {
    connection_->OnDisconnect(answer_, std::move(callback));
  }
  void Post(std::function<void()> task) override { connection_->thread().Post(std::move(task)); }
  void SetTimer(std::chrono::milliseconds delay, std::function<void()> callback) override {
    connection_->SetTimer(answer_, delay, std::move(callback));
  }

 private:
  const std::shared_ptr<Connection> connection_;
  const uint64_t answer_;
};

}  // namespace

std::shared_ptr<ResponseWriter> Connection::MakeWriter(uint64_t answer) {
  return std::make_shared<Writer>(shared_from_this(), answer);
}

void Connection::MarkDirty() {
  if (!std::exchange(dirty_, true)) thread_->MarkDirty(shared_from_this());
}

void Connection::AppendHead(int status, HttpHeaders headers) {
  if (thread_->state()->draining.load()) answer_.keep_alive = false;
  if (!answer_.keep_alive) {
    headers.emplace_back("connection", "close");
  } else if (answer_.http_1_0) {
    headers.emplace_back("connection", "keep-alive");
  }
  if (options().cors) {
    headers.emplace_back("access-control-allow-origin", "*");
    headers.emplace_back("access-control-expose-headers", "*");
  }
  AppendResponseHead(outbox_, status, headers);
  answer_.started = true;
}

void Connection::Send(uint64_t answer, int status, HttpHeaders headers, std::string_view body) {
  std::function<void()> dropped;  // destroyed without the lock: it may hold the last reference to the writer
  {
    MutexLock lock(mutex_);
    if (answer_.number != answer || !answer_.open || answer_.started) return;
    if (status != 204) headers.emplace_back("content-length", Cat(body.size()));
    AppendHead(status, std::move(headers));
    if (!answer_.head_only && status != 204) outbox_ += body;
    answer_.open = false;
    dropped = std::exchange(answer_.on_disconnect, nullptr);
    MarkDirty();
  }
}

void Connection::StartStream(uint64_t answer, int status, HttpHeaders headers) {
  {
    MutexLock lock(mutex_);
    if (answer_.number != answer || !answer_.open || answer_.started) return;
    answer_.events = FindHeader(headers, "content-type").starts_with("text/event-stream");
    answer_.chunked = !answer_.http_1_0;
    if (answer_.chunked) {
      headers.emplace_back("transfer-encoding", "chunked");
    } else {
      answer_.keep_alive = false;  // the end of the connection is the end of the body
    }
    AppendHead(status, std::move(headers));
    MarkDirty();
  }
}

bool Connection::Write(uint64_t answer, std::string_view bytes) {
  {
    MutexLock lock(mutex_);
    if (answer_.number != answer || !answer_.open || answer_.overflow) return false;
    if (!answer_.started || answer_.head_only) return true;
    if (answer_.chunked) {
      AppendChunk(outbox_, bytes);
    } else {
      outbox_ += bytes;
    }
    answer_.overflow = unsent_ > 0 && unsent_ + outbox_.size() > options().unsent_bytes_max;
    MarkDirty();
  }
  return true;
}

void Connection::Finish(uint64_t answer) {
  std::function<void()> dropped;
  {
    MutexLock lock(mutex_);
    if (answer_.number != answer || !answer_.open || !answer_.started) return;
    if (answer_.chunked && !answer_.head_only) outbox_ += kLastChunk;
    answer_.open = false;
    dropped = std::exchange(answer_.on_disconnect, nullptr);
    MarkDirty();
  }
}

void Connection::Abandon(uint64_t answer) {
  bool started = false;
  {
    MutexLock lock(mutex_);
    if (answer_.number != answer || !answer_.open) return;
    started = answer_.started;
  }
  if (started) {  // half an answer: only closing the connection tells the client so
    return thread_->Post([self = shared_from_this()] { self->Close(); });
  }
  Send(answer, 500, {{"content-type", "application/json"}}, ErrorBody({500, "the request was dropped; this is a bug"}));
}

void Connection::OnDisconnect(uint64_t answer, std::function<void()> callback) {
  {
    MutexLock lock(mutex_);
    if (answer_.number != answer) return;
    if (answer_.open) {
      answer_.on_disconnect = std::move(callback);
      return;
    }
    if (!answer_.lost) return;
  }
  thread_->Post(std::move(callback));
}

void Connection::SetTimer(uint64_t answer, std::chrono::milliseconds delay, std::function<void()> callback) {
  thread_->Post([self = shared_from_this(), answer, delay, callback = std::move(callback)] {
    if (self->phase_ != Phase::kAnswering) return;
    self->timer_.expires_after(delay);
    self->timer_.async_wait([self, answer, callback](const boost::system::error_code& error) {
      if (error) return;
      {
        MutexLock lock(self->mutex_);
        if (self->answer_.number != answer || !self->answer_.open) return;
      }
      callback();
    });
  });
}

}  // namespace baton
