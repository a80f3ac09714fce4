#include "http/request_reader.h"

#include <gtest/gtest.h>

namespace baton {
namespace {

using State = RequestReader::State;

TEST(RequestReader, ReadsABodyByteByByte) {
  const std::string bytes =
      "POST /v1/%63hat?x=1#y HTTP/1.1\r\nHost: a\r\nX-Request-ID:  r1 \r\nContent-Length: 5\r\n\r\nhello";
  RequestReader reader({});
  for (size_t i = 0; i < bytes.size(); ++i) {
    EXPECT_NE(reader.state(), State::kDone) << i;
    reader.Feed(bytes.substr(i, 1));
  }
  ASSERT_EQ(reader.state(), State::kDone);
  const HttpRequest request = reader.Take();
  EXPECT_EQ(request.method, "POST");
  EXPECT_EQ(request.path, "/v1/chat");
  EXPECT_EQ(request.query, "x=1");
  EXPECT_EQ(request.Header("x-request-id"), "r1");
  EXPECT_EQ(request.body, "hello");
  EXPECT_TRUE(request.keep_alive);
}

TEST(RequestReader, ReadsChunkedBodiesAndPipelinedRequests) {
  RequestReader reader({});
  reader.Feed(
      "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nTrailer: t\r\n\r\n"
      "GET /b HTTP/1.0\r\n\r\nGET /c HTTP/1.1\r\nConnection: close\r\n\r\n");
  ASSERT_EQ(reader.state(), State::kDone);
  EXPECT_EQ(reader.Take().body, "hello world");
  reader.Next();
  ASSERT_EQ(reader.state(), State::kDone);
  HttpRequest request = reader.Take();
  EXPECT_EQ(request.path, "/b");
  EXPECT_TRUE(request.http_1_0);
  EXPECT_FALSE(request.keep_alive);
  reader.Next();
  ASSERT_EQ(reader.state(), State::kDone);
  request = reader.Take();
  EXPECT_EQ(request.path, "/c");
  EXPECT_FALSE(request.keep_alive);
  reader.Next();
  EXPECT_EQ(reader.state(), State::kEmpty);
  EXPECT_EQ(reader.buffered(), 0u);
}

TEST(RequestReader, AsksForTheBodyOnce) {
  RequestReader reader({});
  reader.Feed("POST / HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(reader.state(), State::kBody);
  EXPECT_TRUE(reader.TakeExpectation());
  EXPECT_FALSE(reader.TakeExpectation());
  reader.Feed("ok");
  EXPECT_EQ(reader.state(), State::kDone);
}

struct Refusal {
  std::string bytes;
  int status;
};

class Refusals : public testing::TestWithParam<Refusal> {};

TEST_P(Refusals, SayWhy) {
  RequestReader reader({.header_bytes = 200, .body_bytes = 100});
  reader.Feed(GetParam().bytes);
  ASSERT_EQ(reader.state(), State::kError);
  EXPECT_EQ(reader.error().status, GetParam().status) << reader.error().message;
  EXPECT_FALSE(reader.error().message.empty());
  reader.Feed(std::string(1000, 'x'));
  EXPECT_EQ(reader.buffered(), 0u);
}

INSTANTIATE_TEST_SUITE_P(
    All, Refusals,
    testing::Values(Refusal{"nonsense\r\n\r\n", 400}, Refusal{"GET / HTTP/9.9\r\n\r\n", 400},
                    Refusal{"GET / HTTP/1.1\r\nA: " + std::string(300, 'a'), 431},
                    Refusal{"POST / HTTP/1.1\r\nContent-Length: 101\r\n\r\n", 413},
                    Refusal{"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400},
                    Refusal{"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400},
                    Refusal{"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
                    Refusal{"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n" + std::string(101, 'b'), 413},
                    Refusal{"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400}));

}  // namespace
}  // namespace baton
