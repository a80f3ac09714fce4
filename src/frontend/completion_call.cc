#include "frontend/completion_call.h"

#include <algorithm>
#include <atomic>
#include <ctime>
#include <iterator>

#include "base/log.h"
#include "frontend/explanation.h"

namespace baton {
namespace {

constexpr size_t kEventsAtOnce = 256;

double Seconds(CompletionCall::Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

// A client may use an id twice; the generator may not see one twice.
std::string UniqueId(const std::string& request_id) {
  static std::atomic<uint64_t> counter{0};
  return Cat(request_id, "#", counter.fetch_add(1, std::memory_order_relaxed));
}

}  // namespace

CompletionCall::CompletionCall(std::shared_ptr<const CallServices> services, Reply reply,
                               std::unique_ptr<Admission::Ticket> ticket, bool explain)
    : services_(std::move(services)),
      reply_(std::move(reply)),
      id_(UniqueId(reply_.request_id)),
      ticket_(std::move(ticket)),
      explain_(explain) {}

void CompletionCall::Watch(int64_t timeout_ms) {
  reply_.writer->OnDisconnect([self = shared_from_this()] { self->Leave(); });
  if (timeout_ms <= 0) return;
  timeout_ms_ = timeout_ms;
  deadline_ = arrival_ + std::chrono::milliseconds(timeout_ms);
  ArmTimer();
}

// The one timer serves the deadline and the latest start of a stream, whichever comes first.
void CompletionCall::ArmTimer() {
  const Clock::time_point now = Clock::now();
  Clock::time_point next = deadline_;
  if (wants_stream() && !stream_started_) next = std::min(next, std::max(now, arrival_ + services_->stream_start));
  if (next == Clock::time_point::max()) return;
  const auto delay = std::chrono::ceil<std::chrono::milliseconds>(std::max(next - now, Clock::duration::zero()));
  reply_.writer->SetTimer(delay, [self = shared_from_this()] { self->OnTimer(); });
}

void CompletionCall::OnTimer() {
  if (ended_) return;
  if (Clock::now() >= deadline_) {
    return Fail(DeadlineExceeded("the request did not finish within its limit of ", timeout_ms_, " ms"));
  }
  if (wants_stream() && !stream_started_) {
    StartStream();
    Flush();
  }
  ArmTimer();
}

void CompletionCall::Begin(PreparedRequest prepared) {
  if (ended_) return;
  prepared_ = std::move(prepared);
  GenerationRequest& request = prepared_.request;
  if (request.timeout_ms > 0) {
    const auto deadline = arrival_ + std::chrono::milliseconds(request.timeout_ms);
    if (deadline < deadline_) {
      deadline_ = deadline;
      timeout_ms_ = request.timeout_ms;
    }
  }
  const char* prefix = request.endpoint == Endpoint::kChat ? "chatcmpl-" : "cmpl-";
  format_ = std::make_unique<ResponseFormat>(*services_->tokenizer, request, prefix + reply_.request_id,
                                             prepared_.model, std::time(nullptr));
  int64_t prompt_tokens = 0;
  for (const auto& prompt : prepared_.prompts) prompt_tokens += static_cast<int64_t>(prompt.size());
  if (const absl::Status status = ticket_->AddWaiting(prompt_tokens); !status.ok()) return Fail(status);
  const size_t count = prepared_.prompts.size() * static_cast<size_t>(request.n);
  std::vector<Sequence> sequences;
  for (size_t i = 0; i < count; ++i) {
    auto builder = AnswerBuilder::Create(*services_->tokenizer, request, services_->reasoning);
    if (!builder.ok()) return Fail(WithParam(builder.status(), "stop"));
    sequences.emplace_back(*std::move(builder));
  }
  sequences_ = std::move(sequences);
  if (request.return_token_ids && request.endpoint == Endpoint::kCompletions) {
    for (size_t i = 0; i < count; i += static_cast<size_t>(request.n)) sequences_[i].shows_prompt = true;
  }
  open_ = count;
  services_->metrics->waiting.Add(static_cast<double>(count));
  services_->metrics->prompt_tokens.Add(static_cast<double>(prompt_tokens));
  ArmTimer();
  for (size_t i = 0; i < count; ++i) {
    sequences_[i].handle = services_->generator->Generate(
        MakeRequest(i), [self = shared_from_this(), i](TokenEvent event) { self->Deliver(i, std::move(event)); });
  }
}

Request CompletionCall::MakeRequest(size_t index) const {
  const GenerationRequest& from = prepared_.request;
  const size_t n = static_cast<size_t>(from.n);
  Request request;
  request.id = id_;
  if (prepared_.prompts.size() > 1) request.id += Cat("/", index / n);
  request.prompt = prepared_.prompts[index / n];
  request.sampling = from.sampling;
  request.sampling.choice = static_cast<int32_t>(index % n);
  request.sampling.seed = *from.seed;
  const int64_t room = prepared_.max_model_len - static_cast<int64_t>(request.prompt.size());
  request.sampling.max_tokens = static_cast<int32_t>(std::min<int64_t>(from.max_tokens.value_or(room), room));
  request.cache_salt = from.cache_salt;
  request.user = from.user.empty() ? reply_.client : from.user;
  request.priority = from.priority;
  if (deadline_ != Clock::time_point::max()) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline_ - Clock::now()).count();
    request.timeout_ms = std::max<int64_t>(1, left);
  }
  return request;
}

