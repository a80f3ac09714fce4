// One request for completions while it is in flight: starts its sequences, turns their tokens into the answer, and ends
// them when the client leaves, the deadline passes or a stop string comes.
//
// Threading: on its connection's network thread, but for the sinks, which the generator calls: they queue events and
//   wake the network thread once for all that are queued.
// Ownership: lives as long as the generator holds its sinks or the connection its callbacks.
// Errors: before the first token a status code; later an error event in the stream.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "core/generator.h"
#include "frontend/admission.h"
#include "frontend/answer_builder.h"
#include "frontend/frontend_metrics.h"
#include "frontend/openai_request.h"
#include "frontend/openai_response.h"
#include "frontend/reply.h"

namespace baton {

// What all calls share.
struct CallServices {
  Generator* generator = nullptr;
  const Tokenizer* tokenizer = nullptr;
  FrontendMetrics* metrics = nullptr;
  ReasoningParser reasoning = ReasoningParser::kOff;
  // The routing choice of a request (by its id) as JSON, for x-baton-explain; may be empty.
  std::function<std::string(const std::string&)> explain_route;
  std::chrono::milliseconds stream_start{5000};  // a stream starts at its first token, at the latest after this
};

// A request whose prompts have become tokens.
struct PreparedRequest {
  GenerationRequest request;  // with max_tokens and seed filled in
  std::string model;          // as the answer names it
  std::vector<std::vector<TokenId>> prompts;
  int64_t max_model_len = 0;
};

class CompletionCall : public std::enable_shared_from_this<CompletionCall> {
 public:
  using Clock = std::chrono::steady_clock;

  CompletionCall(std::shared_ptr<const CallServices> services, Reply reply, std::unique_ptr<Admission::Ticket> ticket,
                 bool explain);

  // Watches for the client's leaving and the time limit (0: none), from the request's arrival on.
  void Watch(int64_t timeout_ms);
  // Starts the sequences, unless the call has ended meanwhile.
  void Begin(PreparedRequest prepared);
  // Ends the call with an error.
  void Fail(const absl::Status& status);

 private:
  struct Sequence {
    explicit Sequence(AnswerBuilder builder) : builder(std::move(builder)) {}
    AnswerBuilder builder;
    SequenceId handle;
    bool delivered = false;     // the generator's last event has come
    bool ended = false;         // its answer is complete
    bool shows_prompt = false;  // its first chunk carries the prompt's tokens
    Clock::time_point first_token, last_token;
    Waterfall waterfall;
    ChoiceText whole;        // when not streamed
    int64_t characters = 0;  // of the text so far, for the offsets of log-probabilities
  };

  void Deliver(size_t index, TokenEvent event) BATON_EXCLUDES(mutex_);
  void Drain() BATON_EXCLUDES(mutex_);
  void OnEvent(size_t index, TokenEvent& event);
  void ObserveTokens(Sequence& sequence, int32_t count);
  void Show(size_t index, bool with_end);
  void ShowEcho(size_t index, std::vector<SampledToken>& prompt_logprobs);
  void EndSequence(size_t index);
  void Complete();
  void End();
  void StartStream();
  void Flush();
  void ArmTimer();
  void OnTimer();
  void Leave();
  Request MakeRequest(size_t index) const;
  const std::vector<TokenId>& PromptOf(size_t index) const {
    return prepared_.prompts[index / static_cast<size_t>(prepared_.request.n)];
  }
  Usage CurrentUsage() const;
  std::string Explanation() const;
  bool wants_stream() const { return prepared_.request.stream; }

  const std::shared_ptr<const CallServices> services_;
  const Reply reply_;
  const std::string id_;  // of the request, for the generator
  const std::unique_ptr<Admission::Ticket> ticket_;
  const bool explain_;
  const Clock::time_point arrival_ = Clock::now();
  Clock::time_point deadline_ = Clock::time_point::max();
  int64_t timeout_ms_ = 0;
  PreparedRequest prepared_;
  std::unique_ptr<ResponseFormat> format_;
  std::vector<Sequence> sequences_;
  std::vector<AnswerPart> parts_;                      // of the event at hand
  std::vector<std::pair<size_t, TokenEvent>> events_;  // being worked on, from next_event_ on
  size_t next_event_ = 0;
  std::string out_;
  size_t open_ = 0;  // sequences that have not ended
  bool stream_started_ = false;
  bool first_token_seen_ = false;
  bool ended_ = false;
  Clock::time_point now_;

  Mutex mutex_;
  std::vector<std::pair<size_t, TokenEvent>> inbox_ BATON_GUARDED_BY(mutex_);
  bool drain_posted_ BATON_GUARDED_BY(mutex_) = false;
};

}  // namespace baton
