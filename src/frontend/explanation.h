// The `baton` object that x-baton-explain adds to an answer: where the time of each choice went.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "core/request.h"

namespace baton {

struct SequenceTimes {
  const Waterfall* waterfall = nullptr;
  double first_token_s = 0;  // from the request's arrival
  double decode_s = 0;       // from the first token to the last
};

// `route`: the routing choice as JSON, or "".
std::string ExplainJson(std::string_view request_id, std::span<const SequenceTimes> sequences, std::string_view route);

}  // namespace baton
