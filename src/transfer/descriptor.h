// The opaque bytes of a memory descriptor: eight letters that name the transport, then little-endian numbers.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "base/status.h"

namespace baton {

template <size_t N>
std::string EncodeDescriptor(std::string_view magic, const std::array<uint64_t, N>& numbers) {
  return std::string(magic).append(reinterpret_cast<const char*>(numbers.data()), sizeof(numbers));
}

// InvalidArgument when another transport, or something else, made them.
template <size_t N>
absl::StatusOr<std::array<uint64_t, N>> DecodeDescriptor(std::string_view magic, std::string_view bytes) {
  std::array<uint64_t, N> numbers;
  if (!bytes.starts_with(magic) || bytes.size() != magic.size() + sizeof(numbers)) {
    return InvalidArgument("memory descriptor of ", bytes.size(), " bytes: expected ", magic.size() + sizeof(numbers),
                           " that begin with \"", magic, "\"; do both sides use the same transport?");
  }
  std::memcpy(numbers.data(), bytes.data() + magic.size(), sizeof(numbers));
  return numbers;
}

}  // namespace baton
