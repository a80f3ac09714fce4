// HTTP messages as plain values, and the text of response heads.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace baton {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

// The value of the first header of that name (in lower case), or "".
std::string_view FindHeader(const HttpHeaders& headers, std::string_view name);

struct HttpRequest {
  std::string method;   // as sent, for example "GET"
  std::string path;     // the target up to '?', percent-decoded
  std::string query;    // what follows '?'
  HttpHeaders headers;  // names in lower case, values trimmed
  std::string body;
  bool http_1_0 = false;
  bool keep_alive = true;  // the client lets the connection stay open

  std::string_view Header(std::string_view name) const { return FindHeader(headers, name); }
};

// An answer of the protocol itself: 400, 413, 431, ….
struct HttpError {
  int status = 0;
  std::string message;
};

std::string_view ReasonPhrase(int status);

// Appends status line and headers, with Date and the empty line at the end.
void AppendResponseHead(std::string& out, int status, const HttpHeaders& headers);
// Appends one chunk of the chunked transfer coding; an empty one would end the body and is skipped.
void AppendChunk(std::string& out, std::string_view bytes);
inline constexpr std::string_view kLastChunk = "0\r\n\r\n";

bool EqualsIgnoreCase(std::string_view a, std::string_view b);
// "%41b" → "Ab"; a '%' without two hexadecimal digits stays as it is.
std::string PercentDecode(std::string_view text);

}  // namespace baton
