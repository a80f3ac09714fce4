#include "frontend/frontend.h"

#include <atomic>
#include <ctime>
#include <utility>

#include "frontend/completion_service.h"
#include "frontend/dashboard.h"
#include "frontend/json_text.h"
#include "frontend/reply.h"

namespace baton {
namespace {

// Takes the same time whichever bytes differ.
bool EqualSecrets(std::string_view a, std::string_view b) {
  unsigned difference = a.size() != b.size();
  for (size_t i = 0; i < a.size(); ++i) {
    difference |= static_cast<unsigned char>(a[i]) ^ static_cast<unsigned char>(i < b.size() ? b[i] : 0);
  }
  return difference == 0;
}

CompletionOptions ToCompletionOptions(const FrontendOptions& options, const Tokenizer& tokenizer) {
  CompletionOptions out;
  out.model_names = options.model_names;
  out.rules.vocabulary = tokenizer.vocabulary_size();
  out.rules.defaults = options.defaults;
  out.admission = options.admission;
  out.worker_threads = options.worker_threads;
  out.inline_body_bytes = options.inline_body_bytes;
  out.timeout_ms = options.timeout_ms;
  return out;
}

class HttpFrontend : public Frontend {
 public:
  HttpFrontend(FrontendOptions options, Generator& generator, const Tokenizer& tokenizer, ChatFormatter formatter,
               MetricRegistry& registry)
      : options_(std::move(options)),
        generator_(generator),
        registry_(registry),
        metrics_(registry, {{"engine", "0"}, {"model_name", options_.model_names.front()}}),
        completions_(ToCompletionOptions(options_, tokenizer),
                     CallServices{.generator = &generator,
                                  .tokenizer = &tokenizer,
                                  .metrics = &metrics_,
                                  .reasoning = options_.reasoning,
                                  .explain_route = options_.explain_route,
                                  .stream_start = options_.stream_start},
                     std::move(formatter), options_.max_model_len),
        routes_(MakeRoutes()) {}
  ~HttpFrontend() override { Stop(std::chrono::milliseconds(0)); }

  absl::Status Listen() {
    HttpServerOptions http = options_.http;
    http.error_body = [](const HttpError& error) { return ErrorJson(MakeApiError(error.status, error.message)); };
    BATON_ASSIGN_OR_RETURN(
        server_, StartHttpServer(std::move(http), [this](HttpRequest request, std::shared_ptr<ResponseWriter> writer) {
          Handle(std::move(request), std::move(writer));
        }));
    return absl::OkStatus();
  }

  int port() const override { return server_->port(); }
  void Drain() override {
    draining_.store(true);
    server_->Drain();
  }
  void Stop(std::chrono::milliseconds deadline) override {
    draining_.store(true);
    if (server_) server_->Stop(deadline);
  }

 private:
  struct Route {
    std::string_view method;
    std::string_view path;
    bool needs_key;
    void (HttpFrontend::*handler)(HttpRequest, Reply);
  };
  static std::vector<Route> MakeRoutes() {
    return {
        {"POST", "/v1/chat/completions", true, &HttpFrontend::Chat},
        {"POST", "/v1/completions", true, &HttpFrontend::Completions},
        {"GET", "/v1/models", true, &HttpFrontend::Models},
        {"POST", "/tokenize", true, &HttpFrontend::Tokenize},
        {"POST", "/detokenize", true, &HttpFrontend::Detokenize},
        {"POST", "/reset_prefix_cache", true, &HttpFrontend::ResetPrefixCache},
        {"GET", "/cluster", false, &HttpFrontend::Cluster},
        {"GET", "/cluster/decisions", false, &HttpFrontend::Decisions},
        {"GET", "/health", false, &HttpFrontend::Health},
        {"GET", "/ready", false, &HttpFrontend::Health},
        {"GET", "/live", false, &HttpFrontend::Live},
        {"GET", "/version", false, &HttpFrontend::Version},
        {"GET", "/metrics", false, &HttpFrontend::Metrics},
        {"GET", "/", false, &HttpFrontend::Dashboard},
    };
  }

  void Handle(HttpRequest request, std::shared_ptr<ResponseWriter> writer) {
    Reply reply{std::move(writer), ChooseRequestId(request.Header("x-request-id"))};
    if (request.path.starts_with("/v1/models/")) return ModelByName(std::move(request), std::move(reply));
    std::string allowed;
    for (const Route& route : routes_) {
      if (route.path != request.path) continue;
      const bool matches = route.method == request.method || (route.method == "GET" && request.method == "HEAD");
      if (!matches) {
        allowed = route.method;
        continue;
      }
      if (route.needs_key && !Authorize(request, reply)) return;
      return (this->*route.handler)(std::move(request), std::move(reply));
    }
    if (!allowed.empty()) {
      return reply.SendError(MakeApiError(405, Cat(request.path, " expects ", allowed, ", got ", request.method)));
    }
    reply.SendError(MakeApiError(404, Cat("there is no route ", request.method, " ", request.path)));
  }

