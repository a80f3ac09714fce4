// Byte-level byte-pair encoding: turns one piece of text, as the pre-tokenizer cut it, into tokens.
//
//   Of all neighbours that may merge, the pair of best rank merges, the leftmost one among equals, until none may.
//
// Threading: const calls from any thread (what is learnt about whole-token pieces is kept in atomics).
// Errors: Create says which merge is not in the vocabulary. Bytes without a token are dropped, as Hugging Face's
//   `tokenizers` drops them when there is no unknown token (SmolLM2's vocabulary lacks a few control characters).
// Limits: time n log n in a piece's bytes, for merges as training makes them; pieces below 2 GiB.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "core/tokenizer_data.h"

namespace baton {

class BytePairEncoder {
 public:
  static absl::StatusOr<BytePairEncoder> Create(const TokenizerData& data, bool ignore_merges);
  void Encode(std::string_view piece, std::vector<TokenId>& tokens) const;

 private:
  struct Merge {
    uint64_t pair = ~uint64_t{0};  // left token << 32 | right token; all ones: an empty place
    int32_t rank = kNoMerge;
    TokenId token = -1;
  };
  struct Symbol {
    TokenId token;
    int32_t previous, next;  // -1: none; `next` -2: merged into its left neighbour
  };
  struct Neighbour {
    TokenId token;  // the left one
    Merge merge;    // with the one to its right
  };
  struct WholeToken {
    uint32_t tag;
    TokenId token = -1;
  };
  static constexpr int32_t kNoMerge = INT32_MAX;
  using Ids = std::unordered_map<std::string_view, TokenId>;

  void IndexTokens(const TokenizerData& data);
  absl::Status IndexMerges(const TokenizerData& data, const Ids& ids);
  void InsertMerge(const Merge& merge);
  Merge FindMerge(TokenId left, TokenId right) const;
  TokenId FindWhole(std::string_view piece) const;
  std::string_view BytesOf(TokenId token) const;
  void MergeShort(std::string_view piece, std::vector<TokenId>& tokens) const;
  void MergeLong(std::string_view piece, std::vector<TokenId>& tokens) const;

  bool ignore_merges_ = false;
  std::string bytes_;              // of all tokens that pieces can become, one after the other
  std::vector<uint32_t> offsets_;  // [vocabulary + 1] into bytes_
  std::array<TokenId, 256> byte_tokens_{};
  std::vector<WholeToken> whole_;  // a hash table with open addressing, a power of two long
  std::vector<Merge> merges_;      // likewise
  // [vocabulary] whether a token's own bytes encode to that one token: 0 unknown, 1 yes, 2 no.
  std::unique_ptr<std::atomic<uint8_t>[]> stable_;
};

}  // namespace baton
