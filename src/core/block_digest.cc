#include "core/block_digest.h"

#include <xxhash.h>

namespace baton {

uint64_t DigestBytes(std::span<const uint8_t> bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

}  // namespace baton