void CompletionCall::Deliver(size_t index, TokenEvent event) {
  {
    MutexLock lock(mutex_);
    inbox_.emplace_back(index, std::move(event));
    if (std::exchange(drain_posted_, true)) return;
  }
  reply_.writer->Post([self = shared_from_this()] { self->Drain(); });
}

// A bounded number of events at once, so that what they say is sent before more is said.
void CompletionCall::Drain() {
  if (next_event_ == events_.size()) {
    events_.clear();
    next_event_ = 0;
    MutexLock lock(mutex_);
    events_.swap(inbox_);
  }
  now_ = Clock::now();
  const size_t end = std::min(events_.size(), next_event_ + kEventsAtOnce);
  for (; next_event_ < end; ++next_event_) {
    auto& [index, event] = events_[next_event_];
    Sequence& sequence = sequences_[index];
    sequence.delivered = sequence.delivered || event.finish != FinishReason::kNone;
    if (!ended_ && !sequence.ended) OnEvent(index, event);
  }
  Flush();
  {
    MutexLock lock(mutex_);
    drain_posted_ = next_event_ < events_.size() || !inbox_.empty();
    if (!drain_posted_) return;
  }
  reply_.writer->Post([self = shared_from_this()] { self->Drain(); });
}

void CompletionCall::OnEvent(size_t index, TokenEvent& event) {
  Sequence& sequence = sequences_[index];
  if (event.finish == FinishReason::kError || event.finish == FinishReason::kCancelled) {
    return Fail(event.status.ok() ? Internal("the generator gave up without a reason") : event.status);
  }
  const int32_t before = sequence.builder.tokens();
  if (event.tokens.empty() && event.finish == FinishReason::kNone) return;
  if (before == 0 || event.finish != FinishReason::kNone) sequence.waterfall = std::move(event.waterfall);
  if (wants_stream() && !stream_started_) StartStream();
  if (before == 0 && prepared_.request.echo) ShowEcho(index, event.prompt_logprobs);
  parts_.clear();
  const absl::Status status =
      sequence.builder.Append(event, [this](AnswerPart part) { parts_.push_back(std::move(part)); });
  if (!status.ok()) return Fail(status);
  ObserveTokens(sequence, sequence.builder.tokens() - before);
  const bool finished = sequence.builder.finished();
  if (finished && parts_.empty()) parts_.emplace_back();
  Show(index, finished);
  if (finished) EndSequence(index);
}

