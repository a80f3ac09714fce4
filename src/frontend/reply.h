// Where an answer goes: the writer, and the request id that every answer carries.
//
// Threading: any thread. Ownership: shares the writer. Errors: none; a client that has left is none of its business.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"
#include "frontend/api_error.h"
#include "http/server.h"

namespace baton {

struct Reply {
  std::shared_ptr<ResponseWriter> writer;
  std::string request_id;
  std::string client;  // who asks, as far as its API key says; empty: unknown

  void Send(int status, std::string_view content_type, std::string_view body) const;
  void SendJson(std::string_view body) const { Send(200, "application/json", body); }
  void SendError(const ApiError& error) const;
  void SendError(const absl::Status& status) const { SendError(ToApiError(status)); }
  void StartEvents() const;
};

// The client's x-request-id when it is 1 to 128 visible characters, else a new one.
std::string ChooseRequestId(std::string_view from_client);
// 64 unpredictable bits: for ids and seeds.
uint64_t RandomBits();

}  // namespace baton
