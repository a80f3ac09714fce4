// The page at GET /: one self-contained document that reads /cluster and /metrics of the server it came from.
#pragma once

#include <string_view>

namespace baton {

std::string_view DashboardHtml();

}  // namespace baton