void CompletionCall::ObserveTokens(Sequence& sequence, int32_t count) {
  if (count == 0) return;
  FrontendMetrics& metrics = *services_->metrics;
  metrics.generation_tokens.Add(count);
  if (sequence.first_token == Clock::time_point()) {
    sequence.first_token = sequence.last_token = now_;
    metrics.time_to_first_token.Observe(Seconds(now_ - arrival_));
    metrics.waiting.Add(-1);
    metrics.running.Add(1);
    if (!std::exchange(first_token_seen_, true)) ticket_->StopWaiting();
    --count;
  }
  for (; count > 0; --count) {
    metrics.inter_token_latency.Observe(Seconds(now_ - sequence.last_token));
    sequence.last_token = now_;
  }
}

// Adds the parts of the event at hand to the answer; the last of them carries the end.
void CompletionCall::Show(size_t index, bool with_end) {
  Sequence& sequence = sequences_[index];
  ChoiceEnd end;
  if (with_end) {
    end = {sequence.builder.finish(), sequence.builder.stop_string(), sequence.builder.stop_token()};
    sequence.whole.end = end;
  }
  Usage usage;
  if (prepared_.request.continuous_usage) usage = CurrentUsage();
  for (size_t i = 0; i < parts_.size(); ++i) {
    AnswerPart& part = parts_[i];
    if (wants_stream()) {
      const bool last = with_end && i + 1 == parts_.size();
      const std::vector<TokenId>* prompt = std::exchange(sequence.shows_prompt, false) ? &PromptOf(index) : nullptr;
      format_->AppendChunk(out_, static_cast<int32_t>(index), part, last ? end : ChoiceEnd(), &sequence.characters,
                           prepared_.request.continuous_usage ? &usage : nullptr, prompt);
      continue;
    }
    sequence.whole.text += part.text;
    sequence.whole.reasoning += part.reasoning;
    std::move(part.tokens.begin(), part.tokens.end(), std::back_inserter(sequence.whole.tokens));
  }
}

// The prompt before the answer; for chat only what the assistant has begun to say.
void CompletionCall::ShowEcho(size_t index, std::vector<SampledToken>& prompt_logprobs) {
  const GenerationRequest& request = prepared_.request;
  const size_t prompt = index / static_cast<size_t>(request.n);
  AnswerPart part{.is_prompt = true};
  if (request.endpoint == Endpoint::kChat) {
    if (request.conversation.last_role != "assistant") return;
    part.text = request.conversation.last_text;
  } else if (request.prompts[prompt].is_tokens) {
    part.text = services_->tokenizer->Decode(prepared_.prompts[prompt], request.skip_special_tokens);
  } else {
    part.text = request.prompts[prompt].text;
  }
  if (request.sampling.prompt_logprobs) {
    part.tokens.push_back({.token = prepared_.prompts[prompt].front()});
    std::move(prompt_logprobs.begin(), prompt_logprobs.end(), std::back_inserter(part.tokens));
  }
  Sequence& sequence = sequences_[index];
  if (wants_stream()) {
    return format_->AppendChunk(out_, static_cast<int32_t>(index), part, {}, &sequence.characters, nullptr);
  }
  sequence.whole.text = std::move(part.text);
  sequence.whole.prompt_logprobs = std::move(part.tokens);
}

void CompletionCall::EndSequence(size_t index) {
  Sequence& sequence = sequences_[index];
  sequence.ended = true;
  if (!sequence.delivered) services_->generator->Cancel(sequence.handle);  // a stop string came
  FrontendMetrics& metrics = *services_->metrics;
  const double decode = Seconds(sequence.last_token - sequence.first_token);
  const bool started = sequence.first_token != Clock::time_point();
  (started ? metrics.running : metrics.waiting).Add(-1);
  metrics.Finished(sequence.builder.finish()).Add(1);
  metrics.e2e_latency.Observe(Seconds(now_ - arrival_));
  metrics.ObserveWaterfall(sequence.waterfall, decode);
  const int32_t tokens = sequence.builder.tokens();
  if (tokens > 1) metrics.time_per_output_token.Observe(decode / (tokens - 1));
  metrics.request_generation_tokens.Observe(tokens);
  metrics.request_prompt_tokens.Observe(static_cast<double>(PromptOf(index).size()));
  if (--open_ == 0) Complete();
}

