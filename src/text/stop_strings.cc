#include "text/stop_strings.h"

#include <algorithm>
#include <utility>

#include "text/unicode.h"

namespace baton {

absl::StatusOr<StopStringMatcher> StopStringMatcher::Create(std::vector<std::string> strings, bool include_in_output) {
  if (strings.size() > kMaxStopStrings) {
    return InvalidArgument("stop: expected at most ", kMaxStopStrings, " strings, found ", strings.size());
  }
  StopStringMatcher matcher;
  matcher.include_in_output_ = include_in_output;
  for (std::string& text : strings) {
    if (text.empty() || text.size() > kMaxStopStringBytes || !IsValidUtf8(text)) {
      return InvalidArgument("stop: expected strings of 1 to ", kMaxStopStringBytes, " bytes of UTF-8, found one of ",
                             text.size(), " bytes");
    }
    Pattern pattern{.text = std::move(text), .fallback = {0, 0}};
    for (size_t i = 1; i < pattern.text.size(); ++i) {
      uint32_t border = pattern.fallback[i];
      while (border > 0 && pattern.text[border] != pattern.text[i]) border = pattern.fallback[border];
      pattern.fallback.push_back(pattern.text[border] == pattern.text[i] ? border + 1 : 0);
    }
    matcher.patterns_.push_back(std::move(pattern));
  }
  return matcher;
}

// True when the pattern is complete.
bool StopStringMatcher::Advance(Pattern& pattern, char byte) {
  while (pattern.matched > 0 && pattern.text[pattern.matched] != byte) {
    pattern.matched = pattern.fallback[pattern.matched];
  }
  if (pattern.text[pattern.matched] == byte) ++pattern.matched;
  return pattern.matched == pattern.text.size();
}

StopStringMatcher::Result StopStringMatcher::Append(std::string_view text) {
  if (stopped_) return {"", true};
  size_t end = held_.size();
  held_.append(text);
  for (const char byte : text) {
    ++end;
    int32_t complete = -1;
    for (size_t i = 0; i < patterns_.size(); ++i) {
      if (!Advance(patterns_[i], byte)) continue;
      if (complete < 0 || patterns_[i].text.size() > patterns_[complete].text.size()) complete = static_cast<int>(i);
    }
    if (complete >= 0) return Stop(complete, end);
  }
  size_t keep = 0;
  for (const Pattern& pattern : patterns_) keep = std::max<size_t>(keep, pattern.matched);
  Result result{.text = held_.substr(0, held_.size() - keep)};
  held_.erase(0, result.text.size());
  return result;
}

StopStringMatcher::Result StopStringMatcher::Stop(int32_t index, size_t end) {
  stopped_ = true;
  held_.resize(include_in_output_ ? end : end - patterns_[index].text.size());
  return {.text = std::exchange(held_, ""), .stopped = true, .matched = index};
}

std::string StopStringMatcher::Finish() {
  for (Pattern& pattern : patterns_) pattern.matched = 0;
  return std::exchange(held_, "");
}

}  // namespace baton
