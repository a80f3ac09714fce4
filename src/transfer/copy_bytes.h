// Copies for somebody else to read: around this core's caches when the range is large, so that a thread that computes
// meanwhile keeps its own data there.
#pragma once

#include <cstdint>

namespace baton {

// When it returns, every thread and process that learns of it sees the bytes.
void CopyBytes(uint8_t* to, const uint8_t* from, int64_t bytes);

}  // namespace baton
