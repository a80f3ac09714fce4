// Folders: frontend
// The real front end over a fake generator (fake_generator.h), for tests with real clients.
//
//   frontend_oracle TOKENIZER_DIRECTORY {"max_model_len": 2048, "api_key": …, …}
//
// Prints {"port": n} when it listens, and serves until stdin ends or a line comes: "drain", "stop", "sick", "well".
// GET /cluster shows what the generator has seen.
#include <sys/resource.h>

#include <boost/json.hpp>
#include <iostream>

#include "base/log.h"
#include "fake_generator.h"
#include "frontend/frontend.h"
#include "text/tokenizer_json.h"

namespace baton {
namespace {

namespace json = boost::json;

class Settings {
 public:
  explicit Settings(const char* text) : object_(json::parse(text).as_object()) {}
  int64_t Number(const char* name, int64_t fallback) const {
    const json::value* value = object_.if_contains(name);
    return value ? value->as_int64() : fallback;
  }
  std::string Text(const char* name) const {
    const json::value* value = object_.if_contains(name);
    return value ? std::string(value->as_string().c_str()) : "";
  }

 private:
  const json::object object_;
};

FrontendOptions MakeOptions(const Settings& settings, FakeGenerator& generator) {
  using std::chrono::milliseconds;
  FrontendOptions options;
  options.model_names = {"demo", "alias"};
  options.max_model_len = settings.Number("max_model_len", 2048);
  if (!settings.Text("api_key").empty()) options.api_keys = {settings.Text("api_key")};
  options.defaults.temperature = 0;
  options.admission.requests_max = settings.Number("requests_max", 1000);
  options.admission.waiting_prompt_tokens_max = settings.Number("waiting_prompt_tokens_max", 1 << 20);
  if (settings.Text("reasoning") == "tagged") options.reasoning = ReasoningParser::kTagged;
  options.stream_start = milliseconds(settings.Number("stream_start_ms", 5000));
  options.inline_body_bytes = static_cast<size_t>(settings.Number("inline_body_bytes", 4096));
  options.http.body_bytes_max = static_cast<size_t>(settings.Number("body_bytes_max", 8 << 20));
  options.http.header_timeout = milliseconds(settings.Number("header_timeout_ms", 10'000));
  options.http.idle_timeout = milliseconds(settings.Number("idle_timeout_ms", 75'000));
  options.http.comment_interval = milliseconds(settings.Number("comment_interval_ms", 15'000));
  options.reset_prefix_cache = [] { return absl::OkStatus(); };
  options.explain_route = [](const std::string&) { return std::string("{\"chosen\":\"decode-1\"}"); };
  options.cluster_json = [&generator] {
    return Cat("{\"workers\":[{\"id\":1,\"role\":\"hybrid\",\"state\":\"ready\"}],\"paths\":[],\"fake\":{\"started\":",
               generator.started.load(), ",\"cancelled\":", generator.cancelled.load(),
               ",\"active\":", generator.active(), "}}");
  };
  return options;
}

int Main(int argc, char** argv) {
  ConfigureLogging("frontend_oracle", LogFormat::kText, LogLevel::kWarning);
  auto data = ReadTokenizerDirectory(argv[1]);
  if (!data.ok()) {
    std::cerr << data.status() << "\n";
    return 1;
  }
  const Settings settings(argc > 2 ? argv[2] : "{}");
  if (settings.Text("template") == "content only") data->chat_template = "{{ messages[0]['content'] }}";
  const auto tokenizer = Tokenizer::Create(*data);
  const auto formatter = ChatFormatter::Create(*data);
  if (!tokenizer.ok() || !formatter.ok()) {
    std::cerr << tokenizer.status() << " " << formatter.status() << "\n";
    return 1;
  }
  MetricRegistry registry;
  FakeGenerator generator(*tokenizer);
  auto frontend = Frontend::Start(MakeOptions(settings, generator), generator, *tokenizer, *formatter, registry);
  if (!frontend.ok()) {
    std::cerr << frontend.status() << "\n";
    return 1;
  }
  std::cout << "{\"port\":" << (*frontend)->port() << "}" << std::endl;
  std::string line;
  while (std::getline(std::cin, line) && line != "stop") {
    if (line == "drain") (*frontend)->Drain();
    if (line == "sick" || line == "well") generator.healthy = line == "well";
    std::cout << "{}" << std::endl;
  }
  (*frontend)->Stop(std::chrono::milliseconds(settings.Number("stop_ms", 5000)));
  return 0;
}

}  // namespace
}  // namespace baton

int main(int argc, char** argv) { return argc < 2 ? 2 : baton::Main(argc, argv); }
