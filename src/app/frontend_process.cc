#include <csignal>
#include <fstream>
#include <memory>
#include <sstream>

#include "app/child_link.h"
#include "app/cluster_json.h"
#include "app/model_text.h"
#include "app/processes.h"
#include "app/version.h"
#include "base/crash_handler.h"
#include "base/log.h"
#include "frontend/frontend.h"
#include "router/router.h"
#include "supervisor/supervisor.h"
#include "text/tokenizer.h"

namespace baton {
namespace {

// --chat-template replaces the model's own.
absl::Status ReplaceTemplate(const std::string& path, TokenizerData& data) {
  if (path.empty()) return absl::OkStatus();
  std::ifstream file(path);
  std::ostringstream content;
  if (!(content << file.rdbuf())) return InvalidArgument("cannot read the chat template ", path);
  data.chat_template = content.str();
  return absl::OkStatus();
}

FrontendOptions OptionsFor(const FrontendFlags& flags, const ModelText& text, const std::string& path, Router& router) {
  FrontendOptions options;
  options.http.host = flags.host;
  options.http.port = flags.port;
  options.model_names = {flags.served_model_name.empty() ? text.name : flags.served_model_name};
  options.model_root = path.empty() ? text.name : path;
  options.max_model_len = text.max_model_len;
  options.defaults = {.temperature = text.temperature.value_or(1.0f),
                      .top_p = text.top_p.value_or(1.0f),
                      .top_k = text.top_k.value_or(0),
                      .min_p = text.min_p.value_or(0.0f),
                      .repetition_penalty = text.repetition_penalty.value_or(1.0f)};
  options.api_keys = flags.api_keys;
  options.admission.requests_max = flags.max_in_flight;
  if (flags.max_queued_tokens > 0) options.admission.waiting_prompt_tokens_max = flags.max_queued_tokens;
  if (flags.reasoning_parser == "think") options.reasoning = ReasoningParser::kTagged;
  if (flags.reasoning_parser == "deepseek_r1") options.reasoning = ReasoningParser::kFromStart;
  options.timeout_ms = flags.request_timeout_ms;
  options.cluster_json = [&router] { return ClusterJson(router.Workers()); };
  options.decisions_json = [&router] { return DecisionsJson(router.Decisions()); };
  options.explain_route = [&router](const std::string& request) { return DecisionJson(router.Decisions(), request); };
  options.reset_prefix_cache = [&router] {
    router.ResetPrefixCaches();
    return absl::OkStatus();
  };
  return options;
}

absl::Status Serve(const FrontendProcessFlags& flags) {
  BATON_ASSIGN_OR_RETURN(ModelText text, ReadModelText(flags.engine));
  BATON_RETURN_IF_ERROR(ReplaceTemplate(flags.frontend.chat_template, text.tokenizer));
  BATON_ASSIGN_OR_RETURN(const Tokenizer tokenizer, Tokenizer::Create(text.tokenizer));
  BATON_ASSIGN_OR_RETURN(ChatFormatter formatter, ChatFormatter::Create(text.tokenizer));
  BATON_ASSIGN_OR_RETURN(auto network, Network::Create());
  MetricRegistry registry;
  Mutex mutex;
  CondVar changed;
  bool draining = false;
  std::unique_ptr<ChildLink> link;  // after the router, which reports by it
  const auto report_lost = [&](const proto::WorkerLost& lost) {
    MutexLock lock(mutex);
    if (link != nullptr) link->ReportLost(lost);
  };
  Router router(*network, registry,
                {.model_name = flags.frontend.served_model_name.empty() ? text.name : flags.frontend.served_model_name,
                 .max_local_prefill_tokens = flags.frontend.max_local_prefill,
                 .targets = flags.engine.targets,
                 .hash_secret = DeploymentSecret(),
                 .report_lost = report_lost});
  FrontendOptions options = OptionsFor(flags.frontend, text, flags.engine.model, router);
  BATON_ASSIGN_OR_RETURN(auto frontend,
                         Frontend::Start(std::move(options), router, tokenizer, std::move(formatter), registry));
  ChildLinkEvents events{.on_members = [&](const proto::Members& members) { router.OnMembers(members); },
                         .on_drain =
                             [&] {
                               MutexLock lock(mutex);
                               draining = true;
                               changed.Signal();
                             }};
  BATON_ASSIGN_OR_RETURN(auto created, ChildLink::Create(*network, flags.child, 0, std::move(events)));
  {
    MutexLock lock(mutex);
    link = std::move(created);
  }
  link->Report("ready", 1, Cat("http://", flags.frontend.host, ":", frontend->port()));
  {
    MutexLock lock(mutex);
    while (!draining) changed.Wait(mutex);
  }
  frontend->Drain();
  frontend->Stop(std::chrono::milliseconds(flags.frontend.drain_timeout_ms));
  router.Disconnect();
  network.reset();
  return absl::OkStatus();
}

}  // namespace

int RunFrontend(const FrontendProcessFlags& flags) {
  std::signal(SIGPIPE, SIG_IGN);
  ConfigureLogging("frontend", flags.common.log_format == "json" ? LogFormat::kJson : LogFormat::kText,
                   flags.common.verbose ? LogLevel::kDebug : LogLevel::kInfo);
  InstallCrashHandler("frontend", flags.common.log_format == "json" ? LogFormat::kJson : LogFormat::kText);
  const absl::Status status = Serve(flags);
  if (status.ok()) return 0;
  LogError(Message(status));
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) ? 1 : kExitConfiguration;
}

}  // namespace baton
