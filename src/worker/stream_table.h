// The sequences of one worker by who asked for them: where their tokens go, how long they may take, and where their
// time went.
//
// Tokens of a step are collected and leave in one message for each front end (Flush).
//
// Threading: the step loop's thread only.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "core/request.h"
#include "proto/baton.pb.h"
#include "rpc/session.h"

namespace baton {

struct ActiveStream {
  using Clock = std::chrono::steady_clock;
  std::shared_ptr<Session> session;  // the front end
  uint64_t stream = 0;               // its name for this attempt
  std::string request_id;
  int32_t prompt_tokens = 0;
  Clock::time_point received;
  std::optional<Clock::time_point> first_scheduled;
  std::optional<Clock::time_point> first_token;
  Clock::time_point deadline = Clock::time_point::max();
  Waterfall waterfall;
};

class StreamTable {
 public:
  using Clock = ActiveStream::Clock;

  ActiveStream& Add(SequenceId sequence, ActiveStream stream);
  ActiveStream* Find(SequenceId sequence);
  std::optional<SequenceId> FindStream(const std::shared_ptr<Session>& session, uint64_t stream) const;
  std::vector<SequenceId> OfSession(const std::shared_ptr<Session>& session) const;
  // Sequences whose deadline has passed.
  std::vector<SequenceId> Expired(Clock::time_point now) const;
  std::optional<Clock::time_point> NextDeadline() const;
  size_t size() const { return streams_.size(); }

  // Queues an event; one that finishes ends the stream.
  void Report(SequenceId sequence, TokenEvent event);
  // Refuses what was never added.
  static void Refuse(Session& session, uint64_t stream, const absl::Status& why);
  void Flush();
  void DropSession(const std::shared_ptr<Session>& session);

 private:
  using Key = std::pair<const Session*, uint64_t>;
  std::unordered_map<SequenceId, ActiveStream> streams_;
  std::map<Key, SequenceId> by_stream_;
  std::map<std::shared_ptr<Session>, proto::Envelope> outgoing_;
};

// `value` in microseconds since another point in time.
inline int64_t MicrosecondsBetween(ActiveStream::Clock::time_point from, ActiveStream::Clock::time_point to) {
  return std::chrono::duration_cast<std::chrono::microseconds>(to - from).count();
}

}  // namespace baton
