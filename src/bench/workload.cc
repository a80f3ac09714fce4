#include "bench/workload.h"

#include <cmath>
#include <iterator>
#include <sstream>
#include <unordered_set>

#include "core/random.h"

namespace baton {
namespace {

constexpr uint64_t kSharedPrefix = 0;  // choice 0 of the keyed draws; request i is choice i + 2
constexpr uint64_t kArrivals = 1;

int32_t DrawToken(const Workload& workload, std::span<const int32_t> pool, uint64_t stream, int32_t position) {
  const double uniform = KeyedUniform(workload.seed, stream, static_cast<uint64_t>(position));
  return pool[static_cast<size_t>(uniform * static_cast<double>(pool.size()))];
}

}  // namespace

absl::Status CheckWorkload(const Workload& workload) {
  if (workload.shared_prefix_tokens > workload.input_tokens) {
    return InvalidArgument("--shared-prefix-tokens: expected at most --input-tokens, ", workload.input_tokens,
                           ", found ", workload.shared_prefix_tokens);
  }
  if (workload.input_tokens < 1 || workload.output_tokens < 1 || workload.requests < 1 || workload.warmup < 0 ||
      workload.concurrency < 1 || workload.shared_prefix_tokens < 0 || workload.requests_per_second < 0) {
    return InvalidArgument("a benchmark needs at least one request of one token in and one token out");
  }
  return absl::OkStatus();
}

std::vector<int32_t> PromptTokens(const Workload& workload, std::span<const int32_t> pool, int64_t index) {
  std::vector<int32_t> tokens(static_cast<size_t>(workload.input_tokens));
  for (int32_t position = 0; position < workload.input_tokens; ++position) {
    const bool shared = position < workload.shared_prefix_tokens;
    const uint64_t stream = shared ? kSharedPrefix : static_cast<uint64_t>(index) + 2;
    tokens[static_cast<size_t>(position)] = DrawToken(workload, pool, stream, position);
  }
  return tokens;
}

namespace {

std::string BodyWithPrompt(const Workload& workload, std::string_view model, std::string_view prompt) {
  std::string out = "{\"model\":\"";
  for (const char c : model) {
    if (c == '"' || c == '\\') out.push_back('\\');
    out.push_back(c);
  }
  out.append("\",\"prompt\":").append(prompt);
  out += Cat(",\"max_tokens\":", workload.output_tokens, ",\"min_tokens\":", workload.output_tokens,
             ",\"ignore_eos\":true,\"temperature\":0,\"skip_special_tokens\":false,\"stream\":true,"
             "\"stream_options\":{\"include_usage\":true}}");
  return out;
}

}  // namespace

std::string CompletionBody(const Workload& workload, std::string_view model, std::span<const int32_t> prompt) {
  std::string list = "[";
  for (size_t i = 0; i < prompt.size(); ++i) list += Cat(i == 0 ? "" : ",", prompt[i]);
  return BodyWithPrompt(workload, model, list + "]");
}

std::string CompletionBody(const Workload& workload, std::string_view model, std::string_view text) {
  return BodyWithPrompt(workload, model, Cat("\"", text, "\""));
}

std::string PromptText(std::span<const int32_t> draws) {
  static const std::vector<std::string> words = [] {
    std::istringstream text(VocabularyProbeText());
    return std::vector<std::string>(std::istream_iterator<std::string>(text), {});
  }();
  std::string out;
  for (const int32_t draw : draws) out.append(" ").append(words[static_cast<uint32_t>(draw) % words.size()]);
  return out;
}

std::vector<double> ArrivalSeconds(const Workload& workload) {
  std::vector<double> seconds;
  if (workload.requests_per_second <= 0) return seconds;
  double now = 0;
  for (int32_t i = 0; i < workload.requests; ++i) {
    seconds.push_back(now);  // the first one at once
    now +=
        -std::log1p(-KeyedUniform(workload.seed, kArrivals, static_cast<uint64_t>(i))) / workload.requests_per_second;
  }
  return seconds;
}

std::string VocabularyProbeText() {
  std::string text =
      "the of and to in is that for it was on are as with his they be at one have this from or had by hot word but "
      "what "
      "some we can out other were all there when up use your how said an each she which do their time if will way "
      "about "
      "many then them write would like so these her long make thing see him two has look more day could go come did "
      "number sound no most people my over know water than call first who may down side been now find any new work "
      "part "
      "take get place made live where after back little only round man year came show every good me give our under "
      "name "
      "very through just form sentence great think say help low line differ turn cause much mean before move right boy "
      "old too same tell does set three want air well also play small end put home read hand port large spell add even "
      "land here must big high such follow act why ask men change went light kind off need house picture try us again "
      "animal point mother world near build self earth father head stand own page should country found answer school "
      "grow study still learn plant cover food sun four between state keep eye never last let thought city tree cross "
      "farm hard start might story saw far sea draw left late run while press close night real life few north open "
      "seem "
      "together next white children begin got walk example ease paper group always music those both mark often letter "
      "until mile river car feet care second book carry took science eat room friend began idea fish mountain stop "
      "once "
      "base hear horse cut sure watch color face wood main enough plain girl usual young ready above ever red list "
      "though "
      "feel talk bird soon body dog family direct pose leave song measure door product black short numeral class wind "
      "question happen complete ship area half rock order fire south problem piece told knew pass since top whole king "
      "space heard best hour better true during hundred five remember step early hold west ground interest reach fast "
      "verb sing listen six table travel less morning ten simple several vowel toward war lay against pattern slow "
      "center "
      "love person money serve appear road map rain rule govern pull cold notice voice unit power town fine certain "
      "fly "
      "fall lead cry dark machine note wait plan figure star box noun field rest correct able pound done beauty drive "
      "stood contain front teach week final gave green quick develop ocean warm free minute strong special mind behind "
      "clear tail produce fact street inch multiply nothing course stay wheel full force blue object decide surface "
      "deep "
      "moon island foot system busy test record boat common gold possible plane stead dry wonder laugh thousand ago "
      "ran "
      "check game shape equate miss brought heat snow tire bring yes distant fill east paint language among";
  constexpr std::string_view kConsonants = "bcdfghjklmnprstvwz";
  constexpr std::string_view kVowels = "aeiou";
  for (const char consonant : kConsonants) {
    for (const char vowel : kVowels) text += {' ', consonant, vowel, ' ', vowel, consonant};
  }
  return text;
}

std::vector<int32_t> DistinctTokens(std::span<const int32_t> tokens) {
  std::vector<int32_t> distinct;
  std::unordered_set<int32_t> seen;
  for (const int32_t token : tokens) {
    if (seen.insert(token).second) distinct.push_back(token);
  }
  return distinct;
}

}  // namespace baton
