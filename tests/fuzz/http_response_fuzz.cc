// Folders: bench
// The load generator's readers of what a server sends: however the bytes are cut, the same bodies, events and refusals.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "bench/completion_stream.h"
#include "bench/event_stream_parser.h"
#include "bench/http_response_parser.h"

namespace baton {
namespace {

struct Outcome {
  std::vector<std::string> bodies;  // of whole responses, with their status
  std::vector<std::string> events;
  bool refused = false;
  bool operator==(const Outcome&) const = default;
};

// All of the stream's responses, one after the other; `step` bytes at a time.
Outcome Parse(std::string_view stream, size_t step) {
  HttpResponseParser parser({.head_bytes = 512, .body_bytes = 4096, .interim_responses = 2});
  EventStreamParser events(256);
  Outcome outcome;
  std::string body, piece;
  const auto on_event = [&](std::string_view data) {
    outcome.events.emplace_back(data);
    [[maybe_unused]] const auto event = ParseStreamEvent(data);  // must not crash
  };
  while (!stream.empty() && !outcome.refused) {
    piece.clear();
    const absl::StatusOr<size_t> used = parser.Feed(stream.substr(0, step), piece);
    // Events of bytes before a refusal differ with the cut, so a refusal alone is compared then.
    if (!used.ok() || !events.Feed(piece, on_event).ok()) {
      outcome = {.refused = true};
      break;
    }
    body += piece;
    stream.remove_prefix(*used);
    if (!parser.done()) continue;
    outcome.bodies.push_back(Cat(parser.status(), " ", body));
    body.clear();
    parser.Reset();
    events.Reset();
  }
  return outcome;
}

}  // namespace
}  // namespace baton

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0 || size > 16384) return 0;
  const std::string_view stream(reinterpret_cast<const char*>(data) + 1, size - 1);
  const baton::Outcome whole = baton::Parse(stream, stream.size() + 1);
  if (!(baton::Parse(stream, size_t{1} + data[0] % 17) == whole)) std::abort();
  return 0;
}
