// Finds added tokens in text: leftmost first, the longest of those that start there; as Hugging Face's `tokenizers`
// does.
//
// Threading: const after construction. Ownership: keeps copies of the contents; segments point into the caller's text.
// Errors: none. Limits: time is the text's length times the longest content's at worst, in practice one look per byte.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "core/tokenizer_data.h"

namespace baton {

class AddedTokenMatcher {
 public:
  // Searches for `content` of every token. Of equal contents the first counts.
  explicit AddedTokenMatcher(const std::vector<AddedToken>& tokens);

  struct Segment {
    std::string_view text;
    TokenId token = -1;  // -1: plain text
  };
  // Appends the segments of `text` (valid UTF-8) in order. Special tokens are plain text when `match_special` is false.
  void Split(std::string_view text, bool match_special, std::vector<Segment>& segments) const;
  bool empty() const { return rules_.empty(); }

 private:
  struct Rule {
    TokenId id;
    bool special, single_word, lstrip, rstrip;
  };
  struct Node {
    int32_t rule = -1;                                    // what ends here
    std::vector<std::pair<uint8_t, int32_t>> children{};  // (byte, node)
  };
  struct Match {
    size_t size = 0;
    int32_t rule = -1;  // -1: none
  };
  void Insert(std::string_view content, int32_t rule);
  int32_t Child(int32_t node, uint8_t byte) const;
  Match LongestAt(std::string_view text) const;

  std::vector<Rule> rules_;
  std::vector<Node> nodes_;           // a trie; the root is the first
  std::array<int32_t, 256> first_{};  // the root's children; 0: none
};

}  // namespace baton
