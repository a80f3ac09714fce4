// Envelopes over sessions, and connecting without waiting.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/status.h"
#include "proto/baton.pb.h"
#include "rpc/session.h"

namespace baton {

void SendEnvelope(Session& session, const proto::Envelope& envelope, UniqueFd fd = {});
// DataLoss for bytes that are no Envelope.
absl::Status ParseEnvelope(std::string_view frame, proto::Envelope& envelope);

// Connects in the background, for threads that must not wait: a frozen peer delays nobody but other connections.
//
// Threading: Connect from any thread; `done` runs on the network's thread.
class Connector {
 public:
  virtual ~Connector() = default;
  using Done = std::function<void(absl::StatusOr<std::shared_ptr<Session>>)>;
  virtual void Connect(std::string address, SessionEvents events, int64_t timeout_ms, Done done) = 0;
};
std::unique_ptr<Connector> CreateConnector(Network& network);

}  // namespace baton
