#include "http/server.h"

#include <sys/socket.h>

#include <boost/asio/ip/address.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <thread>
#include <utility>
#include <vector>

#include "base/log.h"
#include "http/connection.h"
#include "http/network_thread.h"

namespace baton {
namespace {

using boost::asio::ip::tcp;

constexpr std::string_view kTooManyConnections =
    "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nretry-after: 1\r\nconnection: close\r\n\r\n";

// Accepts connections on the first thread and deals them out to all.
class Acceptor : public std::enable_shared_from_this<Acceptor> {
 public:
  Acceptor(std::shared_ptr<ServerState> state, std::vector<std::shared_ptr<NetworkThread>> threads)
      : state_(std::move(state)),
        threads_(std::move(threads)),
        acceptor_(threads_[0]->context()),
        pause_(threads_[0]->context()) {}

  absl::Status Listen() {
    const HttpServerOptions& options = state_->options;
    boost::system::error_code error;
    const auto address = boost::asio::ip::make_address(options.host == "localhost" ? "127.0.0.1" : options.host, error);
    if (error) {
      return InvalidArgument("host: expected an IP address such as 127.0.0.1 or 0.0.0.0, found '", options.host, "'");
    }
    const tcp::endpoint endpoint(address, static_cast<uint16_t>(options.port));
    acceptor_.open(endpoint.protocol(), error);
    if (!error) acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
    if (!error) acceptor_.bind(endpoint, error);
    if (!error) acceptor_.listen(4096, error);
    if (error == boost::asio::error::address_in_use) {
      return FailedPrecondition("port ", options.port, " of ", options.host,
                                " is in use: another server listens there; stop it, or choose another port");
    }
    if (error) return Unavailable("cannot listen on ", options.host, ":", options.port, ": ", error.message());
    port_ = acceptor_.local_endpoint().port();
    return absl::OkStatus();
  }

  void Accept() {
    const auto& thread = threads_[next_++ % threads_.size()];
    acceptor_.async_accept(thread->context(),
                           [self = shared_from_this(), thread](boost::system::error_code error, tcp::socket socket) {
                             if (error == boost::asio::error::operation_aborted) return;
                             if (error) return self->Pause(error);
                             self->Admit(std::move(socket), thread);
                             self->Accept();
                           });
  }

  void Close() {
    boost::system::error_code ignored;
    acceptor_.close(ignored);
    pause_.cancel();
  }

  int port() const { return port_; }

 private:
  void Admit(tcp::socket socket, const std::shared_ptr<NetworkThread>& thread) {
    if (state_->connections.load() >= state_->options.connections_max) {
      ::send(socket.native_handle(), kTooManyConnections.data(), kTooManyConnections.size(),
             MSG_DONTWAIT | MSG_NOSIGNAL);
      return;
    }
    auto connection = std::make_shared<Connection>(std::move(socket), thread);
    if (thread == threads_[0]) return connection->Start();
    thread->Post([connection] { connection->Start(); });
  }

  // Out of file descriptors, most likely: the next moment may be better.
  void Pause(const boost::system::error_code& error) {
    LogWarning("cannot accept a connection: ", error.message());
    pause_.expires_after(std::chrono::milliseconds(100));
    pause_.async_wait([self = shared_from_this()](const boost::system::error_code& cancelled) {
      if (!cancelled) self->Accept();
    });
  }

  std::shared_ptr<ServerState> state_;
  std::vector<std::shared_ptr<NetworkThread>> threads_;
  tcp::acceptor acceptor_;
  boost::asio::steady_timer pause_;
  size_t next_ = 0;
  int port_ = 0;
};

class AsioHttpServer : public HttpServer {
 public:
  AsioHttpServer(std::shared_ptr<ServerState> state, std::vector<std::shared_ptr<NetworkThread>> threads,
                 std::shared_ptr<Acceptor> acceptor)
      : state_(std::move(state)), threads_(std::move(threads)), acceptor_(std::move(acceptor)) {
    acceptor_->Accept();
    for (const auto& thread : threads_) thread->Start();
  }
  ~AsioHttpServer() override { Stop(std::chrono::milliseconds(0)); }

  int port() const override { return acceptor_->port(); }
  size_t connections() const override { return state_->connections.load(); }
  void Drain() override { state_->draining.store(true); }

  void Stop(std::chrono::milliseconds deadline) override {
    if (std::exchange(stopped_, true)) return;
    Drain();
    const auto end = std::chrono::steady_clock::now() + deadline;
    while (state_->answers_under_way.load() > 0 && std::chrono::steady_clock::now() < end) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    threads_[0]->Post([acceptor = acceptor_] { acceptor->Close(); });
    for (const auto& thread : threads_) thread->Shutdown();
  }

 private:
  std::shared_ptr<ServerState> state_;
  std::vector<std::shared_ptr<NetworkThread>> threads_;
  std::shared_ptr<Acceptor> acceptor_;
  bool stopped_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<HttpServer>> StartHttpServer(HttpServerOptions options, HttpHandler handler) {
  if (options.threads < 1 || options.port < 0 || options.port > 65535) {
    return InvalidArgument("expected at least one thread and a port of 0 to 65535, found ", options.threads, " and ",
                           options.port);
  }
  auto state = std::make_shared<ServerState>();
  state->options = std::move(options);
  state->handler = std::move(handler);
  std::vector<std::shared_ptr<NetworkThread>> threads;
  for (int i = 0; i < state->options.threads; ++i) threads.push_back(std::make_shared<NetworkThread>(state));
  auto acceptor = std::make_shared<Acceptor>(state, threads);
  BATON_RETURN_IF_ERROR(acceptor->Listen());
  return std::make_unique<AsioHttpServer>(std::move(state), std::move(threads), std::move(acceptor));
}

}  // namespace baton
