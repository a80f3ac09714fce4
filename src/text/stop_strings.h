// Watches an answer for stop strings, which may be spread over several tokens.
//
//   StopStringMatcher matcher(stop, include_stop_str_in_output);
//   for (…) { auto result = matcher.Append(text); Send(result.text); if (result.stopped) break; }
//   if (!stopped) Send(matcher.Finish());
//
// Text is held back only while it may be the beginning of a stop string. What was returned, followed by what is held
// back, is always the text so far. The match that ends first counts; of those that end together, the one that begins
// first. As stop strings are whole characters, so is everything that is returned.
//
// Threading: one thread. Errors: Create refuses empty strings, too many and too long ones. Limits: below.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace baton {

inline constexpr size_t kMaxStopStrings = 16;
inline constexpr size_t kMaxStopStringBytes = 4096;

class StopStringMatcher {
 public:
  // Strings in valid UTF-8. With `include_in_output` the text up to the match's end is returned, else up to its start.
  static absl::StatusOr<StopStringMatcher> Create(std::vector<std::string> strings, bool include_in_output);

  struct Result {
    std::string text;      // may be sent
    bool stopped = false;  // a stop string has come: no more text counts
    int32_t matched = -1;  // index of it
  };
  // `text`: the next part of the answer, whole characters. After a match everything is swallowed.
  Result Append(std::string_view text);
  // The text that was held back, when nothing will follow.
  std::string Finish();

  std::string_view held_back() const { return held_; }
  bool stopped() const { return stopped_; }

 private:
  struct Pattern {
    std::string text;
    std::vector<uint32_t> fallback;  // [size + 1] Knuth-Morris-Pratt: the longest border of each prefix
    uint32_t matched = 0;            // bytes of the pattern that the text so far ends with
  };
  static bool Advance(Pattern& pattern, char byte);
  Result Stop(int32_t index, size_t end);

  std::vector<Pattern> patterns_;
  bool include_in_output_ = false;
  bool stopped_ = false;
  std::string held_;
};

}  // namespace baton
