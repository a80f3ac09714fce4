#include "text/added_token_matcher.h"

#include <algorithm>

#include "text/unicode.h"

namespace baton {
namespace {

bool StartsWith(std::string_view text, uint8_t property) {
  return !text.empty() && (CodePointProperties()[DecodeUtf8(text).value] & property) != 0;
}

// The bytes of the last code point.
size_t LastBytes(std::string_view text) {
  size_t bytes = 1;
  while (bytes < text.size() && (static_cast<uint8_t>(text[text.size() - bytes]) & 0xC0) == 0x80) ++bytes;
  return bytes;
}

bool EndsWith(std::string_view text, uint8_t property) {
  return !text.empty() && StartsWith(text.substr(text.size() - LastBytes(text)), property);
}

size_t WithoutTrailingSpace(std::string_view text) {
  while (EndsWith(text, kWhiteSpace)) text.remove_suffix(LastBytes(text));
  return text.size();
}

size_t LeadingSpace(std::string_view text) {
  size_t bytes = 0;
  while (StartsWith(text.substr(bytes), kWhiteSpace)) bytes += DecodeUtf8(text.substr(bytes)).bytes;
  return bytes;
}

}  // namespace

AddedTokenMatcher::AddedTokenMatcher(const std::vector<AddedToken>& tokens) : nodes_(1) {
  for (const AddedToken& token : tokens) {
    rules_.push_back({token.id, token.special, token.single_word, token.lstrip, token.rstrip});
    Insert(token.content, static_cast<int32_t>(rules_.size() - 1));
  }
  for (const auto& [byte, node] : nodes_[0].children) first_[byte] = node;
}

void AddedTokenMatcher::Insert(std::string_view content, int32_t rule) {
  int32_t node = 0;
  for (const char c : content) {
    const uint8_t byte = static_cast<uint8_t>(c);
    int32_t child = Child(node, byte);
    if (child == 0) {
      child = static_cast<int32_t>(nodes_.size());
      nodes_[node].children.emplace_back(byte, child);
      nodes_.emplace_back();
    }
    node = child;
  }
  if (node != 0 && nodes_[node].rule < 0) nodes_[node].rule = rule;
}

int32_t AddedTokenMatcher::Child(int32_t node, uint8_t byte) const {
  for (const auto& [key, child] : nodes_[node].children) {
    if (key == byte) return child;
  }
  return 0;
}

AddedTokenMatcher::Match AddedTokenMatcher::LongestAt(std::string_view text) const {
  Match match;
  int32_t node = first_[static_cast<uint8_t>(text[0])];
  for (size_t i = 1; node != 0; ++i) {
    if (nodes_[node].rule >= 0) match = {i, nodes_[node].rule};
    node = i < text.size() ? Child(node, static_cast<uint8_t>(text[i])) : 0;
  }
  return match;
}

void AddedTokenMatcher::Split(std::string_view text, bool match_special, std::vector<Segment>& segments) const {
  size_t plain = 0;  // where the plain text before the next match begins
  for (size_t at = 0; at < text.size();) {
    if (first_[static_cast<uint8_t>(text[at])] == 0) {
      ++at;
      continue;
    }
    const Match match = LongestAt(text.substr(at));
    if (match.rule < 0) {
      ++at;
      continue;
    }
    size_t begin = at, end = at + match.size;
    at = end;  // even a match that does not count hides what overlaps it
    const Rule& rule = rules_[match.rule];
    if (rule.special && !match_special) continue;
    if (rule.single_word && (EndsWith(text.substr(0, begin), kWord) || StartsWith(text.substr(end), kWord))) continue;
    if (rule.lstrip) begin = std::max(plain, WithoutTrailingSpace(text.substr(0, begin)));
    if (rule.rstrip) end += LeadingSpace(text.substr(end));
    if (plain < begin) segments.push_back({text.substr(plain, begin - plain)});
    segments.push_back({text.substr(begin, end - begin), rule.id});
    plain = end;
  }
  if (plain < text.size()) segments.push_back({text.substr(plain)});
}

}  // namespace baton
