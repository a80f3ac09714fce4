// What --verify-kv compares: a 64-bit xxh3 of all bytes of a KV block. It finds bytes that changed on their way or were
// written by somebody else; it is no protection against those who want to be found equal.
//
// Threading: any thread. Errors: none.
#pragma once

#include <cstdint>
#include <span>

namespace baton {

uint64_t DigestBytes(std::span<const uint8_t> bytes);

}  // namespace baton
