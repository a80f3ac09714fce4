#include "http/client.h"

#include <netinet/tcp.h>
#include <sys/socket.h>

#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cerrno>
#include <map>
#include <thread>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "http/response_reader.h"

namespace baton {
namespace {

using boost::asio::ip::tcp;
using Place = std::pair<std::string, int>;  // host, port

std::string RequestBytes(const HttpClientRequest& request) {
  std::string out =
      Cat(request.method, " ", request.path, " HTTP/1.1\r\nhost: ", request.host, ":", request.port, "\r\n");
  for (const auto& [name, value] : request.headers) out += Cat(name, ": ", value, "\r\n");
  if (!request.body.empty() || request.method != "GET") out += Cat("content-length: ", request.body.size(), "\r\n");
  out += "\r\n";
  return out + request.body;
}

class AsioHttpClient;

// One request on one connection. Lives on the client's thread.
class Exchange : public std::enable_shared_from_this<Exchange> {
 public:
  Exchange(AsioHttpClient& client, uint64_t handle, HttpClientRequest request, HttpClientCallback callback);
  void Start(tcp::socket socket, bool connected);
  void Fail(const absl::Status& status);

 private:
  void Connect();
  void SendMore();
  void ArmRead();
  void OnReadable();
  void OnBytes(std::string_view bytes);
  void End(const absl::Status& status, bool reusable);

  AsioHttpClient& client_;
  const uint64_t handle_;
  const HttpClientRequest request_;
  HttpClientCallback callback_;
  ResponseReader reader_;
  boost::asio::steady_timer timer_;
  tcp::socket socket_;
  std::string bytes_;
  size_t sent_ = 0;
  bool reused_ = false;
  bool ended_ = false;
};

class AsioHttpClient : public HttpClient {
 public:
  explicit AsioHttpClient(HttpClientOptions options) : options_(options), thread_([this] { context_.run(); }) {}
  ~AsioHttpClient() override {
    boost::asio::post(context_, [this] {
      work_.reset();
      const auto exchanges = exchanges_;
      for (const auto& [handle, exchange] : exchanges) exchange->Fail(Cancelled("the client was closed"));
      idle_.clear();
    });
    thread_.join();
  }

  uint64_t Send(HttpClientRequest request, HttpClientCallback callback) override {
    const uint64_t handle = next_handle_.fetch_add(1);
    boost::asio::post(context_, [this, handle, request = std::move(request), callback = std::move(callback)]() mutable {
      const Place place(request.host, request.port);
      auto exchange = std::make_shared<Exchange>(*this, handle, std::move(request), std::move(callback));
      exchanges_.emplace(handle, exchange);
      StartOn(place, exchange);
    });
    return handle;
  }
  void Cancel(uint64_t handle) override {
    boost::asio::post(context_, [this, handle] {
      const auto found = exchanges_.find(handle);
      if (found != exchanges_.end()) std::shared_ptr(found->second)->Fail(Cancelled("the request was cancelled"));
    });
  }

  // On the client's thread.
  void StartOn(const Place& place, const std::shared_ptr<Exchange>& exchange) {
    const auto found = idle_.find(place);
    if (found == idle_.end()) return exchange->Start(tcp::socket(context_), false);
    tcp::socket socket = std::move(found->second);
    idle_.erase(found);
    exchange->Start(std::move(socket), true);
  }
  void Keep(const Place& place, tcp::socket socket) {
    if (idle_.size() < options_.idle_connections_max) idle_.emplace(place, std::move(socket));
  }
  void Remove(uint64_t handle) { exchanges_.erase(handle); }
  boost::asio::io_context& context() { return context_; }
  const HttpClientOptions& options() const { return options_; }
  std::vector<char>& scratch() { return scratch_; }

