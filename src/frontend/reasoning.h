// Separates what a reasoning model thinks, between <think> and </think>, from what it answers, while text arrives.
//
// Threading: one thread. Errors: none. Limits: holds back at most the bytes of a tag.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace baton {

enum class ReasoningParser : uint8_t {
  kOff,
  kTagged,     // reasoning is what stands in a <think>…</think> that the answer begins with (Qwen 3)
  kFromStart,  // the template has opened the tag already: everything up to </think> is reasoning (DeepSeek-R1)
};

class ReasoningSplitter {
 public:
  explicit ReasoningSplitter(ReasoningParser parser);

  // Appends what is decided of `text` to one or both.
  void Append(std::string_view text, std::string* reasoning, std::string* content);
  void Finish(std::string* reasoning, std::string* content);

 private:
  enum class State : uint8_t { kBeforeTag, kThinking, kContent };
  void Step(std::string* reasoning, std::string* content);

  State state_;
  std::string held_;
};

}  // namespace baton
