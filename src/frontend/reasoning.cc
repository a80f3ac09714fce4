#include "frontend/reasoning.h"

#include <algorithm>

namespace baton {
namespace {

constexpr std::string_view kOpen = "<think>";
constexpr std::string_view kClose = "</think>";

// Bytes at the end of `text` that may be the beginning of `tag`.
size_t PartialTag(std::string_view text, std::string_view tag) {
  for (size_t size = std::min(text.size(), tag.size() - 1); size > 0; --size) {
    if (text.ends_with(tag.substr(0, size))) return size;
  }
  return 0;
}

}  // namespace

ReasoningSplitter::ReasoningSplitter(ReasoningParser parser)
    : state_(parser == ReasoningParser::kOff ? State::kContent : State::kBeforeTag) {
  if (parser == ReasoningParser::kFromStart) held_ = kOpen;
}

void ReasoningSplitter::Append(std::string_view text, std::string* reasoning, std::string* content) {
  if (state_ == State::kContent) {
    content->append(text);
    return;
  }
  held_ += text;
  Step(reasoning, content);
}

void ReasoningSplitter::Step(std::string* reasoning, std::string* content) {
  if (state_ == State::kBeforeTag) {
    const size_t start = held_.find_first_not_of(" \t\r\n");
    const std::string_view rest = start == std::string::npos ? "" : std::string_view(held_).substr(start);
    if (rest.starts_with(kOpen)) {
      held_.erase(0, start + kOpen.size());
      state_ = State::kThinking;
    } else if (kOpen.starts_with(rest)) {
      return;
    } else {
      state_ = State::kContent;
    }
  }
  if (state_ == State::kThinking) {
    const size_t close = held_.find(kClose);
    if (close == std::string::npos) {
      const size_t decided = held_.size() - PartialTag(held_, kClose);
      reasoning->append(held_, 0, decided);
      held_.erase(0, decided);
      return;
    }
    reasoning->append(held_, 0, close);
    held_.erase(0, close + kClose.size());
    state_ = State::kContent;
  }
  content->append(held_);
  held_.clear();
}

void ReasoningSplitter::Finish(std::string* reasoning, std::string* content) {
  (state_ == State::kThinking ? reasoning : content)->append(held_);
  held_.clear();
}

}  // namespace baton
