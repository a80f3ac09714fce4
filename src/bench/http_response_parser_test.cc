#include "bench/http_response_parser.h"

#include <gtest/gtest.h>

namespace baton {
namespace {

// Feeds `text` in pieces of `step` bytes; returns the body once the response is done.
absl::StatusOr<std::string> Parse(HttpResponseParser& parser, std::string_view text, size_t step) {
  std::string body;
  while (!text.empty() && !parser.done()) {
    const std::string_view piece = text.substr(0, step);
    BATON_ASSIGN_OR_RETURN(const size_t used, parser.Feed(piece, body));
    text.remove_prefix(used);
  }
  BATON_RETURN_IF_ERROR(parser.FinishAtEnd());
  return body;
}

constexpr std::string_view kChunked =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: Chunked\r\n\r\n"
    "5\r\nhello\r\n1B;name=value\r\n, this is a longer chunk\r\n!\r\n0\r\nTrailer: x\r\n\r\n";

TEST(HttpResponseParser, DecodesChunksHoweverTheBytesAreCut) {
  for (size_t step = 1; step <= kChunked.size(); ++step) {
    HttpResponseParser parser;
    const auto body = Parse(parser, kChunked, step);
    ASSERT_TRUE(body.ok()) << step << ": " << body.status();
    EXPECT_EQ(*body, "hello, this is a longer chunk\r\n!");
    EXPECT_TRUE(parser.done() && parser.keep_alive() && parser.is_event_stream());
  }
}

TEST(HttpResponseParser, StopsAtTheEndOfOneResponse) {
  HttpResponseParser parser;
  std::string body;
  const std::string two = "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nnoHTTP/1.1 204 No Content\r\n\r\n";
  const auto used = parser.Feed(two, body);
  ASSERT_TRUE(used.ok());
  EXPECT_EQ(parser.status(), 404);
  EXPECT_EQ(body, "no");
  parser.Reset();
  EXPECT_FALSE(parser.started());
  ASSERT_TRUE(parser.Feed(std::string_view(two).substr(*used), body).ok());
  EXPECT_TRUE(parser.done());
  EXPECT_EQ(parser.status(), 204);
}

TEST(HttpResponseParser, SkipsInterimResponsesUpToALimit) {
  HttpResponseParser parser;
  const auto body = Parse(parser, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", 7);
  ASSERT_TRUE(body.ok()) << body.status();
  EXPECT_EQ(*body, "x");
  std::string many;
  for (int i = 0; i < 9; ++i) many += "HTTP/1.1 102 Processing\r\n\r\n";
  HttpResponseParser patient;
  EXPECT_TRUE(absl::IsDataLoss(Parse(patient, many, 1000).status()));
}

TEST(HttpResponseParser, ReadsToTheEndOfTheConnectionWhenNoLengthIsGiven) {
  HttpResponseParser parser;
  const auto body = Parse(parser, "HTTP/1.0 200 OK\r\n\r\nall of it", 3);
  ASSERT_TRUE(body.ok());
  EXPECT_EQ(*body, "all of it");
  EXPECT_TRUE(parser.done());
  EXPECT_FALSE(parser.keep_alive());
}

TEST(HttpResponseParser, ConnectionCloseEndsKeepAlive) {
  HttpResponseParser parser;
  ASSERT_TRUE(Parse(parser, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", 99).ok());
  EXPECT_FALSE(parser.keep_alive());
}

TEST(HttpResponseParser, RefusesWhatIsNotHttp) {
  for (const std::string_view text :
       {"SSH-2.0-OpenSSH\r\n", "HTTP/2 200 OK\r\n", "HTTP/1.1 abc\r\n", "HTTP/1.1 099 x\r\n", "HTTP/1.1 2000 x\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n", "HTTP/1.1 200 OK\r\n: x\r\n", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n"}) {
    for (const size_t step : {size_t{1}, text.size()}) {
      HttpResponseParser parser;
      std::string body;
      absl::Status status;
      for (size_t at = 0; at < text.size() && status.ok(); at += step) {
        status = parser.Feed(text.substr(at, step), body).status();
      }
      EXPECT_TRUE(absl::IsDataLoss(status)) << text << " in pieces of " << step << ": " << status;
    }
  }
}

TEST(HttpResponseParser, HasLimits) {
  HttpResponseParser parser({.head_bytes = 100, .body_bytes = 10});
  std::string body;
  EXPECT_FALSE(parser.Feed("HTTP/1.1 200 OK\r\nX: " + std::string(100, 'x'), body).ok());
  parser.Reset();
  EXPECT_FALSE(parser.Feed("HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n", body).ok());
  parser.Reset();
  EXPECT_FALSE(
      parser.Feed("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n123456\r\n6\r\n123456", body).ok());
  parser.Reset();
  EXPECT_FALSE(parser.Feed("HTTP/1.1 200 OK\r\n\r\n12345678901", body).ok());
}

TEST(HttpResponseParser, AnEndInTheMiddleIsAnError) {
  HttpResponseParser head, chunk, idle;
  EXPECT_TRUE(absl::IsDataLoss(Parse(head, "HTTP/1.1 200 OK\r\nConte", 5).status()));
  EXPECT_TRUE(absl::IsDataLoss(Parse(chunk, kChunked.substr(0, kChunked.size() - 2), 5).status()));
  EXPECT_TRUE(Parse(idle, "", 1).ok());
}

}  // namespace
}  // namespace baton
