#include "core/block_hash.h"

#include <xxhash.h>

namespace baton {
namespace {

BlockHash Hash(std::span<const std::byte> bytes, const BlockHash& key) {
  const XXH128_hash_t hash =
      XXH3_128bits_withSeed(bytes.data(), bytes.size(), key.low ^ (key.high * 0x9e3779b97f4a7c15ull));
  // The seed holds 64 bits of the parent; the rest of it enters here.
  return {.high = hash.high64 ^ (key.high * 0xd1342543de82ef95ull),
          .low = hash.low64 ^ (key.low * 0x2545f4914f6cdd1dull)};
}

}  // namespace

BlockHash RootHash(uint64_t secret, std::string_view fingerprint, std::string_view cache_salt) {
  const BlockHash base = Hash(std::as_bytes(std::span(fingerprint)), {.high = secret, .low = ~secret});
  return Hash(std::as_bytes(std::span(cache_salt)), base);
}

BlockHash ChildHash(const BlockHash& parent, std::span<const TokenId> block_tokens) {
  return Hash(std::as_bytes(block_tokens), parent);
}

std::vector<BlockHash> HashBlocks(const BlockHash& root, std::span<const TokenId> tokens, int32_t block_size) {
  std::vector<BlockHash> hashes;
  hashes.reserve(tokens.size() / block_size);
  BlockHash parent = root;
  for (size_t begin = 0; begin + block_size <= tokens.size(); begin += block_size) {
    parent = ChildHash(parent, tokens.subspan(begin, block_size));
    hashes.push_back(parent);
  }
  return hashes;
}

}  // namespace baton
