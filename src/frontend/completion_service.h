// Answers /v1/chat/completions, /v1/completions, /tokenize and /detokenize.
//
// Threading: Handle… on network threads; what is long (parsing and tokenizing large bodies) goes to a few workers.
// Ownership: the options' pointers must outlive the service and every call that it started.
// Errors: answered; see frontend/api_error.h. Limits: CompletionOptions::admission, and RequestRules.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "frontend/admission.h"
#include "frontend/completion_call.h"
#include "frontend/openai_request.h"
#include "frontend/prompt_encoder.h"
#include "frontend/reply.h"
#include "frontend/worker_pool.h"

namespace baton {

struct CompletionOptions {
  std::vector<std::string> model_names;  // the first is how answers name it
  RequestRules rules;
  AdmissionLimits admission;
  int worker_threads = 2;
  size_t inline_body_bytes = 4096;      // smaller requests are prepared on the network thread
  int64_t timeout_ms = 0;               // of requests that name none; 0: none
  int32_t completions_max_tokens = 16;  // of completions that name none
};

class CompletionService {
 public:
  CompletionService(CompletionOptions options, CallServices services, ChatFormatter formatter, int64_t max_model_len);

  void HandleCompletions(Endpoint endpoint, HttpRequest request, Reply reply);
  void HandleTokenize(HttpRequest request, Reply reply);
  void HandleDetokenize(HttpRequest request, Reply reply);
  const Admission& admission() const { return *admission_; }

 private:
  void RunSoon(size_t body_bytes, std::function<void()> task);
  absl::Status CheckModel(const std::string& model) const;
  absl::StatusOr<PreparedRequest> Prepare(Endpoint endpoint, const std::string& body) const;
  absl::StatusOr<std::string> Tokenize(const std::string& body) const;
  absl::StatusOr<std::string> Detokenize(const std::string& body) const;
  void HandleShort(HttpRequest request, Reply reply,
                   absl::StatusOr<std::string> (CompletionService::*answer)(const std::string&) const);

  const CompletionOptions options_;
  const std::shared_ptr<const CallServices> services_;
  const PromptEncoder encoder_;
  const std::shared_ptr<Admission> admission_;
  WorkerPool workers_;  // last: its threads stop first
};

}  // namespace baton