  // Also says whose key it is, for fairness: by its place, so that the key itself stays here.
  bool Authorize(const HttpRequest& request, Reply& reply) const {
    if (options_.api_keys.empty()) return true;
    constexpr std::string_view kScheme = "Bearer ";
    const std::string_view header = request.Header("authorization");
    if (header.size() > kScheme.size() && EqualsIgnoreCase(header.substr(0, kScheme.size()), kScheme)) {
      for (size_t i = 0; i < options_.api_keys.size(); ++i) {
        if (!EqualSecrets(header.substr(kScheme.size()), options_.api_keys[i])) continue;
        reply.client = Cat("key ", i);
        return true;
      }
    }
    ApiError error = MakeApiError(401, header.empty() ? "no API key: expected a header 'Authorization: Bearer KEY'"
                                                      : "the API key is not one of this server's");
    error.code = "invalid_api_key";
    reply.SendError(error);
    return false;
  }

  void Chat(HttpRequest request, Reply reply) {
    completions_.HandleCompletions(Endpoint::kChat, std::move(request), std::move(reply));
  }
  void Completions(HttpRequest request, Reply reply) {
    completions_.HandleCompletions(Endpoint::kCompletions, std::move(request), std::move(reply));
  }
  void Tokenize(HttpRequest request, Reply reply) { completions_.HandleTokenize(std::move(request), std::move(reply)); }
  void Detokenize(HttpRequest request, Reply reply) {
    completions_.HandleDetokenize(std::move(request), std::move(reply));
  }

  std::string ModelJson(const std::string& name) const {
    std::string out = "{\"id\":";
    AppendJsonString(out, name);
    out += Cat(",\"object\":\"model\",\"created\":", created_, ",\"owned_by\":\"baton\",\"root\":");
    AppendJsonString(out, options_.model_root.empty() ? options_.model_names.front() : options_.model_root);
    out += Cat(",\"parent\":null,\"max_model_len\":", options_.max_model_len, "}");
    return out;
  }
  void Models(HttpRequest, Reply reply) {
    std::string out = "{\"object\":\"list\",\"data\":[";
    for (size_t i = 0; i < options_.model_names.size(); ++i) {
      out += (i > 0 ? "," : "") + ModelJson(options_.model_names[i]);
    }
    reply.SendJson(out + "]}");
  }
  void ModelByName(HttpRequest request, Reply reply) {
    if (!Authorize(request, reply)) return;
    const std::string name = request.path.substr(std::string_view("/v1/models/").size());
    for (const std::string& known : options_.model_names) {
      if (known == name) return reply.SendJson(ModelJson(name));
    }
    reply.SendError(WithParam(NotFound("the model '", name, "' is not served here"), "model", "model_not_found"));
  }

  void Health(HttpRequest, Reply reply) {
    if (draining_.load()) return reply.SendError(MakeApiError(503, "the server is shutting down"));
    if (const absl::Status health = generator_.Health(); !health.ok()) {
      return reply.SendError(MakeApiError(503, Message(health)));
    }
    reply.Send(200, "", "");
  }
  void Live(HttpRequest, Reply reply) { reply.Send(200, "", ""); }
  void Version(HttpRequest, Reply reply) {
    std::string out = "{\"version\":";
    AppendJsonString(out, options_.version);
    reply.SendJson(out + "}");
  }
  void Metrics(HttpRequest, Reply reply) {
    if (options_.refresh_metrics) options_.refresh_metrics();
    reply.Send(200, "text/plain; version=0.0.4; charset=utf-8", registry_.Render());
  }
  void Cluster(HttpRequest, Reply reply) {
    reply.SendJson(options_.cluster_json ? options_.cluster_json() : "{\"workers\":[]}");
  }
  void Decisions(HttpRequest, Reply reply) {
    reply.SendJson(options_.decisions_json ? options_.decisions_json() : "{\"decisions\":[]}");
  }
  void ResetPrefixCache(HttpRequest, Reply reply) {
    if (!options_.reset_prefix_cache) return reply.SendError(MakeApiError(404, "there is no prefix cache to reset"));
    if (const absl::Status status = options_.reset_prefix_cache(); !status.ok()) return reply.SendError(status);
    reply.Send(200, "", "");
  }
  void Dashboard(HttpRequest, Reply reply) { reply.Send(200, "text/html; charset=utf-8", DashboardHtml()); }

  const FrontendOptions options_;
  Generator& generator_;
  MetricRegistry& registry_;
  FrontendMetrics metrics_;
  CompletionService completions_;
  const std::vector<Route> routes_;
  const int64_t created_ = std::time(nullptr);
  std::atomic<bool> draining_{false};
  std::unique_ptr<HttpServer> server_;  // last: its threads stop first
};

}  // namespace

absl::StatusOr<std::unique_ptr<Frontend>> Frontend::Start(FrontendOptions options, Generator& generator,
                                                          const Tokenizer& tokenizer, ChatFormatter formatter,
                                                          MetricRegistry& registry) {
  if (options.model_names.empty() || options.max_model_len < 1) {
    return InvalidArgument("expected a model name and the length of its context, found ", options.model_names.size(),
                           " names and ", options.max_model_len, " tokens");
  }
  auto frontend =
      std::make_unique<HttpFrontend>(std::move(options), generator, tokenizer, std::move(formatter), registry);
  BATON_RETURN_IF_ERROR(frontend->Listen());
  return frontend;
}

}  // namespace baton
