#include "rpc/convert.h"

#include <algorithm>

namespace baton {
namespace {

void SamplingToProto(const SamplingParams& sampling, proto::Sampling* out) {
  out->set_temperature(sampling.temperature);
  out->set_top_p(sampling.top_p);
  out->set_top_k(sampling.top_k);
  out->set_min_p(sampling.min_p);
  out->set_frequency_penalty(sampling.frequency_penalty);
  out->set_presence_penalty(sampling.presence_penalty);
  out->set_repetition_penalty(sampling.repetition_penalty);
  for (const auto& [token, bias] : sampling.logit_bias) {
    proto::Bias* entry = out->add_logit_bias();
    entry->set_token(token);
    entry->set_bias(bias);
  }
  out->set_seed(sampling.seed);
  out->set_choice(sampling.choice);
  out->set_max_tokens(sampling.max_tokens);
  out->set_min_tokens(sampling.min_tokens);
  out->set_ignore_eos(sampling.ignore_eos);
  out->mutable_stop_token_ids()->Assign(sampling.stop_token_ids.begin(), sampling.stop_token_ids.end());
  out->set_top_logprobs(sampling.top_logprobs);
  out->set_prompt_logprobs(sampling.prompt_logprobs);
}

SamplingParams SamplingFromProto(const proto::Sampling& message) {
  SamplingParams sampling;
  sampling.temperature = message.temperature();
  sampling.top_p = message.top_p();
  sampling.top_k = message.top_k();
  sampling.min_p = message.min_p();
  sampling.frequency_penalty = message.frequency_penalty();
  sampling.presence_penalty = message.presence_penalty();
  sampling.repetition_penalty = message.repetition_penalty();
  for (const proto::Bias& entry : message.logit_bias()) sampling.logit_bias.emplace_back(entry.token(), entry.bias());
  sampling.seed = message.seed();
  sampling.choice = message.choice();
  sampling.max_tokens = message.max_tokens();
  sampling.min_tokens = message.min_tokens();
  sampling.ignore_eos = message.ignore_eos();
  sampling.stop_token_ids.assign(message.stop_token_ids().begin(), message.stop_token_ids().end());
  sampling.top_logprobs = message.top_logprobs();
  sampling.prompt_logprobs = message.prompt_logprobs();
  return sampling;
}

void WaterfallToProto(const Waterfall& waterfall, proto::Waterfall* out) {
  out->set_queue_us(waterfall.queue_us);
  out->set_prefill_us(waterfall.prefill_us);
  out->set_handoff_us(waterfall.handoff_us);
  out->set_handoff_bytes(waterfall.handoff_bytes);
  out->set_handoff_path(waterfall.handoff_path);
  out->set_cached_tokens(waterfall.cached_tokens);
  out->set_prefill_worker(waterfall.prefill_worker);
  out->set_decode_worker(waterfall.decode_worker);
}

Waterfall WaterfallFromProto(const proto::Waterfall& message) {
  return {.queue_us = message.queue_us(),
          .prefill_us = message.prefill_us(),
          .handoff_us = message.handoff_us(),
          .handoff_bytes = message.handoff_bytes(),
          .handoff_path = message.handoff_path(),
          .cached_tokens = message.cached_tokens(),
          .prefill_worker = message.prefill_worker(),
          .decode_worker = message.decode_worker()};
}

}  // namespace

void ToProto(const Request& request, proto::Request* out) {
  out->set_id(request.id);
  out->mutable_prompt()->Assign(request.prompt.begin(), request.prompt.end());
  out->mutable_generated()->Assign(request.generated.begin(), request.generated.end());
  SamplingToProto(request.sampling, out->mutable_sampling());
  out->set_cache_salt(request.cache_salt);
  out->set_user(request.user);
  out->set_priority(request.priority);
  out->set_timeout_ms(request.timeout_ms);
}

absl::StatusOr<Request> FromProto(const proto::Request& message) {
  if (message.prompt().empty())
    return InvalidArgument("request ", message.id(), ": expected a prompt, found no tokens");
  return Request{.id = message.id(),
                 .prompt = {message.prompt().begin(), message.prompt().end()},
                 .generated = {message.generated().begin(), message.generated().end()},
                 .sampling = SamplingFromProto(message.sampling()),
                 .cache_salt = message.cache_salt(),
                 .user = message.user(),
                 .priority = message.priority(),
                 .timeout_ms = message.timeout_ms()};
}

void ToProto(const SampledToken& token, proto::Token* out) {
  out->set_token(token.token);
  out->set_logprob(token.logprob);
  for (const TokenLogprob& entry : token.top_logprobs) {
    proto::Logprob* top = out->add_top();
    top->set_token(entry.token);
    top->set_logprob(entry.logprob);
  }
}

SampledToken FromProto(const proto::Token& message) {
  SampledToken token{.token = message.token(), .logprob = message.logprob()};
  token.top_logprobs.reserve(message.top_size());
  for (const proto::Logprob& top : message.top()) token.top_logprobs.push_back({top.token(), top.logprob()});
  return token;
}

void ToProto(const TokenEvent& event, proto::TokenUpdate* out) {
  out->set_position(event.position);
  for (const SampledToken& token : event.tokens) ToProto(token, out->add_tokens());
  for (const SampledToken& token : event.prompt_logprobs) ToProto(token, out->add_prompt_logprobs());
  out->set_finish(static_cast<int32_t>(event.finish));
  if (!event.status.ok()) ToProto(event.status, out->mutable_status());
  // Ordinary tokens carry none: a step's message stays small.
  if (event.position == 0 || event.finish != FinishReason::kNone)
    WaterfallToProto(event.waterfall, out->mutable_waterfall());
}

absl::StatusOr<TokenEvent> FromProto(const proto::TokenUpdate& message) {
  BATON_ASSIGN_OR_RETURN(const FinishReason finish, FinishReasonFromProto(message.finish()));
  TokenEvent event{.position = message.position(), .finish = finish};
  event.tokens.reserve(message.tokens_size());
  for (const proto::Token& token : message.tokens()) event.tokens.push_back(FromProto(token));
  for (const proto::Token& token : message.prompt_logprobs()) event.prompt_logprobs.push_back(FromProto(token));
  if (message.has_status()) event.status = FromProto(message.status());
  if (message.has_waterfall()) event.waterfall = WaterfallFromProto(message.waterfall());
  return event;
}

void ToProto(const absl::Status& status, proto::Status* out) {
  out->set_code(static_cast<int32_t>(status.code()));
  out->set_message(std::string(Message(status)));
}

absl::Status FromProto(const proto::Status& message) {
  // absl maps codes that it does not know to kUnknown.
  return absl::Status(static_cast<absl::StatusCode>(message.code()), message.message());
}

absl::StatusOr<FinishReason> FinishReasonFromProto(int32_t value) {
  if (value < 0 || value > static_cast<int32_t>(FinishReason::kError)) {
    return InvalidArgument("finish reason: expected 0 to ", static_cast<int32_t>(FinishReason::kError), ", found ",
                           value);
  }
  return static_cast<FinishReason>(value);
}

}  // namespace baton
