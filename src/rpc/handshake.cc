#include "rpc/handshake.h"

#include <algorithm>
#include <cstring>

namespace baton {

namespace {

constexpr std::string_view kMagic = "batonrpc";

// Foreign bytes for a message: printable, and not many.
std::string Printable(std::string_view bytes) {
  std::string text;
  for (const unsigned char byte : bytes.substr(0, 16)) {
    constexpr char kDigits[] = "0123456789abcdef";
    if (byte >= 0x20 && byte < 0x7f && byte != '\\') {
      text += static_cast<char>(byte);
    } else {
      text += {'\\', 'x', kDigits[byte >> 4], kDigits[byte & 15]};
    }
  }
  return text;
}

}  // namespace

std::string EncodeHandshake(uint32_t version) {
  std::string frame(kMagic);
  frame.append(reinterpret_cast<const char*>(&version), sizeof(version));
  return frame;
}

absl::Status CheckHandshake(std::string_view frame) {
  uint32_t version;
  if (!frame.starts_with(kMagic) || frame.size() < kMagic.size() + sizeof(version)) {
    return FailedPrecondition("the peer does not speak Baton's protocol: expected \"", kMagic, "\", found \"",
                              Printable(frame), "\"; is the address right?");
  }
  std::memcpy(&version, frame.data() + kMagic.size(), sizeof(version));
  if (version != kProtocolVersion) {
    return FailedPrecondition("the peer speaks version ", version, " of Baton's protocol, this process version ",
                              kProtocolVersion, ": run the same build on both sides");
  }
  return absl::OkStatus();
}

}  // namespace baton
