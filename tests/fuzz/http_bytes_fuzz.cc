// Folders: http
// Any bytes on a connection: requests within their limits, the same however the bytes arrive.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "http/request_reader.h"

namespace baton {
namespace {

constexpr RequestReader::Limits kLimits = {.header_bytes = 512, .body_bytes = 1024};

void Require(bool condition) {
  if (!condition) std::abort();
}

void Describe(const HttpRequest& request, std::string& out) {
  Require(request.body.size() <= kLimits.body_bytes);
  out += request.method + " " + request.path + "?" + request.query + "\n";
  for (const auto& [name, value] : request.headers) out += name + ":" + value + "\n";
  out += request.body + (request.keep_alive ? "\n" : " close\n");
}

// All requests in `bytes`, fed in parts of `step` bytes.
std::string ReadAll(std::string_view bytes, size_t step) {
  RequestReader reader(kLimits);
  std::string out;
  while (!bytes.empty() && reader.state() != RequestReader::State::kError) {
    reader.Feed(bytes.substr(0, step));
    bytes.remove_prefix(std::min(step, bytes.size()));
    reader.TakeExpectation();
    while (reader.state() == RequestReader::State::kDone) {
      Describe(reader.Take(), out);
      reader.Next();
    }
    Require(reader.buffered() <= kLimits.header_bytes + std::max<size_t>(step, 64));
  }
  if (reader.state() == RequestReader::State::kError) {
    const int status = reader.error().status;
    Require(status == 400 || status == 413 || status == 431);
    out += "error";
  }
  return out;
}

}  // namespace
}  // namespace baton

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const size_t step = 1 + data[0] % 64;
  baton::Require(baton::ReadAll(bytes, step) == baton::ReadAll(bytes, 64));
  return 0;
}
