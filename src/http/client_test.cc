#include "http/client.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "base/mutex.h"
#include "http/response_reader.h"
#include "http/server.h"

namespace baton {
namespace {

using std::chrono::milliseconds;

class HttpClientTest : public testing::Test {
 protected:
  HttpClientTest() {
    server_ = *StartHttpServer({}, [this](HttpRequest request, std::shared_ptr<ResponseWriter> writer) {
      Handle(std::move(request), std::move(writer));
    });
    client_ = MakeHttpClient({});
  }
  void Handle(HttpRequest request, std::shared_ptr<ResponseWriter> writer) {
    if (request.path == "/stream") {
      writer->StartStream(200, {{"content-type", "text/event-stream"}});
      for (int i = 0; i < 100; ++i) writer->Write(Cat("data: ", i, "\n\n"));
      writer->Finish();
    } else if (request.path == "/hold") {
      writer->OnDisconnect([this] { ++disconnects_; });
      MutexLock lock(mutex_);
      held_.push_back(std::move(writer));
    } else {
      writer->Send(request.path == "/missing" ? 404 : 200, {{"X-Mixed", "Case"}}, request.method + request.body);
    }
  }
  HttpClientRequest To(std::string method, std::string path, std::string body = "") {
    return {.port = server_->port(), .method = std::move(method), .path = std::move(path), .body = std::move(body)};
  }

  std::atomic<int> disconnects_{0};
  Mutex mutex_;
  std::vector<std::shared_ptr<ResponseWriter>> held_ BATON_GUARDED_BY(mutex_);
  std::unique_ptr<HttpServer> server_;
  std::unique_ptr<HttpClient> client_;
};

TEST_F(HttpClientTest, FetchesAndKeepsTheConnection) {
  for (int i = 0; i < 5; ++i) {
    const std::string body(i * 100'000, 'x');
    const auto answer = Fetch(*client_, To("POST", "/", body));
    ASSERT_TRUE(answer.ok()) << answer.status();
    EXPECT_EQ(answer->http_status, 200);
    EXPECT_EQ(answer->body, "POST" + body);
    EXPECT_EQ(FindHeader(answer->headers, "x-mixed"), "Case");
    EXPECT_EQ(server_->connections(), 1u);
  }
  EXPECT_EQ(Fetch(*client_, To("GET", "/missing"))->http_status, 404);
  EXPECT_EQ(Fetch(*client_, To("HEAD", "/"))->body, "");
  EXPECT_EQ(Fetch(*client_, To("GET", "/"))->body, "GET");
}

TEST_F(HttpClientTest, ReadsStreamsOfManyRequestsAtOnce) {
  constexpr int kRequests = 50;
  std::atomic<int> ended{0}, events{0}, failed{0};
  for (int i = 0; i < kRequests; ++i) {
    auto reader = std::make_shared<EventReader>();
    client_->Send(To("GET", "/stream"), [&, reader](const HttpClientEvent& event) {
      reader->Append(event.body, [&](std::string_view data) {
        EXPECT_LE(data.size(), 2u);
        ++events;
      });
      if (event.last && !event.status.ok()) ++failed;
      if (event.last) ++ended;
    });
  }
  for (int i = 0; i < 400 && ended < kRequests; ++i) std::this_thread::sleep_for(milliseconds(5));
  EXPECT_EQ(ended, kRequests);
  EXPECT_EQ(failed, 0);
  EXPECT_EQ(events, kRequests * 100);
}

TEST_F(HttpClientTest, TimesOutCancelsAndReportsRefusedConnections) {
  HttpClientRequest request = To("GET", "/hold");
  request.timeout = milliseconds(50);
  EXPECT_EQ(Fetch(*client_, request).status().code(), absl::StatusCode::kDeadlineExceeded);
  std::atomic<bool> cancelled{false};
  const uint64_t handle = client_->Send(To("GET", "/hold"), [&](const HttpClientEvent& event) {
    if (event.last) cancelled = event.status.code() == absl::StatusCode::kCancelled;
  });
  client_->Cancel(handle);
  for (int i = 0; i < 400 && !cancelled; ++i) std::this_thread::sleep_for(milliseconds(5));
  EXPECT_TRUE(cancelled);
  EXPECT_EQ(Fetch(*client_, {.port = 1}).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Fetch(*client_, {.host = "no address", .port = 1}).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(HttpClientTest, OpenRequestsEndWithTheClient) {
  std::atomic<int> ended{0};
  client_->Send(To("GET", "/hold"), [&](const HttpClientEvent& event) { ended += event.last; });
  client_.reset();
  EXPECT_EQ(ended, 1);
}

TEST_F(HttpClientTest, ConnectsAgainWhenTheServerHasClosedAKeptConnection) {
  ASSERT_TRUE(Fetch(*client_, To("GET", "/")).ok());
  const int port = server_->port();
  server_->Stop(milliseconds(0));
  server_.reset();
  server_ = *StartHttpServer(
      {.port = port}, [](HttpRequest, std::shared_ptr<ResponseWriter> writer) { writer->Send(200, {}, "second"); });
  const auto answer = Fetch(*client_, To("GET", "/"));
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->body, "second");
}

TEST(ResponseReader, ReadsAnyCut) {
  const std::string bytes =
      "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nA: b\r\nTransfer-Encoding: chunked\r\n\r\n"
      "5\r\nhello\r\n1;x\r\n!\r\n0\r\n\r\n";
  for (size_t step = 1; step <= bytes.size(); ++step) {
    ResponseReader reader({});
    std::string body;
    for (size_t at = 0; at < bytes.size(); at += step) {
      ASSERT_TRUE(reader.Feed(bytes.substr(at, step), [&](std::string_view part) { body += part; }).ok());
    }
    EXPECT_TRUE(reader.done() && reader.keep_alive()) << step;
    EXPECT_EQ(reader.http_status(), 200);
    EXPECT_EQ(body, "hello!") << step;
  }
}

TEST(ResponseReader, TheConnectionsEndMayEndTheBody) {
  ResponseReader reader({});
  std::string body;
  ASSERT_TRUE(reader.Feed("HTTP/1.0 200 OK\r\n\r\nall", [&](std::string_view part) { body += part; }).ok());
  EXPECT_FALSE(reader.done());
  reader.EndOfInput();
  EXPECT_TRUE(reader.done());
  EXPECT_EQ(body, "all");
  ResponseReader cut({});
  ASSERT_TRUE(cut.Feed("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", [](std::string_view) {}).ok());
  cut.EndOfInput();
  EXPECT_FALSE(cut.done());
  EXPECT_EQ(ResponseReader({}).Feed("nonsense\r\n\r\n", [](std::string_view) {}).code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace baton
