// What a benchmark must know about the server before it starts: its model's name, and token ids to make prompts of.
//
// Threading: free functions; block for seconds at most. Ownership: values. Errors: Unavailable, NotFound.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "bench/http_stream_client.h"

namespace baton {

// The first model of /v1/models.
absl::StatusOr<std::string> FirstServedModel(const HttpTarget& target);

struct TokenPool {
  std::vector<int32_t> tokens;  // ordinary ones: no special tokens
  std::string source;
};
// Asks /tokenize what it makes of common words. A server without that route gets the ids 1000 to 4999, which are
// ordinary tokens in the vocabularies of today's models.
absl::StatusOr<TokenPool> FindTokenPool(const HttpTarget& target, const std::string& model);

// True when POST /reset_prefix_cache worked.
bool ResetPrefixCache(const HttpTarget& target);

// The body of a GET, or "" when there is none.
std::string BodyOf(const HttpTarget& target, std::string_view path);

}  // namespace baton
