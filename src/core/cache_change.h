// One change of a worker's prefix cache, as its block pool logs it and a router's index applies it.
#pragma once

#include <cstdint>

#include "core/block_hash.h"

namespace baton {

struct CacheChange {
  enum class Kind : uint8_t { kStored, kRemoved, kCleared };
  Kind kind = Kind::kStored;
  BlockHash hash;  // of the block; unset for kCleared
  bool operator==(const CacheChange&) const = default;
};

}  // namespace baton
