#include "bench/http_stream_client.h"

#include <gtest/gtest.h>

namespace baton {
namespace {

TEST(ResolveUrl, ReadsHostPortAndPrefix) {
  const auto target = ResolveUrl("http://127.0.0.1:8000/prefix/");
  ASSERT_TRUE(target.ok()) << target.status();
  EXPECT_EQ(target->authority, "127.0.0.1:8000");
  EXPECT_EQ(target->base_path, "/prefix");
  EXPECT_EQ(reinterpret_cast<const sockaddr_in&>(target->address).sin_port, htons(8000));
  const auto plain = ResolveUrl("http://127.0.0.1");
  ASSERT_TRUE(plain.ok());
  EXPECT_EQ(reinterpret_cast<const sockaddr_in&>(plain->address).sin_port, htons(80));
}

TEST(ResolveUrl, RefusesOtherThings) {
  for (const char* url : {"", "localhost:8000", "https://x", "http://", "http://:80", "http://h:0", "http://h:65536",
                          "http://h:8x", "http://h:", "http://user@h", "http://h/a b", "http://h/\r\nX: y"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ResolveUrl(url).status())) << url;
  }
}

TEST(MakeRequest, HasALengthWhenItHasABody) {
  const HttpTarget target{.authority = "h:1", .base_path = "/p"};
  EXPECT_EQ(MakeRequest(target, "GET", "/x"), "GET /p/x HTTP/1.1\r\nHost: h:1\r\n\r\n");
  EXPECT_EQ(MakeRequest(target, "POST", "/x", "{}"),
            "POST /p/x HTTP/1.1\r\nHost: h:1\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}");
}

TEST(Exchange, SaysWhyAServerCannotBeReached) {
  // A socket that is bound but does not listen: its port refuses connections, and nobody else can take it.
  const UniqueFd holder(::socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in address{.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t size = sizeof(address);
  ASSERT_EQ(::bind(holder.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(::getsockname(holder.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  const auto target = ResolveUrl(Cat("http://127.0.0.1:", ntohs(address.sin_port)));
  ASSERT_TRUE(target.ok());
  const auto answer = Exchange(*target, "GET", "/health", "", 2000);
  EXPECT_TRUE(absl::IsUnavailable(answer.status())) << answer.status();
  EXPECT_NE(std::string(Message(answer.status())).find("refused"), std::string::npos) << answer.status();
}

}  // namespace
}  // namespace baton
