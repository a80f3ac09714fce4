#include "rpc/frame_decoder.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

namespace baton {
namespace {

std::string Encode(std::string_view payload, bool has_fd = false) {
  const uint32_t header = EncodeFrameHeader(payload.size(), has_fd);
  return std::string(reinterpret_cast<const char*>(&header), sizeof(header)).append(payload);
}

void Append(FrameDecoder& decoder, std::string_view bytes) {
  while (!bytes.empty()) {
    const std::span<char> room = decoder.WritableBytes();
    const size_t count = std::min(room.size(), bytes.size());
    std::memcpy(room.data(), bytes.data(), count);
    decoder.Commit(count);
    bytes.remove_prefix(count);
  }
}

TEST(FrameDecoderTest, ADribbleGivesTheSameFrames) {
  const std::vector<std::string> sent = {"one", "", std::string(100'000, 'x'), "four"};
  FrameDecoder decoder(kMaxFrameBytes);
  std::vector<std::string> got;
  for (const std::string& payload : sent) {
    for (const char byte : Encode(payload)) {
      Append(decoder, {&byte, 1});
      std::string_view frame;
      UniqueFd fd;
      const auto whole = decoder.Next(frame, fd);
      ASSERT_TRUE(whole.ok());
      if (*whole) got.emplace_back(frame);
    }
  }
  EXPECT_EQ(got, sent);
  EXPECT_EQ(decoder.pending_bytes(), 0u);
}

TEST(FrameDecoderTest, RefusesALengthOverTheLimitFromTheHeaderAlone) {
  FrameDecoder decoder(100);
  std::string_view frame;
  UniqueFd fd;
  Append(decoder, Encode(std::string(100, 'x')));
  EXPECT_TRUE(*decoder.Next(frame, fd));
  Append(decoder, Encode(std::string(101, 'x')).substr(0, 4));
  const auto result = decoder.Next(frame, fd);
  EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(Message(result.status()).find("101 bytes: expected at most 100"), std::string::npos);
}

TEST(FrameDecoderTest, AHeaderAloneTakesNoMemory) {
  FrameDecoder decoder(kMaxFrameBytes);
  Append(decoder, Encode(std::string(32 << 20, 'x')).substr(0, 4));
  std::string_view frame;
  UniqueFd fd;
  EXPECT_FALSE(*decoder.Next(frame, fd));
  EXPECT_LE(decoder.WritableBytes().size(), 64u << 10);
}

TEST(FrameDecoderTest, DescriptorsGoToMarkedFramesInOrder) {
  FrameDecoder decoder(kMaxFrameBytes);
  UniqueFd first(open("/dev/null", O_RDONLY | O_CLOEXEC)), second(open("/dev/null", O_RDONLY | O_CLOEXEC));
  const int numbers[] = {first.get(), second.get()};
  ASSERT_TRUE(decoder.AddFd(std::move(first)).ok());
  ASSERT_TRUE(decoder.AddFd(std::move(second)).ok());
  Append(decoder, Encode("a") + Encode("b", true) + Encode("c") + Encode("d", true));
  std::string_view frame;
  for (const int expected : {-1, numbers[0], -1, numbers[1]}) {
    UniqueFd fd;
    ASSERT_TRUE(*decoder.Next(frame, fd));
    EXPECT_EQ(fd.get(), expected) << frame;
  }
}

TEST(FrameDecoderTest, RefusesAMarkedFrameWithoutDescriptorAndTooManyDescriptors) {
  FrameDecoder decoder(kMaxFrameBytes);
  Append(decoder, Encode("a", true));
  std::string_view frame;
  UniqueFd fd;
  EXPECT_EQ(decoder.Next(frame, fd).status().code(), absl::StatusCode::kInvalidArgument);
  for (size_t i = 0; i < FrameDecoder::kMaxPendingFds; ++i) {
    ASSERT_TRUE(decoder.AddFd(UniqueFd(open("/dev/null", O_RDONLY | O_CLOEXEC))).ok());
  }
  EXPECT_FALSE(decoder.AddFd(UniqueFd(open("/dev/null", O_RDONLY | O_CLOEXEC))).ok());
}

}  // namespace
}  // namespace baton