 private:
  const HttpClientOptions options_;
  std::atomic<uint64_t> next_handle_{1};
  boost::asio::io_context context_{1};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_{context_.get_executor()};
  std::vector<char> scratch_ = std::vector<char>(64 << 10);
  std::map<uint64_t, std::shared_ptr<Exchange>> exchanges_;
  std::multimap<Place, tcp::socket> idle_;
  std::thread thread_;  // last: it uses all of them
};

Exchange::Exchange(AsioHttpClient& client, uint64_t handle, HttpClientRequest request, HttpClientCallback callback)
    : client_(client),
      handle_(handle),
      request_(std::move(request)),
      callback_(std::move(callback)),
      reader_({client.options().header_bytes_max, client.options().body_bytes_max, request_.method == "HEAD"}),
      timer_(client.context()),
      socket_(client.context()),
      bytes_(RequestBytes(request_)) {}

void Exchange::Start(tcp::socket socket, bool connected) {
  socket_ = std::move(socket);
  reused_ = connected;
  if (request_.timeout.count() > 0) {
    timer_.expires_after(request_.timeout);
    timer_.async_wait([self = shared_from_this()](const boost::system::error_code& error) {
      if (!error) self->Fail(DeadlineExceeded("no whole answer within ", self->request_.timeout.count(), " ms"));
    });
  }
  if (!connected) return Connect();
  SendMore();
  ArmRead();
}

void Exchange::Connect() {
  boost::system::error_code error;
  const auto address = boost::asio::ip::make_address(request_.host == "localhost" ? "127.0.0.1" : request_.host, error);
  if (error) return Fail(InvalidArgument("host: expected an IP address, found '", request_.host, "'"));
  const tcp::endpoint endpoint(address, static_cast<uint16_t>(request_.port));
  socket_.async_connect(endpoint, [self = shared_from_this()](const boost::system::error_code& failed) {
    if (self->ended_) return;
    if (failed) {
      return self->Fail(
          Unavailable("cannot connect to ", self->request_.host, ":", self->request_.port, ": ", failed.message()));
    }
    boost::system::error_code ignored;
    self->socket_.non_blocking(true, ignored);
    self->socket_.set_option(tcp::no_delay(true), ignored);
    self->SendMore();
    self->ArmRead();
  });
}

void Exchange::SendMore() {
  while (!ended_ && sent_ < bytes_.size()) {
    const ssize_t count =
        ::send(socket_.native_handle(), bytes_.data() + sent_, bytes_.size() - sent_, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno != EAGAIN) return;  // reading says why
    if (count < 0) {
      socket_.async_wait(tcp::socket::wait_write, [self = shared_from_this()](const boost::system::error_code& error) {
        if (!error) self->SendMore();
      });
      return;
    }
    sent_ += static_cast<size_t>(count);
  }
}

void Exchange::ArmRead() {
  if (ended_) return;
  const int on = 1;
  ::setsockopt(socket_.native_handle(), IPPROTO_TCP, TCP_QUICKACK, &on, sizeof(on));
  socket_.async_wait(tcp::socket::wait_read, [self = shared_from_this()](const boost::system::error_code& error) {
    if (!error) self->OnReadable();
  });
}

void Exchange::OnReadable() {
  if (ended_) return;
  auto& scratch = client_.scratch();
  const ssize_t count = ::recv(socket_.native_handle(), scratch.data(), scratch.size(), MSG_DONTWAIT);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return ArmRead();
  if (count > 0) {
    OnBytes({scratch.data(), static_cast<size_t>(count)});
    return ArmRead();
  }
  if (count == 0) reader_.EndOfInput();
  if (reader_.done()) return End(absl::OkStatus(), false);
  if (reused_ && !reader_.started()) {  // the server closed a kept connection: it has not seen this request
    reused_ = false;
    sent_ = 0;
    socket_ = tcp::socket(client_.context());
    return Connect();
  }
  Fail(Unavailable("the server closed the connection before the answer's end"));
}

void Exchange::OnBytes(std::string_view bytes) {
  const bool had_head = reader_.http_status() != 0;
  const absl::Status status = reader_.Feed(bytes, [&](std::string_view body) {
    callback_({.http_status = reader_.http_status(), .headers = &reader_.headers(), .body = body});
  });
  if (!status.ok()) return Fail(status);
  if (!had_head && reader_.http_status() != 0 && !reader_.done()) {
    callback_({.http_status = reader_.http_status(), .headers = &reader_.headers()});
  }
  if (reader_.done()) End(absl::OkStatus(), reader_.keep_alive());
}

void Exchange::Fail(const absl::Status& status) { End(status, false); }

void Exchange::End(const absl::Status& status, bool reusable) {
  if (std::exchange(ended_, true)) return;
  const auto self = shared_from_this();
  timer_.cancel();
  boost::system::error_code ignored;
  if (reusable) {
    client_.Keep({request_.host, request_.port}, std::move(socket_));
  } else {
    socket_.close(ignored);
  }
  client_.Remove(handle_);
  callback_({.http_status = reader_.http_status(), .headers = &reader_.headers(), .last = true, .status = status});
  callback_ = nullptr;
}

}  // namespace

std::unique_ptr<HttpClient> MakeHttpClient(HttpClientOptions options) {
  return std::make_unique<AsioHttpClient>(options);
}

absl::StatusOr<HttpClientAnswer> Fetch(HttpClient& client, HttpClientRequest request) {
  struct Waiting {
    Mutex mutex;
    CondVar changed;
    bool ended = false;
    HttpClientAnswer answer;
    absl::Status status;
  };
  const auto waiting = std::make_shared<Waiting>();
  client.Send(std::move(request), [waiting](const HttpClientEvent& event) {
    MutexLock lock(waiting->mutex);
    waiting->answer.body += event.body;
    if (!event.last) return;
    waiting->answer.http_status = event.http_status;
    waiting->answer.headers = *event.headers;
    waiting->status = event.status;
    waiting->ended = true;
    waiting->changed.SignalAll();
  });
  MutexLock lock(waiting->mutex);
  while (!waiting->ended) waiting->changed.Wait(waiting->mutex);
  if (!waiting->status.ok()) return waiting->status;
  return std::move(waiting->answer);
}

}  // namespace baton
