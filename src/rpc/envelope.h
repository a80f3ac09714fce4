// Envelopes over sessions, and connecting without waiting.
#pragma once

#include <google/protobuf/arena.h>

#include <functional>
#include <memory>
#include <string>

#include "base/status.h"
#include "proto/baton.pb.h"
#include "rpc/session.h"

namespace baton {

void SendEnvelope(Session& session, const proto::Envelope& envelope, UniqueFd fd = {});
// Memory of one message and its parts, of which a message of tokens has hundreds: taken in few pieces, given back at
// once.
class MessageArena {
 public:
  proto::Envelope& Envelope() { return *google::protobuf::Arena::CreateMessage<proto::Envelope>(&arena_); }

 private:
  alignas(8) char first_[8 << 10];
  google::protobuf::Arena arena_{first_, sizeof(first_)};
};

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
