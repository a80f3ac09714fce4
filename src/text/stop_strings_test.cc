#include "text/stop_strings.h"

#include <gtest/gtest.h>

#include "core/random.h"

namespace baton {
namespace {

StopStringMatcher Make(std::vector<std::string> strings, bool include = false) {
  auto matcher = StopStringMatcher::Create(std::move(strings), include);
  EXPECT_TRUE(matcher.ok()) << matcher.status();
  return *std::move(matcher);
}

TEST(StopStringMatcherTest, HoldsBackOnlyWhatMayBeAStop) {
  StopStringMatcher matcher = Make({"\nUser:", "END"});
  EXPECT_EQ(matcher.Append("Hi\nUs").text, "Hi");
  EXPECT_EQ(matcher.held_back(), "\nUs");
  EXPECT_EQ(matcher.Append("ually E").text, "\nUsually ");
  EXPECT_EQ(matcher.Append("N").text, "");
  const auto result = matcher.Append("D of it");
  EXPECT_EQ(result.text, "");
  EXPECT_TRUE(result.stopped);
  EXPECT_EQ(result.matched, 1);
  EXPECT_EQ(matcher.Append("more").text, "");
  EXPECT_TRUE(matcher.stopped());
  EXPECT_EQ(matcher.Finish(), "");
}

TEST(StopStringMatcherTest, MayIncludeTheStop) {
  StopStringMatcher matcher = Make({"END"}, true);
  EXPECT_EQ(matcher.Append("at the E").text, "at the ");
  EXPECT_EQ(matcher.Append("ND of it").text, "END");
}

TEST(StopStringMatcherTest, TextThatNeverBecameAStopComesAtTheEnd) {
  StopStringMatcher matcher = Make({"aab"});
  EXPECT_EQ(matcher.Append("xaaa").text, "xa");
  EXPECT_EQ(matcher.Finish(), "aa");
  EXPECT_FALSE(matcher.stopped());
}

TEST(StopStringMatcherTest, TheFirstToEndCountsThenTheLongest) {
  EXPECT_EQ(Make({"abcd", "bc"}).Append("xabcd").text, "xa");
  EXPECT_EQ(Make({"c", "abc"}).Append("xabc").text, "x");
  EXPECT_EQ(Make({"c", "abc"}).Append("xabc").matched, 1);
}

TEST(StopStringMatcherTest, WithoutStopsEverythingPasses) {
  StopStringMatcher matcher = Make({});
  EXPECT_EQ(matcher.Append("text").text, "text");
}

TEST(StopStringMatcherTest, RefusesBadStops) {
  EXPECT_FALSE(StopStringMatcher::Create({""}, false).ok());
  EXPECT_FALSE(StopStringMatcher::Create({"\xFF"}, false).ok());
  EXPECT_FALSE(StopStringMatcher::Create({std::string(5000, 'a')}, false).ok());
  EXPECT_FALSE(StopStringMatcher::Create(std::vector<std::string>(17, "a"), false).ok());
}

// Against a search in the whole text, for every way of cutting it: nothing is lost, added, or held back needlessly.
TEST(StopStringMatcherTest, RandomTextsAndCuts) {
  for (uint64_t i = 0; i < 20000; ++i) {
    uint64_t position = 0;
    const auto below = [&](uint64_t limit) { return KeyedBits(5, i, position++) % limit; };
    const auto random_text = [&](uint64_t size) {
      std::string text;
      while (text.size() < size) text += below(2) ? "a" : below(3) ? "b" : "é";
      return text;
    };
    std::vector<std::string> stops;
    while (stops.size() < 1 + i % 3) stops.push_back(random_text(1 + below(5)));
    const std::string text = random_text(below(30));
    size_t end = text.size() + 1, begin = end;  // of the first match
    for (const std::string& stop : stops) {
      const size_t at = text.find(stop);
      if (at == text.npos || at + stop.size() > end) continue;
      begin = at + stop.size() < end ? at : std::min(begin, at);
      end = at + stop.size();
    }
    StopStringMatcher matcher = Make(stops);
    std::string sent;
    for (size_t at = 0; at < text.size() && !matcher.stopped();) {
      const size_t size = 1 + below(4);
      sent += matcher.Append(text.substr(at, size)).text;
      at += std::min(size, text.size() - at);
      if (matcher.stopped()) continue;
      ASSERT_EQ(sent + std::string(matcher.held_back()), text.substr(0, at));
      size_t longest = 0;  // the text's longest end that begins a stop string
      for (const std::string& stop : stops) {
        for (size_t n = 1; n < stop.size() && n <= at; ++n) {
          if (text.compare(at - n, n, stop, 0, n) == 0) longest = std::max(longest, n);
        }
      }
      ASSERT_EQ(matcher.held_back().size(), longest);
    }
    sent += matcher.Finish();
    ASSERT_EQ(sent, text.substr(0, begin));
  }
}

}  // namespace
}  // namespace baton
