// Reads little-endian numbers from foreign bytes, never beyond their end: a short read sets a flag and gives zero.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

namespace baton {

static_assert(std::endian::native == std::endian::little, "files are read without swapping bytes");

class ByteReader {
 public:
  explicit ByteReader(std::span<const uint8_t> bytes) : bytes_(bytes) {}

  template <typename Number>
  Number Read() {
    Number value{};
    if (const uint8_t* from = Take(sizeof(Number))) std::memcpy(&value, from, sizeof(Number));
    return value;
  }
  std::string_view ReadString(uint64_t length) {
    const uint8_t* from = Take(length);
    return from == nullptr ? std::string_view() : std::string_view(reinterpret_cast<const char*>(from), length);
  }
  std::span<const uint8_t> ReadBytes(uint64_t length) {
    const uint8_t* from = Take(length);
    return from == nullptr ? std::span<const uint8_t>() : std::span<const uint8_t>(from, length);
  }

  bool ok() const { return ok_; }
  uint64_t position() const { return position_; }
  uint64_t remaining() const { return ok_ ? bytes_.size() - position_ : 0; }

 private:
  const uint8_t* Take(uint64_t length) {
    if (!ok_ || length > bytes_.size() - position_) {
      ok_ = false;
      return nullptr;
    }
    const uint8_t* from = bytes_.data() + position_;
    position_ += length;
    return from;
  }

  std::span<const uint8_t> bytes_;
  uint64_t position_ = 0;
  bool ok_ = true;
};

}  // namespace baton
