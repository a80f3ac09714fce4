#include "text/byte_pair_encoder.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <map>
#include <utility>

#include "text/byte_alphabet.h"

namespace baton {
namespace {

constexpr size_t kShortPiece = 32;  // up to here, looking at every neighbour for the best merge is the fastest
constexpr int32_t kMerged = -2;

uint64_t PairOf(TokenId left, TokenId right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}
size_t HashPair(uint64_t pair) {
  pair *= 0x9e3779b97f4a7c15ull;
  return pair ^ pair >> 32;
}
size_t HashBytes(std::string_view bytes) { return std::hash<std::string_view>()(bytes); }

// Places where two neighbours may merge: the best rank first, from the left within a rank. Trained merges build on
// better-ranked ones, so that a rank is complete, and sorted once, before its first place is taken: linear for long
// runs of one character, where a heap would spend its time in cache misses. Merges in another order only cost more
// sorting.
class CandidateQueue {
 public:
  struct Candidate {
    int32_t rank, position;  // of the left neighbour
  };

  bool empty() const { return ranks_.empty(); }
  void Push(Candidate candidate) {
    Places& places = ranks_[candidate.rank];
    places.sorted = places.sorted && (places.positions.empty() || places.positions.back() <= candidate.position);
    places.positions.push_back(candidate.position);
  }
  Candidate Pop() {
    const auto best = ranks_.begin();
    Places& places = best->second;
    if (!places.sorted) {
      std::sort(places.positions.begin() + static_cast<ptrdiff_t>(places.taken), places.positions.end());
      places.sorted = true;
    }
    const Candidate candidate{best->first, places.positions[places.taken++]};
    if (places.taken == places.positions.size()) ranks_.erase(best);
    return candidate;
  }

