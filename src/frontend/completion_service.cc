#include "frontend/completion_service.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "frontend/api_error.h"
#include "frontend/json_text.h"

namespace baton {
namespace {

// The header's milliseconds; 0 when there is none.
absl::StatusOr<int64_t> TimeoutHeader(const HttpRequest& request) {
  const std::string_view text = request.Header("x-request-timeout-ms");
  if (text.empty()) return 0;
  int64_t milliseconds = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), milliseconds);
  if (error != std::errc() || end != text.data() + text.size() || milliseconds < 1) {
    return WithParam(
        InvalidArgument("x-request-timeout-ms: expected a number of milliseconds of at least 1, found '", text, "'"),
        "x-request-timeout-ms");
  }
  return std::min<int64_t>(milliseconds, int64_t{7} * 24 * 3600 * 1000);
}

bool IsTrue(std::string_view text) { return text == "1" || EqualsIgnoreCase(text, "true"); }

}  // namespace

CompletionService::CompletionService(CompletionOptions options, CallServices services, ChatFormatter formatter,
                                     int64_t max_model_len)
    : options_(std::move(options)),
      services_(std::make_shared<const CallServices>(std::move(services))),
      encoder_(*services_->tokenizer, std::move(formatter), max_model_len),
      admission_(std::make_shared<Admission>(options_.admission)),
      workers_(options_.worker_threads) {}

void CompletionService::RunSoon(size_t body_bytes, std::function<void()> task) {
  if (body_bytes <= options_.inline_body_bytes) return task();
  workers_.Run(std::move(task));
}

absl::Status CompletionService::CheckModel(const std::string& model) const {
  const auto& names = options_.model_names;
  if (model.empty() || std::find(names.begin(), names.end(), model) != names.end()) return absl::OkStatus();
  return WithParam(NotFound("the model '", model, "' is not served here; this server has '", names.front(), "'"),
                   "model", "model_not_found");
}

void CompletionService::HandleCompletions(Endpoint endpoint, HttpRequest request, Reply reply) {
  if (const absl::Status health = services_->generator->Admits(); !health.ok()) {
    return reply.SendError(MakeApiError(503, Cat("the server cannot serve now: ", Message(health))));
  }
  const auto timeout_ms = TimeoutHeader(request);
  if (!timeout_ms.ok()) return reply.SendError(timeout_ms.status());
  auto ticket = Admission::Enter(admission_);
  if (!ticket.ok()) return reply.SendError(ticket.status());
  const bool explain = IsTrue(request.Header("x-baton-explain"));
  auto call = std::make_shared<CompletionCall>(services_, reply, *std::move(ticket), explain);
  call->Watch(*timeout_ms > 0 ? *timeout_ms : options_.timeout_ms);
  if (request.body.size() <= options_.inline_body_bytes) {
    auto prepared = Prepare(endpoint, request.body);
    return prepared.ok() ? call->Begin(*std::move(prepared)) : call->Fail(prepared.status());
  }
  workers_.Run([this, endpoint, call, writer = reply.writer, body = std::move(request.body)] {
    auto prepared = std::make_shared<absl::StatusOr<PreparedRequest>>(Prepare(endpoint, body));
    writer->Post(
        [call, prepared] { prepared->ok() ? call->Begin(**std::move(prepared)) : call->Fail(prepared->status()); });
  });
}

absl::StatusOr<PreparedRequest> CompletionService::Prepare(Endpoint endpoint, const std::string& body) const {
  PreparedRequest prepared;
  BATON_ASSIGN_OR_RETURN(prepared.request, ParseGenerationRequest(endpoint, body, options_.rules));
  GenerationRequest& request = prepared.request;
  BATON_RETURN_IF_ERROR(CheckModel(request.model));
  if (endpoint == Endpoint::kCompletions && !request.max_tokens) {
    request.max_tokens = std::max(options_.completions_max_tokens, request.sampling.min_tokens);
  }
  BATON_ASSIGN_OR_RETURN(prepared.prompts, encoder_.EncodePrompts(request));
  if (!request.seed) request.seed = RandomBits();
  prepared.model = request.model.empty() ? options_.model_names.front() : request.model;
  prepared.max_model_len = encoder_.max_model_len();
  return prepared;
}

void CompletionService::HandleShort(HttpRequest request, Reply reply,
                                    absl::StatusOr<std::string> (CompletionService::*answer)(const std::string&)
                                        const) {
  auto ticket = Admission::Enter(admission_);
  if (!ticket.ok()) return reply.SendError(ticket.status());
  const size_t bytes = request.body.size();
  std::shared_ptr<Admission::Ticket> held = *std::move(ticket);
  RunSoon(bytes, [this, reply = std::move(reply), body = std::move(request.body), answer, held] {
    const auto json = (this->*answer)(body);
    json.ok() ? reply.SendJson(*json) : reply.SendError(json.status());
  });
}

void CompletionService::HandleTokenize(HttpRequest request, Reply reply) {
  HandleShort(std::move(request), std::move(reply), &CompletionService::Tokenize);
}

void CompletionService::HandleDetokenize(HttpRequest request, Reply reply) {
  HandleShort(std::move(request), std::move(reply), &CompletionService::Detokenize);
}

absl::StatusOr<std::string> CompletionService::Tokenize(const std::string& body) const {
  BATON_ASSIGN_OR_RETURN(const TokenizeRequest request, ParseTokenizeRequest(body, options_.rules));
  BATON_RETURN_IF_ERROR(CheckModel(request.model));
  std::string text = request.prompt;
  if (request.is_chat) {
    BATON_ASSIGN_OR_RETURN(text, encoder_.formatter().Render(request.conversation));
  }
  BATON_ASSIGN_OR_RETURN(const std::vector<TokenId> tokens,
                         services_->tokenizer->Encode(text, {.add_special_tokens = request.add_special_tokens}));
  std::string out = Cat("{\"count\":", tokens.size(), ",\"max_model_len\":", encoder_.max_model_len(), ",\"tokens\":");
  AppendJsonTokens(out, tokens);
  out += "}";
  return out;
}

absl::StatusOr<std::string> CompletionService::Detokenize(const std::string& body) const {
  BATON_ASSIGN_OR_RETURN(const DetokenizeRequest request, ParseDetokenizeRequest(body, options_.rules));
  BATON_RETURN_IF_ERROR(CheckModel(request.model));
  std::string out = "{\"prompt\":";
  AppendJsonString(out, services_->tokenizer->Decode(request.tokens, /*skip_special_tokens=*/false));
  out += "}";
  return out;
}

}  // namespace baton
