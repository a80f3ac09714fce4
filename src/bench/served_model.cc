#include "bench/served_model.h"

#include <boost/json.hpp>
#include <numeric>

#include "bench/completion_stream.h"
#include "bench/workload.h"

namespace baton {
namespace {

namespace json = boost::json;

constexpr int64_t kTimeoutMs = 10'000;
constexpr size_t kTokensMin = 16;
constexpr int32_t kFallbackFirst = 1000, kFallbackCount = 4000;

// "tokens" of a /tokenize answer; empty when it is something else.
std::vector<int32_t> TokensOf(const std::string& body) {
  std::vector<int32_t> tokens;
  boost::system::error_code code;
  const json::value value = json::parse(body, code);
  const json::object* object = code ? nullptr : value.if_object();
  const json::value* list = object == nullptr ? nullptr : object->if_contains("tokens");
  if (list == nullptr || !list->is_array()) return tokens;
  for (const json::value& token : list->get_array()) {
    if (const int64_t* id = token.if_int64(); id != nullptr && *id >= 0 && *id <= INT32_MAX) {
      tokens.push_back(static_cast<int32_t>(*id));
    }
  }
  return tokens;
}

}  // namespace

absl::StatusOr<std::string> FirstServedModel(const HttpTarget& target) {
  BATON_ASSIGN_OR_RETURN(const HttpAnswer answer, Exchange(target, "GET", "/v1/models", "", kTimeoutMs));
  if (answer.status != 200) return Unavailable("/v1/models: HTTP ", answer.status, ": ", ErrorMessage(answer.body));
  boost::system::error_code code;
  const json::value value = json::parse(answer.body, code);
  const json::value* name = code ? nullptr : value.find_pointer("/data/0/id", code);
  if (name == nullptr || !name->is_string()) {
    return DataLoss("/v1/models: expected a list of models, found '", answer.body.substr(0, 100), "'");
  }
  return std::string(name->get_string());
}

absl::StatusOr<TokenPool> FindTokenPool(const HttpTarget& target, const std::string& model) {
  const std::string body =
      json::serialize(json::object{{"model", model}, {"prompt", VocabularyProbeText()}, {"add_special_tokens", false}});
  BATON_ASSIGN_OR_RETURN(const HttpAnswer answer, Exchange(target, "POST", "/tokenize", body, kTimeoutMs));
  TokenPool pool{.tokens = DistinctTokens(TokensOf(answer.body)), .source = "/tokenize"};
  if (answer.status == 200 && pool.tokens.size() >= kTokensMin) return pool;
  pool.tokens.resize(kFallbackCount);
  std::iota(pool.tokens.begin(), pool.tokens.end(), kFallbackFirst);
  pool.source = Cat("ids ", kFallbackFirst, " to ", kFallbackFirst + kFallbackCount - 1);
  return pool;
}

bool ResetPrefixCache(const HttpTarget& target) {
  const absl::StatusOr<HttpAnswer> answer = Exchange(target, "POST", "/reset_prefix_cache", "", kTimeoutMs);
  return answer.ok() && answer->status == 200;
}

std::string BodyOf(const HttpTarget& target, std::string_view path) {
  const absl::StatusOr<HttpAnswer> answer = Exchange(target, "GET", path, "", kTimeoutMs);
  return answer.ok() && answer->status == 200 ? answer->body : "";
}

}  // namespace baton