void CompletionCall::Complete() {
  ended_ = true;
  const GenerationRequest& request = prepared_.request;
  const Usage usage = CurrentUsage();
  services_->metrics->prefix_queries.Add(static_cast<double>(usage.prompt_tokens));
  services_->metrics->prefix_hits.Add(static_cast<double>(usage.cached_tokens));
  const std::string explanation = explain_ ? Explanation() : "";
  if (request.stream) {
    if (request.include_usage || explain_) {
      format_->AppendLast(out_, request.include_usage ? &usage : nullptr, explanation);
    }
    out_ += "data: [DONE]\n\n";
    Flush();
    reply_.writer->Finish();
  } else {
    std::vector<ChoiceText> choices;
    for (Sequence& sequence : sequences_) choices.push_back(std::move(sequence.whole));
    reply_.SendJson(format_->Whole(choices, prepared_.prompts, usage, explanation));
  }
  LogInfo("request ", reply_.request_id, ": ", usage.prompt_tokens, " prompt tokens (", usage.cached_tokens,
          " cached), ", usage.completion_tokens, " generated in ", static_cast<int>(1e3 * Seconds(now_ - arrival_)),
          " ms");
}

void CompletionCall::Fail(const absl::Status& status) {
  if (std::exchange(ended_, true)) return;
  const ApiError error = ToApiError(status);
  if (stream_started_) {
    out_.append("data: ").append(ErrorJson(error)).append("\n\ndata: [DONE]\n\n");
    Flush();
    reply_.writer->Finish();
  } else {
    reply_.SendError(error);
  }
  LogInfo("request ", reply_.request_id, " failed: ", ErrorJson(error));
  End();
}

void CompletionCall::Leave() {
  if (std::exchange(ended_, true)) return;
  LogInfo("request ", reply_.request_id, ": the client left");
  End();
}

// Without an answer, or with half of one: everything still running is cancelled.
void CompletionCall::End() {
  FrontendMetrics& metrics = *services_->metrics;
  for (Sequence& sequence : sequences_) {
    if (sequence.ended) continue;
    const bool started = sequence.first_token != Clock::time_point();
    (started ? metrics.running : metrics.waiting).Add(-1);
    metrics.Finished(sequence.delivered ? FinishReason::kError : FinishReason::kCancelled).Add(1);
    sequence.ended = true;
    if (!sequence.delivered) services_->generator->Cancel(sequence.handle);
  }
}

void CompletionCall::StartStream() {
  stream_started_ = true;
  reply_.StartEvents();
  if (prepared_.request.endpoint != Endpoint::kChat) return;
  for (size_t i = 0; i < sequences_.size(); ++i) {
    const bool with_prompt = i == 0 && prepared_.request.return_token_ids;
    format_->AppendRole(out_, static_cast<int32_t>(i), with_prompt ? &prepared_.prompts[0] : nullptr);
  }
}

void CompletionCall::Flush() {
  if (out_.empty()) return;
  const bool heard = reply_.writer->Write(out_);
  out_.clear();
  if (!heard) Leave();
}

Usage CompletionCall::CurrentUsage() const {
  Usage usage;
  const size_t n = static_cast<size_t>(prepared_.request.n);
  for (size_t i = 0; i < prepared_.prompts.size(); ++i) {
    int64_t cached = static_cast<int64_t>(prepared_.prompts[i].size());
    for (size_t j = i * n; j < (i + 1) * n; ++j) {  // what the first of the choices computes, the others find
      usage.completion_tokens += sequences_[j].builder.tokens();
      cached = std::min<int64_t>(cached, sequences_[j].waterfall.cached_tokens);
    }
    usage.prompt_tokens += static_cast<int64_t>(prepared_.prompts[i].size());
    usage.cached_tokens += cached;
  }
  return usage;
}

std::string CompletionCall::Explanation() const {
  std::vector<SequenceTimes> times;
  for (const Sequence& sequence : sequences_) {
    times.push_back({&sequence.waterfall, Seconds(sequence.first_token - arrival_),
                     Seconds(sequence.last_token - sequence.first_token)});
  }
  const std::string route = services_->explain_route ? services_->explain_route(id_) : "";
  return ExplainJson(reply_.request_id, times, route);
}

}  // namespace baton
