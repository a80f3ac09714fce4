#include "worker/stream_table.h"

#include <algorithm>
#include <utility>

#include "rpc/convert.h"
#include "rpc/envelope.h"

namespace baton {

ActiveStream& StreamTable::Add(SequenceId sequence, ActiveStream stream) {
  by_stream_[{stream.session.get(), stream.stream}] = sequence;
  return streams_[sequence] = std::move(stream);
}

ActiveStream* StreamTable::Find(SequenceId sequence) {
  const auto found = streams_.find(sequence);
  return found == streams_.end() ? nullptr : &found->second;
}

std::optional<SequenceId> StreamTable::FindStream(const std::shared_ptr<Session>& session, uint64_t stream) const {
  const auto found = by_stream_.find({session.get(), stream});
  if (found == by_stream_.end()) return std::nullopt;
  return found->second;
}

std::vector<SequenceId> StreamTable::OfSession(const std::shared_ptr<Session>& session) const {
  std::vector<SequenceId> sequences;
  for (const auto& [sequence, stream] : streams_) {
    if (stream.session == session) sequences.push_back(sequence);
  }
  return sequences;
}

std::vector<SequenceId> StreamTable::Expired(Clock::time_point now) const {
  std::vector<SequenceId> sequences;
  for (const auto& [sequence, stream] : streams_) {
    if (stream.deadline <= now) sequences.push_back(sequence);
  }
  return sequences;
}

std::optional<StreamTable::Clock::time_point> StreamTable::NextDeadline() const {
  std::optional<Clock::time_point> next;
  for (const auto& [sequence, stream] : streams_) {
    if (stream.deadline != Clock::time_point::max() && (!next || stream.deadline < *next)) next = stream.deadline;
  }
  return next;
}

void StreamTable::Report(SequenceId sequence, TokenEvent event) {
  ActiveStream* stream = Find(sequence);
  if (stream == nullptr) return;
  proto::TokenUpdate* update = outgoing_[stream->session].mutable_tokens()->add_updates();
  update->set_stream(stream->stream);
  event.waterfall = stream->waterfall;
  ToProto(event, update);
  if (event.finish == FinishReason::kNone) return;
  by_stream_.erase({stream->session.get(), stream->stream});
  streams_.erase(sequence);
}

void StreamTable::Refuse(Session& session, uint64_t stream, const absl::Status& why) {
  proto::Envelope envelope;
  proto::TokenUpdate* update = envelope.mutable_tokens()->add_updates();
  ToProto(TokenEvent{.finish = FinishReason::kError, .status = why}, update);
  update->set_stream(stream);
  SendEnvelope(session, envelope);
}

void StreamTable::Flush() {
  for (auto& [session, envelope] : outgoing_) SendEnvelope(*session, envelope);
  outgoing_.clear();
}

void StreamTable::DropSession(const std::shared_ptr<Session>& session) {
  for (const SequenceId sequence : OfSession(session)) {
    by_stream_.erase({session.get(), streams_.at(sequence).stream});
    streams_.erase(sequence);
  }
  outgoing_.erase(session);
}

}  // namespace baton
