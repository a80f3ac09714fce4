#include "frontend/reply.h"

#include <algorithm>
#include <atomic>
#include <random>

#include "core/random.h"

namespace baton {

void Reply::Send(int status, std::string_view content_type, std::string_view body) const {
  HttpHeaders headers = {{"x-request-id", request_id}};
  if (!content_type.empty()) headers.emplace_back("content-type", content_type);
  writer->Send(status, std::move(headers), body);
}

void Reply::SendError(const ApiError& error) const {
  HttpHeaders headers = {{"x-request-id", request_id}, {"content-type", "application/json"}};
  if (error.retry_after_s > 0) headers.emplace_back("retry-after", Cat(error.retry_after_s));
  if (error.status == 401) headers.emplace_back("www-authenticate", "Bearer");
  writer->Send(error.status, std::move(headers), ErrorJson(error));
}

void Reply::StartEvents() const {
  writer->StartStream(200, {{"x-request-id", request_id},
                            {"content-type", "text/event-stream; charset=utf-8"},
                            {"cache-control", "no-cache"},
                            {"x-accel-buffering", "no"}});
}

std::string ChooseRequestId(std::string_view from_client) {
  const bool usable = !from_client.empty() && from_client.size() <= 128 &&
                      std::all_of(from_client.begin(), from_client.end(), [](char c) { return c > ' ' && c < 0x7f; });
  if (usable) return std::string(from_client);
  std::string id;
  for (uint64_t bits : {RandomBits(), RandomBits()}) {
    for (int i = 0; i < 16; ++i, bits >>= 4) id += "0123456789abcdef"[bits & 15];
  }
  return id;
}

uint64_t RandomBits() {
  static const uint64_t key = [] {
    std::random_device device;
    return (uint64_t{device()} << 32) | device();
  }();
  static std::atomic<uint64_t> counter{0};
  return KeyedBits(key, 0, counter.fetch_add(1, std::memory_order_relaxed));
}

}  // namespace baton
