// Folders: text
// Tokenizes for Python: one JSON object a line on stdin, one answer a line on stdout. Texts come as hexadecimal bytes.
//
//   {"load": directory}                                  {"vocabulary": n, "bos": id, "add_bos": …, "eos": [id…], …}
//   {"encode": [text…], "add": bool, "parse": bool}      {"tokens": [[id…]…]}
//   {"decode": [[id…]…], "skip": bool}                   {"texts": […]}
//   {"stream": [[id…]…], "skip": bool}                   {"parts": [[text…]…]}: what each Append and Finish returned
//   {"split": pattern, "texts": [text…]}                 {"pieces": [[…]…]}, without the hand-written scanners
//   {"preset": name, "texts": [text…]}                   {"pieces": [[…]…]}, as a tokenizer would
//   {"presets": null}                                    {"NAME": [pattern…]…}, digits as the pattern that they are
//   {"nfc": [text…]}                                     {"texts": […]}
//   {"time": text, "repeat": n}                          {"seconds": the fastest, "tokens": n}
//
// What fails answers {"error": message}.
#include <algorithm>
#include <boost/json.hpp>
#include <chrono>
#include <iostream>
#include <optional>

#include "text/detokenizer.h"
#include "text/nfc.h"
#include "text/pre_tokenizer.h"
#include "text/tokenizer.h"
#include "text/tokenizer_json.h"

namespace baton {
namespace {

namespace json = boost::json;

std::string FromHex(const json::value& value) {
  const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
  const json::string& hex = value.as_string();
  std::string out;
  for (size_t i = 0; i + 1 < hex.size(); i += 2)
    out.push_back(static_cast<char>(digit(hex[i]) << 4 | digit(hex[i + 1])));
  return out;
}

std::vector<TokenId> Ids(const json::value& value) {
  std::vector<TokenId> out;
  for (const json::value& id : value.as_array()) out.push_back(static_cast<TokenId>(id.as_int64()));
  return out;
}

// The answer's list under `key`: what `function` makes of each element of `values`.
template <typename Function>
json::object ForEach(const char* key, const json::value& values, Function function) {
  json::array out;
  for (const json::value& value : values.as_array()) {
    auto result = function(value);
    if (!result.ok()) return {{"error", std::string(result.status().message())}};
    out.push_back(json::value_from(*result));
  }
  return {{key, std::move(out)}};
}

std::optional<Tokenizer> tokenizer;

absl::StatusOr<json::object> Load(const std::string& directory) {
  BATON_ASSIGN_OR_RETURN(const TokenizerData data, ReadTokenizerDirectory(directory));
  BATON_ASSIGN_OR_RETURN(tokenizer, Tokenizer::Create(data));
  return json::object{{"vocabulary", tokenizer->vocabulary_size()},
                      {"bos", tokenizer->bos()},
                      {"add_bos", tokenizer->add_bos()},
                      {"eos", json::value_from(tokenizer->eos())},
                      {"chat_template", data.chat_template},
                      {"bos_token", data.bos_token},
                      {"eos_token", data.eos_token}};
}

absl::StatusOr<json::object> Split(std::span<const TokenizerData::Split> steps, bool scanners,
                                   const json::value& texts) {
  BATON_ASSIGN_OR_RETURN(const PreTokenizer pre_tokenizer, PreTokenizer::Create(steps));
  std::unique_ptr<SplitStep> regex;
  if (!scanners) {
    BATON_ASSIGN_OR_RETURN(regex, CreateRegexStep(steps[0].pattern));
  }
  return ForEach("pieces", texts, [&](const json::value& value) -> absl::StatusOr<std::vector<std::string>> {
    const std::string text = FromHex(value);
    std::vector<std::string_view> pieces;
    BATON_RETURN_IF_ERROR(scanners ? pre_tokenizer.Split(text, pieces) : regex->Split(text, pieces));
    return std::vector<std::string>(pieces.begin(), pieces.end());
  });
}

json::object Presets() {
  json::object out;
  std::string names = PreTokenizerPresetNames() + ", ";
  for (size_t comma; (comma = names.find(", ")) != names.npos; names.erase(0, comma + 2)) {
    const std::string name = names.substr(0, comma);
    const PreTokenizerPreset preset = *FindPreTokenizerPreset(name);
    json::array patterns;
    for (const TokenizerData::Split& step : preset.steps) {
      patterns.emplace_back(step.digits_individually ? "\\p{N}" : step.pattern);
    }
    out[name] = std::move(patterns);
  }
  return out;
}

absl::StatusOr<json::object> Time(const std::string& text, int64_t repeat) {
  double fastest = 1e9;
  size_t count = 0;
  for (int64_t i = 0; i < repeat; ++i) {
    const auto start = std::chrono::steady_clock::now();
    BATON_ASSIGN_OR_RETURN(const auto tokens, tokenizer->Encode(text));
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    fastest = std::min(fastest, taken.count());
    count = tokens.size();
  }
  return json::object{{"seconds", fastest}, {"tokens", count}};
}

absl::StatusOr<json::object> Answer(const json::object& ask) {
  const auto flag = [&](const char* key) { return ask.at(key).as_bool(); };
  if (ask.contains("load")) return Load(std::string(ask.at("load").as_string()));
  if (ask.contains("split")) {
    const TokenizerData::Split step{.pattern = std::string(ask.at("split").as_string())};
    return Split({&step, 1}, false, ask.at("texts"));
  }
  if (ask.contains("preset")) {
    const auto preset = FindPreTokenizerPreset(std::string(ask.at("preset").as_string()));
    if (!preset) return InvalidArgument("no such preset");
    return Split(preset->steps, true, ask.at("texts"));
  }
  if (ask.contains("presets")) return Presets();
  if (ask.contains("nfc")) {
    return ForEach("texts", ask.at("nfc"), [](const json::value& value) -> absl::StatusOr<std::string> {
      return NormalizeNfc(FromHex(value));
    });
  }
  if (!tokenizer) return FailedPrecondition("load a tokenizer first");
  if (ask.contains("time")) return Time(FromHex(ask.at("time")), ask.at("repeat").as_int64());
  if (ask.contains("encode")) {
    return ForEach("tokens", ask.at("encode"), [&](const json::value& value) {
      return tokenizer->Encode(FromHex(value), {.add_special_tokens = flag("add"), .parse_special = flag("parse")});
    });
  }
  if (ask.contains("decode")) {
    return ForEach("texts", ask.at("decode"), [&](const json::value& value) -> absl::StatusOr<std::string> {
      return tokenizer->Decode(Ids(value), flag("skip"));
    });
  }
  return ForEach("parts", ask.at("stream"), [&](const json::value& value) -> absl::StatusOr<std::vector<std::string>> {
    IncrementalDetokenizer detokenizer(*tokenizer, flag("skip"));
    std::vector<std::string> parts;
    for (const TokenId id : Ids(value)) parts.push_back(detokenizer.Append(id));
    parts.push_back(detokenizer.Finish());
    return parts;
  });
}

}  // namespace
}  // namespace baton

int main() {
  std::string line;
  while (std::getline(std::cin, line)) {
    const auto answer = baton::Answer(boost::json::parse(line).as_object());
    if (answer.ok()) {
      std::cout << boost::json::serialize(*answer) << std::endl;
    } else {
      std::cout << boost::json::serialize(boost::json::object{{"error", std::string(answer.status().message())}})
                << std::endl;
    }
  }
}
