// The opaque bytes of a memory descriptor: eight letters that name the transport, then little-endian numbers.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "base/status.h"

namespace baton {

constexpr std::string_view kLocalMagic = "localmem";
constexpr std::string_view kSharedMemoryMagic = "shmmemfd";
constexpr std::string_view kCudaIpcMagic = "cudaipcm";

// For people: what the memory is whose descriptor begins like this; "" when no transport of ours made it.
inline std::string_view DescribeMemory(std::string_view descriptor) {
  if (descriptor.starts_with(kLocalMagic)) return "memory of one process only (local)";
  if (descriptor.starts_with(kSharedMemoryMagic)) return "host memory (shm)";
  if (descriptor.starts_with(kCudaIpcMagic)) return "GPU memory (cuda-ipc)";
  return "";
}

template <size_t N>
std::string EncodeDescriptor(std::string_view magic, const std::array<uint64_t, N>& numbers) {
  return std::string(magic).append(reinterpret_cast<const char*>(numbers.data()), sizeof(numbers));
}

// InvalidArgument when another transport, or something else, made them.
template <size_t N>
absl::StatusOr<std::array<uint64_t, N>> DecodeDescriptor(std::string_view magic, std::string_view bytes) {
  std::array<uint64_t, N> numbers;
  if (const std::string_view other = DescribeMemory(bytes); !other.empty() && !bytes.starts_with(magic)) {
    return InvalidArgument("the KV blocks there are ", other, ", here ", DescribeMemory(magic),
                           ": both workers must compute on the same kind of device");
  }
  if (!bytes.starts_with(magic) || bytes.size() != magic.size() + sizeof(numbers)) {
    return InvalidArgument("memory descriptor of ", bytes.size(), " bytes: expected ", magic.size() + sizeof(numbers),
                           " that begin with \"", magic, "\"; do both sides use the same transport?");
  }
  std::memcpy(numbers.data(), bytes.data() + magic.size(), sizeof(numbers));
  return numbers;
}

}  // namespace baton
