// Writing JSON by hand, for the few shapes that are sent for every token.
//
// Threading: free functions. Errors: none; bytes that are not UTF-8 become U+FFFD, numbers that JSON lacks become null.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "core/ids.h"

namespace baton {

// Appends `text` with quotes.
void AppendJsonString(std::string& out, std::string_view text);
// Appends `text` as it stands inside of quotes.
void AppendJsonEscaped(std::string& out, std::string_view text);
void AppendJsonNumber(std::string& out, double number);
void AppendJsonNumber(std::string& out, float number);
void AppendJsonNumber(std::string& out, int64_t number);
// [1,2,3]
void AppendJsonTokens(std::string& out, std::span<const TokenId> tokens);

}  // namespace baton