 private:
  struct Places {
    std::vector<int32_t> positions;
    size_t taken = 0;
    bool sorted = true;  // from `taken` on
  };
  std::map<int32_t, Places> ranks_;
};

}  // namespace

absl::StatusOr<BytePairEncoder> BytePairEncoder::Create(const TokenizerData& data, bool ignore_merges) {
  BytePairEncoder encoder;
  encoder.ignore_merges_ = ignore_merges;
  encoder.IndexTokens(data);
  Ids ids;
  ids.reserve(data.tokens.size());
  for (size_t i = 0; i < data.tokens.size(); ++i) ids.emplace(data.tokens[i], static_cast<TokenId>(i));
  BATON_RETURN_IF_ERROR(encoder.IndexMerges(data, ids));
  encoder.stable_ = std::make_unique<std::atomic<uint8_t>[]>(data.tokens.size());
  return encoder;
}

void BytePairEncoder::IndexTokens(const TokenizerData& data) {
  const size_t count = data.tokens.size();
  std::vector<bool> special(count);
  for (const AddedToken& token : data.added_tokens) special[token.id] = special[token.id] || token.special;
  byte_tokens_.fill(-1);
  offsets_.reserve(count + 1);
  whole_.resize(std::bit_ceil(2 * count + 2));
  for (size_t i = 0; i < count; ++i) {
    const TokenId id = static_cast<TokenId>(i);
    const std::string bytes = BytesOfAlphabet(data.tokens[i]).value_or("");
    offsets_.push_back(static_cast<uint32_t>(bytes_.size()));
    if (bytes.empty()) continue;
    if (bytes.size() == 1) byte_tokens_[static_cast<uint8_t>(bytes[0])] = id;
    if (special[i]) continue;  // never what a piece of plain text becomes
    bytes_.append(bytes);
    const size_t hash = HashBytes(bytes);
    size_t place = hash & (whole_.size() - 1);
    while (whole_[place].token >= 0) place = (place + 1) & (whole_.size() - 1);
    whole_[place] = {static_cast<uint32_t>(hash >> 32), id};
  }
  offsets_.push_back(static_cast<uint32_t>(bytes_.size()));
}

absl::Status BytePairEncoder::IndexMerges(const TokenizerData& data, const Ids& ids) {
  merges_.resize(std::bit_ceil(2 * data.merges.size() + 2));
  std::string merged;
  for (size_t rank = 0; rank < data.merges.size(); ++rank) {
    const auto& [left, right] = data.merges[rank];
    merged.assign(left).append(right);
    TokenId found[3];
    const std::string_view parts[3] = {left, right, merged};
    for (int i = 0; i < 3; ++i) {
      const auto id = ids.find(parts[i]);
      if (id == ids.end()) {
        return InvalidArgument("merge ", rank, " (\"", left, "\" + \"", right, "\"): expected a token \"", parts[i],
                               "\" in the vocabulary, found none; the tokenizer's files do not belong together");
      }
      found[i] = id->second;
    }
    InsertMerge({PairOf(found[0], found[1]), static_cast<int32_t>(rank), found[2]});
  }
  return absl::OkStatus();
}

void BytePairEncoder::InsertMerge(const Merge& merge) {
  size_t place = HashPair(merge.pair) & (merges_.size() - 1);
  while (merges_[place].token >= 0 && merges_[place].pair != merge.pair) place = (place + 1) & (merges_.size() - 1);
  merges_[place] = merge;  // of two equal pairs the last counts, as in the reference
}

BytePairEncoder::Merge BytePairEncoder::FindMerge(TokenId left, TokenId right) const {
  const uint64_t pair = PairOf(left, right);
  for (size_t place = HashPair(pair) & (merges_.size() - 1); merges_[place].token >= 0;
       place = (place + 1) & (merges_.size() - 1)) {
    if (merges_[place].pair == pair) return merges_[place];
  }
  return {};
}

std::string_view BytePairEncoder::BytesOf(TokenId token) const {
  return std::string_view(bytes_).substr(offsets_[token], offsets_[token + 1] - offsets_[token]);
}

TokenId BytePairEncoder::FindWhole(std::string_view piece) const {
  const size_t hash = HashBytes(piece);
  for (size_t place = hash & (whole_.size() - 1); whole_[place].token >= 0; place = (place + 1) & (whole_.size() - 1)) {
    const WholeToken& entry = whole_[place];
    if (entry.tag == static_cast<uint32_t>(hash >> 32) && BytesOf(entry.token) == piece) return entry.token;
  }
  return -1;
}

void BytePairEncoder::Encode(std::string_view piece, std::vector<TokenId>& tokens) const {
  if (piece.empty()) return;
  const TokenId whole = FindWhole(piece);
  if (whole >= 0 && (ignore_merges_ || stable_[whole].load(std::memory_order_relaxed) == 1)) {
    tokens.push_back(whole);
    return;
  }
  const size_t before = tokens.size();
  piece.size() <= kShortPiece ? MergeShort(piece, tokens) : MergeLong(piece, tokens);
  if (whole >= 0) {
    const bool stable = tokens.size() == before + 1 && tokens.back() == whole;
    stable_[whole].store(stable ? 1 : 2, std::memory_order_relaxed);
  }
}

void BytePairEncoder::MergeShort(std::string_view piece, std::vector<TokenId>& tokens) const {
  Neighbour neighbours[kShortPiece];
  size_t count = 0;
  for (const char c : piece) {
    const TokenId token = byte_tokens_[static_cast<uint8_t>(c)];
    if (token >= 0) neighbours[count++].token = token;
  }
  const auto look = [&](size_t i) {
    neighbours[i].merge = i + 1 < count ? FindMerge(neighbours[i].token, neighbours[i + 1].token) : Merge{};
  };
  for (size_t i = 0; i < count; ++i) look(i);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i) {
      if (neighbours[i].merge.rank < neighbours[best].merge.rank) best = i;
    }
    if (neighbours[best].merge.rank == kNoMerge) break;
    neighbours[best].token = neighbours[best].merge.token;
    std::move(neighbours + best + 2, neighbours + count, neighbours + best + 1);
    --count;
    look(best);
    if (best > 0) look(best - 1);
  }
  for (size_t i = 0; i < count; ++i) tokens.push_back(neighbours[i].token);
}

void BytePairEncoder::MergeLong(std::string_view piece, std::vector<TokenId>& tokens) const {
  std::vector<Symbol> symbols;
  symbols.reserve(piece.size());
  for (const char c : piece) {
    const TokenId token = byte_tokens_[static_cast<uint8_t>(c)];
    const int32_t position = static_cast<int32_t>(symbols.size());
    if (token >= 0) symbols.push_back({token, position - 1, position + 1});
  }
  if (symbols.empty()) return;
  symbols.back().next = -1;

  CandidateQueue queue;
  const auto merge_at = [&](int32_t left) {
    const int32_t right = left < 0 ? -1 : symbols[left].next;
    return right < 0 ? Merge{} : FindMerge(symbols[left].token, symbols[right].token);
  };
  const auto add = [&](int32_t left) {
    const int32_t rank = merge_at(left).rank;
    if (rank != kNoMerge) queue.Push({rank, left});
  };
  for (size_t i = 0; i + 1 < symbols.size(); ++i) add(static_cast<int32_t>(i));
  while (!queue.empty()) {
    const auto [rank, position] = queue.Pop();
    const Merge merge = merge_at(position);
    if (merge.rank != rank) continue;  // one of the neighbours has merged since
    Symbol& left = symbols[position];
    left.token = merge.token;
    left.next = std::exchange(symbols[left.next].next, kMerged);
    if (left.next >= 0) symbols[left.next].previous = position;
    add(left.previous);
    add(position);
  }
  for (int32_t i = 0; i >= 0; i = symbols[i].next) tokens.push_back(symbols[i].token);
}

}  // namespace baton
