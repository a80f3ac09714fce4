// The first frame in each direction: what is spoken, and in which version.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

namespace baton {

constexpr uint32_t kProtocolVersion = 2;
constexpr int64_t kMaxHandshakeBytes = 256;  // room for later versions to say more
constexpr int64_t kHandshakeTimeoutMs = 5000;

std::string EncodeHandshake(uint32_t version = kProtocolVersion);
// FailedPrecondition when the peer is something else, or another version.
absl::Status CheckHandshake(std::string_view frame);

}  // namespace baton
