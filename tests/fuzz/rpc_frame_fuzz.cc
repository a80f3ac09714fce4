// Folders: rpc
// The frame decoder against a parser that sees the whole stream at once: however the stream is cut, the same frames
// come out, or the same refusal.
#include <sys/eventfd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "rpc/frame_decoder.h"
#include "rpc/handshake.h"

namespace baton {
namespace {

constexpr int64_t kLimit = 4096;

struct Outcome {
  std::vector<std::string> frames;
  std::vector<bool> marked;
  bool refused = false;
  bool pinged = false;
  size_t pending = 0;
  bool operator==(const Outcome&) const = default;
};

Outcome ParseWhole(std::string_view stream, size_t fds) {
  Outcome outcome;
  while (stream.size() >= 4) {
    uint32_t header;
    std::memcpy(&header, stream.data(), 4);
    if (header == 0x40000000 || header == 0x40000001) {  // heart-beats
      outcome.pinged |= header == 0x40000000;
      stream.remove_prefix(4);
      continue;
    }
    const uint32_t length = header & 0x7fffffff;
    if (length > kLimit) {
      outcome.refused = true;
      return outcome;
    }
    if (stream.size() - 4 < length) break;
    const bool marked = (header >> 31) != 0;
    if (marked && fds == 0) {
      outcome.refused = true;
      return outcome;
    }
    if (marked) --fds;
    outcome.frames.emplace_back(stream.substr(4, length));
    outcome.marked.push_back(marked);
    stream.remove_prefix(4 + length);
  }
  outcome.pending = stream.size();
  return outcome;
}

Outcome ParseInPieces(std::string_view stream, size_t fds, uint32_t seed) {
  FrameDecoder decoder(kLimit);
  for (size_t i = 0; i < fds; ++i) {
    if (!decoder.AddFd(UniqueFd(eventfd(0, EFD_CLOEXEC))).ok()) std::abort();
  }
  Outcome outcome;
  while (!stream.empty()) {
    seed = seed * 1664525 + 1013904223;
    const std::span<char> room = decoder.WritableBytes();
    if (room.empty()) std::abort();
    const size_t count = std::min({stream.size(), room.size(), size_t{1} + (seed >> 16) % (seed & 8 ? 3 : 700)});
    std::memcpy(room.data(), stream.data(), count);
    decoder.Commit(count);
    stream.remove_prefix(count);
    while (true) {
      std::string_view frame;
      UniqueFd fd;
      const absl::StatusOr<bool> whole = decoder.Next(frame, fd);
      outcome.pinged |= decoder.TakePing();
      if (!whole.ok()) {
        outcome.refused = true;
        return outcome;
      }
      if (!*whole) break;
      outcome.frames.emplace_back(frame);
      outcome.marked.push_back(fd.valid());
    }
  }
  outcome.pending = decoder.pending_bytes();
  return outcome;
}

}  // namespace
}  // namespace baton

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view stream(reinterpret_cast<const char*>(data) + 1, size - 1);
  const size_t fds = data[0] % 3;
  const baton::Outcome expected = baton::ParseWhole(stream, fds);
  if (!(baton::ParseInPieces(stream, fds, data[0]) == expected)) std::abort();
  [[maybe_unused]] const absl::Status status = baton::CheckHandshake(stream);  // must not crash
  return 0;
}
