// The HTTP front end: OpenAI's API and the operator's routes on one server.
//
//   BATON_ASSIGN_OR_RETURN(auto frontend, Frontend::Start(options, generator, tokenizer, formatter, registry));
//   … frontend->Stop(std::chrono::seconds(10));
//
// Threading: Start, Stop and the destructor on one thread; the rest on any. The providers in the options are called on
//   network threads and must be quick.
// Ownership: generator, tokenizer and registry must outlive it; the generator may still call sinks after Stop.
// Errors: a port that cannot be listened on; everything else is answered to clients.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/metrics.h"
#include "base/status.h"
#include "core/generator.h"
#include "frontend/admission.h"
#include "frontend/chat_formatter.h"
#include "frontend/openai_request.h"
#include "frontend/reasoning.h"
#include "http/server.h"
#include "text/tokenizer.h"

namespace baton {

struct FrontendOptions {
  HttpServerOptions http;
  std::vector<std::string> model_names;  // at least one; the first is the model's id, the others are aliases
  std::string model_root;                // where the model came from, for /v1/models
  int64_t max_model_len = 0;             // tokens
  SamplingDefaults defaults;
  std::vector<std::string> api_keys;  // none: any client may come
  AdmissionLimits admission;
  ReasoningParser reasoning = ReasoningParser::kOff;
  int worker_threads = 2;                        // for large prompts
  size_t inline_body_bytes = 4096;               // smaller requests are prepared on the network thread
  int64_t timeout_ms = 0;                        // of requests that name none; 0: none
  std::chrono::milliseconds stream_start{5000};  // a stream starts at its first token, at the latest after this
  std::string version = "0.1.0";

  // What the composition root knows. Empty functions: the route answers with an empty list, or 404.
  // GET /cluster; the dashboard shows what it finds of {"workers":[{"id","name","role","state","device","running",
  // "waiting","kv_usage","tokens_per_s"}],"paths":[{"from","to","transport","gb_per_s","floor_gb_per_s","bytes"}]}.
  std::function<std::string()> cluster_json;
  std::function<std::string()> decisions_json;  // GET /cluster/decisions
  std::function<absl::Status()> reset_prefix_cache;
  std::function<std::string(const std::string& request)> explain_route;  // JSON, for x-baton-explain; Request::id
  std::function<void()> refresh_metrics;                                 // before GET /metrics
};

class Frontend {
 public:
  virtual ~Frontend() = default;
  static absl::StatusOr<std::unique_ptr<Frontend>> Start(FrontendOptions options, Generator& generator,
                                                         const Tokenizer& tokenizer, ChatFormatter formatter,
                                                         MetricRegistry& registry);
  virtual int port() const = 0;
  // New work is refused with 503 and /health says so; what is under way goes on.
  virtual void Drain() = 0;
  // Drains, waits for what is under way, at most `deadline`, then cancels the rest and closes.
  virtual void Stop(std::chrono::milliseconds deadline) = 0;
};

}  // namespace baton
