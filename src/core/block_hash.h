// The name of a full KV block: a 128-bit hash of everything that its contents depend on.
//
// Chained: a block's hash covers its own tokens and, through its parent's hash, every token before them; the first
// parent covers the deployment's secret, the engine's fingerprint and the tenant's salt. One definition serves the
// prefix cache, the router's index and the hand-off. The secret keeps strangers from building collisions; on a hit
// token ids are compared too.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "core/ids.h"

namespace baton {

struct BlockHash {
  uint64_t high = 0;
  uint64_t low = 0;
  auto operator<=>(const BlockHash&) const = default;
};

// The parent of a sequence's first block.
BlockHash RootHash(uint64_t secret, std::string_view fingerprint, std::string_view cache_salt);
BlockHash ChildHash(const BlockHash& parent, std::span<const TokenId> block_tokens);
// Hashes of all full blocks of a sequence: [tokens / block_size].
std::vector<BlockHash> HashBlocks(const BlockHash& root, std::span<const TokenId> tokens, int32_t block_size);

}  // namespace baton

template <>
struct std::hash<baton::BlockHash> {
  size_t operator()(const baton::BlockHash& hash) const noexcept { return hash.low; }
};
