#include "bench/event_stream_parser.h"

#include <gtest/gtest.h>

#include <vector>

namespace baton {
namespace {

using Events = std::vector<std::string>;

Events Parse(std::string_view text, size_t step) {
  EventStreamParser parser;
  Events events;
  for (size_t at = 0; at < text.size(); at += step) {
    EXPECT_TRUE(parser.Feed(text.substr(at, step), [&](std::string_view data) { events.emplace_back(data); }).ok());
  }
  return events;
}

TEST(EventStreamParser, GivesTheDataOfEachEventHoweverTheBytesAreCut) {
  constexpr std::string_view kText =
      ": a comment\n\ndata: one\n\ndata:two\r\ndata: lines\r\n\r\nevent: x\rid: 7\rdata\r\rdatabase: no\n\ndata:  "
      "spaced\n\n"
      "data: without its end\n";
  for (size_t step = 1; step <= kText.size(); ++step) {
    EXPECT_EQ(Parse(kText, step), (Events{"one", "two\nlines", "", " spaced"})) << step;
  }
}

TEST(EventStreamParser, HasALimit) {
  const auto ignore = [](std::string_view) {};
  EventStreamParser line(10);
  EXPECT_TRUE(absl::IsDataLoss(line.Feed("data: 1234567890", ignore)));
  EventStreamParser event(10);
  EXPECT_TRUE(event.Feed("data: 1234\n", ignore).ok());
  EXPECT_TRUE(event.Feed("data: 1234\n", ignore).ok());
  EXPECT_TRUE(absl::IsDataLoss(event.Feed("data: 1234\n", ignore)));
}

}  // namespace
}  // namespace baton
