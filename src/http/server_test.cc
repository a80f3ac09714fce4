#include "http/server.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "base/mutex.h"
#include "base/unique_fd.h"

namespace baton {
namespace {

using std::chrono::milliseconds;

// A client that shows every byte.
class RawClient {
 public:
  explicit RawClient(int port, int receive_buffer = 0) : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    if (receive_buffer > 0) ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof(receive_buffer));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  }
  void Send(std::string_view bytes) {
    EXPECT_EQ(::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  }
  // Reads until `end` has been seen, the server closes, or two seconds have passed.
  std::string ReadUntil(std::string_view end) {
    std::string out;
    const auto limit = std::chrono::steady_clock::now() + milliseconds(2000);
    while (out.find(end) == std::string::npos && std::chrono::steady_clock::now() < limit) {
      pollfd poll{fd_.get(), POLLIN, 0};
      if (::poll(&poll, 1, 50) <= 0) continue;
      char buffer[4096];
      const ssize_t count = ::recv(fd_.get(), buffer, sizeof(buffer), 0);
      if (count <= 0) {
        closed_ = true;
        break;
      }
      out.append(buffer, static_cast<size_t>(count));
    }
    return out;
  }
  bool closed() const { return closed_; }
  void Close() { fd_.Reset(); }
  int fd() const { return fd_.get(); }

 private:
  UniqueFd fd_;
  bool closed_ = false;
};

// Keeps the writers of /hold and /stream requests for the test to use.
class HttpServerTest : public testing::Test {
 protected:
  void Start(HttpServerOptions options = {}) {
    auto server = StartHttpServer(options, [this](HttpRequest request, std::shared_ptr<ResponseWriter> writer) {
      Handle(std::move(request), std::move(writer));
    });
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  void Handle(HttpRequest request, std::shared_ptr<ResponseWriter> writer) {
    if (request.path == "/drop") return;
    if (request.path == "/hold" || request.path == "/stream") {
      writer->OnDisconnect([this] { ++disconnects_; });
      if (request.path == "/stream") writer->StartStream(200, {{"content-type", "text/event-stream"}});
      MutexLock lock(mutex_);
      held_ = std::move(writer);
      return;
    }
    writer->Send(200, {{"content-type", "text/plain"}}, request.method + " " + request.path + " " + request.body);
  }
  std::shared_ptr<ResponseWriter> Held() {
    for (int i = 0; i < 400; ++i) {
      {
        MutexLock lock(mutex_);
        if (held_) return std::move(held_);
      }
      std::this_thread::sleep_for(milliseconds(5));
    }
    ADD_FAILURE() << "no request arrived";
    return nullptr;
  }
  bool Eventually(const std::function<bool()>& condition) {
    for (int i = 0; i < 400 && !condition(); ++i) std::this_thread::sleep_for(milliseconds(5));
    return condition();
  }

  std::atomic<int> disconnects_{0};
  Mutex mutex_;
  std::shared_ptr<ResponseWriter> held_ BATON_GUARDED_BY(mutex_);
  std::unique_ptr<HttpServer> server_;  // last: its threads stop first
};

TEST_F(HttpServerTest, KeepsConnectionsAliveAndAnswersPipelinedRequestsInOrder) {
  Start();
  RawClient client(server_->port());
  client.Send("GET /a HTTP/1.1\r\n\r\nPOST /b HTTP/1.1\r\nContent-Length: 2\r\n\r\nhiGET /c HTTP/1.1\r\n\r\n");
  const std::string out = client.ReadUntil("GET /c");
  EXPECT_LT(out.find("GET /a"), out.find("POST /b hi"));
  EXPECT_LT(out.find("POST /b hi"), out.find("GET /c"));
  client.Send("GET /d HTTP/1.1\r\nConnection: close\r\n\r\n");
  EXPECT_NE(client.ReadUntil("never").find("GET /d"), std::string::npos);
  EXPECT_TRUE(client.closed());
}

TEST_F(HttpServerTest, HeadExpectAndOptions) {
  Start();
  RawClient client(server_->port());
  client.Send("HEAD /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n");
  std::string out = client.ReadUntil("GET /b");
  EXPECT_NE(out.find("content-length: 8"), std::string::npos);
  EXPECT_EQ(out.find("HEAD /a "), std::string::npos) << out;
  client.Send("POST /c HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(client.ReadUntil("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  client.Send("hi");
  EXPECT_NE(client.ReadUntil("POST /c hi").find("200 OK"), std::string::npos);
  client.Send("OPTIONS /c HTTP/1.1\r\nAccess-Control-Request-Headers: authorization\r\n\r\n");
  out = client.ReadUntil("\r\n\r\n");
  EXPECT_NE(out.find("204"), std::string::npos);
  EXPECT_NE(out.find("access-control-allow-headers: authorization"), std::string::npos);
}

TEST_F(HttpServerTest, StreamsFromAnyThread) {
  Start();
  RawClient client(server_->port());
  client.Send("GET /stream HTTP/1.1\r\n\r\n");
  auto writer = Held();
  ASSERT_TRUE(writer);
  EXPECT_NE(client.ReadUntil("\r\n\r\n").find("transfer-encoding: chunked"), std::string::npos);
  EXPECT_TRUE(writer->Write("data: 1\n\n"));
  EXPECT_EQ(client.ReadUntil("1\n\n\r\n"), "9\r\ndata: 1\n\n\r\n");
  writer->Finish();
  EXPECT_EQ(client.ReadUntil("0\r\n\r\n"), "0\r\n\r\n");
  EXPECT_FALSE(writer->Write("late"));
  client.Send("GET /next HTTP/1.1\r\n\r\n");
  EXPECT_NE(client.ReadUntil("GET /next").find("200 OK"), std::string::npos);
  EXPECT_EQ(disconnects_, 0);
}

TEST_F(HttpServerTest, NoticesClientsThatLeave) {
  Start();
  for (const char* path : {"/hold", "/stream"}) {
    disconnects_ = 0;
    RawClient client(server_->port());
    client.Send(std::string("GET ") + path + " HTTP/1.1\r\n\r\n");
    auto writer = Held();
    client.Send("GET /pipelined HTTP/1.1\r\n\r\n");
    client.Close();
    EXPECT_TRUE(Eventually([&] { return disconnects_ == 1; })) << path;
    EXPECT_FALSE(writer->Write("late"));
    writer->OnDisconnect([this] { ++disconnects_; });
    EXPECT_TRUE(Eventually([&] { return disconnects_ == 2; })) << "registered too late";
  }
}

TEST_F(HttpServerTest, SlowReadersAreCutOff) {
  Start({.unsent_bytes_max = 64 << 10});
  RawClient client(server_->port(), 4096);
  client.Send("GET /stream HTTP/1.1\r\n\r\n");
  auto writer = Held();
  const std::string chunk(32 << 10, 'x');
  int writes = 0;
  while (writer->Write(chunk) && writes < 2000) {
    ++writes;
    std::this_thread::sleep_for(milliseconds(1));
  }
  EXPECT_LT(writes, 2000);
  EXPECT_TRUE(Eventually([&] { return disconnects_ == 1; }));
}

TEST_F(HttpServerTest, RefusesOversizedRequestsAndStillDeliversTheAnswer) {
  Start({.header_bytes_max = 1000, .body_bytes_max = 1000});
  RawClient client(server_->port());
  client.Send("POST / HTTP/1.1\r\nContent-Length: 5000000\r\n\r\n" + std::string(100000, 'x'));
  EXPECT_NE(client.ReadUntil("}").find("413"), std::string::npos);
  RawClient second(server_->port());
  second.Send("GET / HTTP/1.1\r\nA: " + std::string(2000, 'x'));
  EXPECT_NE(second.ReadUntil("}").find("431"), std::string::npos);
  RawClient third(server_->port());
  third.Send("nonsense\r\n\r\n");
  EXPECT_NE(third.ReadUntil("}").find("400"), std::string::npos);
}

TEST_F(HttpServerTest, LimitsAllBodiesTogether) {
  Start({.all_bodies_bytes_max = 1000});
  RawClient first(server_->port());
  first.Send("POST /hold HTTP/1.1\r\nContent-Length: 800\r\n\r\n" + std::string(800, 'x'));
  auto writer = Held();
  RawClient second(server_->port());
  second.Send("POST / HTTP/1.1\r\nContent-Length: 300\r\n\r\n" + std::string(290, 'x'));
  EXPECT_NE(second.ReadUntil("}").find("503"), std::string::npos);
  writer->Send(200, {}, "done");
  first.ReadUntil("done");
  RawClient third(server_->port());
  third.Send("POST / HTTP/1.1\r\nContent-Length: 300\r\n\r\n" + std::string(300, 'x'));
  EXPECT_NE(third.ReadUntil("xxx").find("200 OK"), std::string::npos);
}

TEST_F(HttpServerTest, SlowAndIdleClientsAreClosed) {
  Start({.header_timeout = milliseconds(100), .body_timeout = milliseconds(100), .idle_timeout = milliseconds(200)});
  RawClient slow(server_->port());
  slow.Send("GET / HTTP/1.1\r\nA:");
  EXPECT_NE(slow.ReadUntil("}").find("408"), std::string::npos);
  RawClient body(server_->port());
  body.Send("POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nx");
  EXPECT_NE(body.ReadUntil("}").find("408"), std::string::npos);
  RawClient idle(server_->port());
  EXPECT_EQ(idle.ReadUntil("x"), "");
  EXPECT_TRUE(idle.closed());
}

TEST_F(HttpServerTest, CommentsKeepSilentStreamsAlive) {
  Start({.comment_interval = milliseconds(50)});
  RawClient client(server_->port());
  client.Send("GET /stream HTTP/1.1\r\n\r\n");
  auto writer = Held();
  EXPECT_NE(client.ReadUntil(": keep-alive\n\n").find(": keep-alive"), std::string::npos);
}

TEST_F(HttpServerTest, TimersAndTasksRunWhileTheAnswerIsOpen) {
  Start();
  RawClient client(server_->port());
  client.Send("GET /hold HTTP/1.1\r\n\r\n");
  auto writer = Held();
  writer->SetTimer(milliseconds(20), [writer] { writer->Send(504, {}, "late"); });
  EXPECT_NE(client.ReadUntil("late").find("504"), std::string::npos);
  std::atomic<int> sum{0};
  for (int i = 0; i < 100; ++i) writer->Post([&sum] { ++sum; });
  EXPECT_TRUE(Eventually([&] { return sum == 100; }));
}

TEST_F(HttpServerTest, DroppedWritersAnswer500) {
  Start();
  RawClient client(server_->port());
  client.Send("GET /drop HTTP/1.1\r\n\r\n");
  EXPECT_NE(client.ReadUntil("}").find("500"), std::string::npos);
  client.Send("GET /stream HTTP/1.1\r\n\r\n");
  Held().reset();
  client.ReadUntil("0\r\n\r\n");
  EXPECT_TRUE(client.closed());
}

TEST_F(HttpServerTest, DrainsWithinTheDeadline) {
  Start({.threads = 2});
  RawClient client(server_->port());
  client.Send("GET /hold HTTP/1.1\r\n\r\n");
  auto writer = Held();
  server_->Drain();
  RawClient other(server_->port());
  other.Send("POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n");
  EXPECT_NE(other.ReadUntil("}").find("503"), std::string::npos);
  RawClient reader(server_->port());
  reader.Send("GET /live HTTP/1.1\r\n\r\n");
  EXPECT_NE(reader.ReadUntil("/live").find("200"), std::string::npos);
  std::thread stopper([this] { server_->Stop(milliseconds(5000)); });
  std::this_thread::sleep_for(milliseconds(50));
  writer->Send(200, {}, "finished");
  EXPECT_NE(client.ReadUntil("finished").find("200 OK"), std::string::npos);
  stopper.join();
  EXPECT_EQ(disconnects_, 0);
}

TEST_F(HttpServerTest, StopEndsWhatDoesNotFinish) {
  Start();
  RawClient client(server_->port());
  client.Send("GET /stream HTTP/1.1\r\n\r\n");
  auto writer = Held();
  server_->Stop(milliseconds(20));
  EXPECT_EQ(disconnects_, 1);
  EXPECT_FALSE(writer->Write("x"));
  client.ReadUntil("never");
  EXPECT_TRUE(client.closed());
}

TEST_F(HttpServerTest, LimitsConnectionsAndRefusesAPortInUse) {
  Start({.connections_max = 1});
  RawClient first(server_->port());
  first.Send("GET /a HTTP/1.1\r\n\r\n");
  first.ReadUntil("/a");
  RawClient second(server_->port());
  EXPECT_NE(second.ReadUntil("\r\n\r\n").find("503"), std::string::npos);
  const auto again = StartHttpServer({.port = server_->port()}, nullptr);
  EXPECT_EQ(again.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(again.status().message().find("in use"), absl::string_view::npos) << again.status();
}

}  // namespace
}  // namespace baton
