#include "text/tokenizer_json.h"

#include <algorithm>
#include <boost/json.hpp>
#include <fstream>
#include <optional>

#include "text/json_view.h"
#include "text/pre_tokenizer.h"
#include "text/regex_dialect.h"

namespace baton {
namespace {

constexpr size_t kMaxFileBytes = 256 << 20;
constexpr int64_t kMaxTokens = 4 << 20;
constexpr int64_t kMaxHoles = 64 << 10;  // ids without a token

absl::StatusOr<std::string> ReadFile(const std::filesystem::path& path) {
  std::error_code error;
  const uintmax_t size = std::filesystem::file_size(path, error);
  if (error) return NotFound(path.string(), ": expected a readable file, found: ", error.message());
  if (size > kMaxFileBytes) {
    return InvalidArgument(path.string(), ": expected at most ", kMaxFileBytes, " bytes, found ", size);
  }
  std::ifstream file(path, std::ios::binary);
  std::string text(size, '\0');
  if (!file.read(text.data(), static_cast<std::streamsize>(size))) {
    return NotFound(path.string(), ": expected ", size, " bytes, but reading them failed");
  }
  return text;
}

// Absent, false, zero or an empty string: switched off.
absl::Status ExpectOff(const JsonView& model, std::string_view key) {
  const JsonView field = model[key];
  if (field.absent()) return absl::OkStatus();
  if (field.is_string() && field.String()->empty()) return absl::OkStatus();
  if (const auto off = field.Bool(false); off.ok() && !*off) return absl::OkStatus();
  if (const auto zero = field.Integer(); zero.ok() && *zero == 0) return absl::OkStatus();
  return field.Refuse("null (other values are not supported)");
}

absl::Status StoreToken(const JsonView& where, int64_t id, std::string_view text, TokenizerData& data) {
  if (id < 0 || id >= kMaxTokens || id >= static_cast<int64_t>(data.tokens.size()) + kMaxHoles) {
    return where.Refuse(Cat("ids without large gaps, below ", kMaxTokens));
  }
  if (id >= static_cast<int64_t>(data.tokens.size())) data.tokens.resize(id + 1);
  std::string& token = data.tokens[id];
  if (!token.empty() && token != text) {
    return InvalidArgument(where.path(), ": expected one token for each id, found \"", token, "\" and \"", text,
                           "\" for ", id);
  }
  token = text;
  return absl::OkStatus();
}

absl::Status ReadVocabulary(const JsonView& vocabulary, TokenizerData& data) {
  BATON_ASSIGN_OR_RETURN(const boost::json::object* object, vocabulary.Object());
  data.tokens.resize(object->size());
  for (const auto& entry : *object) {
    const std::string_view text(entry.key().data(), entry.key().size());
    const boost::json::value& id = entry.value();
    if (!id.is_int64()) return vocabulary[text].Refuse("an integer");
    if (!text.empty()) BATON_RETURN_IF_ERROR(StoreToken(vocabulary, id.get_int64(), text, data));
  }
  return absl::OkStatus();
}

// "a b" or ["a", "b"].
absl::StatusOr<std::pair<std::string, std::string>> ReadMerge(const JsonView& merge) {
  constexpr std::string_view kExpected = "two tokens, as \"a b\" or as [\"a\", \"b\"]";
  if (merge.is_array()) {
    BATON_ASSIGN_OR_RETURN(const auto parts, merge.Elements());
    if (parts.size() != 2) return merge.Refuse(kExpected);
    BATON_ASSIGN_OR_RETURN(const std::string_view left, parts[0].String());
    BATON_ASSIGN_OR_RETURN(const std::string_view right, parts[1].String());
    return std::pair<std::string, std::string>(left, right);
  }
  BATON_ASSIGN_OR_RETURN(const std::string_view text, merge.String());
  const size_t space = text.find(' ');
  if (space == text.npos || text.find(' ', space + 1) != text.npos) return merge.Refuse(kExpected);
  return std::pair<std::string, std::string>(text.substr(0, space), text.substr(space + 1));
}

absl::Status ReadModel(const JsonView& model, TokenizerData& data) {
  if (!model["type"].absent()) {
    BATON_ASSIGN_OR_RETURN(const std::string_view type, model["type"].String());
    if (type != "BPE") return model["type"].Refuse("\"BPE\" (other kinds of tokenizers are not supported)");
  }
  for (const std::string_view key : {"dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"}) {
    BATON_RETURN_IF_ERROR(ExpectOff(model, key));
  }
  BATON_ASSIGN_OR_RETURN(data.ignore_merges, model["ignore_merges"].Bool(false));
  BATON_RETURN_IF_ERROR(ReadVocabulary(model["vocab"], data));
  const JsonView merges = model["merges"];
  BATON_ASSIGN_OR_RETURN(const boost::json::array* array, merges.Array());
  data.merges.reserve(array->size());
  for (const boost::json::value& value : *array) {
    BATON_ASSIGN_OR_RETURN(auto merge, ReadMerge(JsonView(&value, Cat(merges.path(), "[", data.merges.size(), "]"))));
    data.merges.push_back(std::move(merge));
  }
  return absl::OkStatus();
}

absl::Status ReadAddedTokens(const JsonView& list, TokenizerData& data) {
  if (list.absent()) return absl::OkStatus();
  BATON_ASSIGN_OR_RETURN(const auto elements, list.Elements());
  for (const JsonView& element : elements) {
    AddedToken token;
    BATON_ASSIGN_OR_RETURN(token.content, element["content"].String());
    BATON_ASSIGN_OR_RETURN(const int64_t id, element["id"].Integer());
    BATON_ASSIGN_OR_RETURN(token.special, element["special"].Bool(false));
    BATON_ASSIGN_OR_RETURN(token.single_word, element["single_word"].Bool(false));
    BATON_ASSIGN_OR_RETURN(token.lstrip, element["lstrip"].Bool(false));
    BATON_ASSIGN_OR_RETURN(token.rstrip, element["rstrip"].Bool(false));
    BATON_ASSIGN_OR_RETURN(token.normalized, element["normalized"].Bool(!token.special));
    if (token.content.empty()) return element["content"].Refuse("text");
    BATON_RETURN_IF_ERROR(StoreToken(element, id, token.content, data));
    token.id = static_cast<TokenId>(id);
    data.added_tokens.push_back(std::move(token));
  }
  return absl::OkStatus();
}

// The type of a step, and the steps of a Sequence.
absl::StatusOr<std::string_view> TypeOf(const JsonView& step) { return step["type"].String(); }

absl::StatusOr<std::vector<JsonView>> Flatten(const JsonView& step, std::string_view list_key) {
  if (step.absent()) return std::vector<JsonView>{};
  BATON_ASSIGN_OR_RETURN(const std::string_view type, TypeOf(step));
  if (type == "Sequence") return step[list_key].Elements();
  return std::vector<JsonView>{step};
}

absl::Status ReadNormalizer(const JsonView& normalizer, TokenizerData& data) {
  BATON_ASSIGN_OR_RETURN(const auto steps, Flatten(normalizer, "normalizers"));
  for (const JsonView& step : steps) {
    BATON_ASSIGN_OR_RETURN(const std::string_view type, TypeOf(step));
    if (type != "NFC") return step.Refuse("NFC or null");
    data.normalize_nfc = true;
  }
  return absl::OkStatus();
}

absl::StatusOr<TokenizerData::Split> ReadSplit(const JsonView& step) {
  BATON_ASSIGN_OR_RETURN(const std::string_view behavior, step["behavior"].String());
  if (behavior != "Isolated") return step["behavior"].Refuse("\"Isolated\"");
  const JsonView pattern = step["pattern"];
  TokenizerData::Split split;
  if (!pattern["Regex"].absent()) {
    BATON_ASSIGN_OR_RETURN(split.pattern, pattern["Regex"].String());
  } else {
    BATON_ASSIGN_OR_RETURN(const std::string_view text, pattern["String"].String());
    split.pattern = LiteralRegex(text);
  }
  return split;
}

absl::Status ReadByteLevel(const JsonView& step, TokenizerData& data) {
  BATON_ASSIGN_OR_RETURN(data.add_prefix_space, step["add_prefix_space"].Bool(true));
  if (data.add_prefix_space && !data.pre_tokenizer.empty()) {
    return step["add_prefix_space"].Refuse("false after other steps");
  }
  BATON_ASSIGN_OR_RETURN(const bool use_regex, step["use_regex"].Bool(true));
  if (use_regex) data.pre_tokenizer.push_back({.pattern = std::string(kGpt2Pattern)});
  return absl::OkStatus();
}

absl::Status ReadPreTokenizer(const JsonView& pre_tokenizer, TokenizerData& data) {
  BATON_ASSIGN_OR_RETURN(const auto steps, Flatten(pre_tokenizer, "pretokenizers"));
  for (size_t i = 0; i < steps.size(); ++i) {
    BATON_ASSIGN_OR_RETURN(const std::string_view type, TypeOf(steps[i]));
    const bool last = i + 1 == steps.size();
    if (type == "ByteLevel" && last) return ReadByteLevel(steps[i], data);
    if (type == "Split" && !last) {
      BATON_ASSIGN_OR_RETURN(auto split, ReadSplit(steps[i]));
      data.pre_tokenizer.push_back(std::move(split));
    } else if (type == "Digits" && !last) {
      BATON_ASSIGN_OR_RETURN(const bool individual, steps[i]["individual_digits"].Bool(false));
      data.pre_tokenizer.push_back({.pattern = individual ? "" : R"(\p{N}+)", .digits_individually = individual});
    } else {
      return steps[i].Refuse("Split and Digits steps and then ByteLevel, as byte-level BPE tokenizers have them");
    }
  }
  return pre_tokenizer.Refuse("ByteLevel (only byte-level BPE is supported)");
}

// One part of TemplateProcessing's "single": the text of a special token, or nothing for the prompt.
absl::StatusOr<std::optional<std::string_view>> ReadTemplatePart(const JsonView& part) {
  if (part["SpecialToken"].absent()) {
    BATON_RETURN_IF_ERROR(part["Sequence"].Object().status());
    return std::nullopt;
  }
  BATON_ASSIGN_OR_RETURN(const std::string_view text, part["SpecialToken"]["id"].String());
  return text;
}

absl::Status ReadTemplate(const JsonView& processor, TokenizerData& data) {
  const JsonView single = processor["single"];
  BATON_ASSIGN_OR_RETURN(const auto parts, single.Elements());
  const absl::Status unsupported = single.Refuse("the prompt, with at most one special token and that before it");
  if (parts.empty() || parts.size() > 2) return unsupported;
  BATON_ASSIGN_OR_RETURN(const auto last, ReadTemplatePart(parts.back()));
  if (last) return unsupported;
  if (parts.size() == 1) return absl::OkStatus();
  BATON_ASSIGN_OR_RETURN(const auto first, ReadTemplatePart(parts[0]));
  if (!first) return unsupported;
  const JsonView ids = processor["special_tokens"][*first]["ids"];
  BATON_ASSIGN_OR_RETURN(const auto elements, ids.Elements());
  if (elements.size() != 1) return ids.Refuse("one id");
  BATON_ASSIGN_OR_RETURN(const int64_t id, elements[0].Integer());
  if (id < 0 || id >= static_cast<int64_t>(data.tokens.size())) return elements[0].Refuse("an id of the vocabulary");
  data.bos = static_cast<TokenId>(id);
  data.add_bos = true;
  data.bos_token = data.tokens[id];
  return absl::OkStatus();
}

absl::Status ReadPostProcessor(const JsonView& post_processor, TokenizerData& data) {
  BATON_ASSIGN_OR_RETURN(const auto steps, Flatten(post_processor, "processors"));
  for (const JsonView& step : steps) {
    BATON_ASSIGN_OR_RETURN(const std::string_view type, TypeOf(step));
    if (type == "ByteLevel") continue;  // changes offsets only
    if (type != "TemplateProcessing") return step.Refuse("ByteLevel or TemplateProcessing");
    BATON_RETURN_IF_ERROR(ReadTemplate(step, data));
  }
  return absl::OkStatus();
}

absl::Status CheckDecoder(const JsonView& decoder) {
  BATON_ASSIGN_OR_RETURN(const auto steps, Flatten(decoder, "decoders"));
  if (steps.size() != 1) return decoder.Refuse("ByteLevel");
  BATON_ASSIGN_OR_RETURN(const std::string_view type, TypeOf(steps[0]));
  return type == "ByteLevel" ? absl::OkStatus() : steps[0].Refuse("ByteLevel");
}

TokenId FindToken(const TokenizerData& data, std::string_view text) {
  const auto found = std::find(data.tokens.begin(), data.tokens.end(), text);
  return text.empty() || found == data.tokens.end() ? -1 : static_cast<TokenId>(found - data.tokens.begin());
}

// "<s>" or {"content": "<s>", …}; absent leaves `text` as it is.
absl::Status ReadTokenText(const JsonView& field, std::string& text) {
  if (field.absent()) return absl::OkStatus();
  BATON_ASSIGN_OR_RETURN(text, (field.is_object() ? field["content"] : field).String());
  return absl::OkStatus();
}

absl::Status ReadChatTemplate(const JsonView& field, TokenizerData& data) {
  if (field.absent()) return absl::OkStatus();
  if (field.is_string()) {
    data.chat_template = *field.String();
    return absl::OkStatus();
  }
  BATON_ASSIGN_OR_RETURN(const auto list, field.Elements());
  for (const JsonView& entry : list) {
    BATON_ASSIGN_OR_RETURN(const std::string_view name, entry["name"].String());
    BATON_ASSIGN_OR_RETURN(const std::string_view text, entry["template"].String());
    if (name == "default" || list.size() == 1) data.chat_template = text;
  }
  return data.chat_template.empty() ? field.Refuse("a template, or a list with one named \"default\"")
                                    : absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenizerData> ParseTokenizerJson(std::string_view json) {
  boost::json::monotonic_resource memory;
  BATON_ASSIGN_OR_RETURN(const boost::json::value document, ParseJson(json, "tokenizer.json", &memory));
  const JsonView root(&document, "tokenizer.json");
  BATON_RETURN_IF_ERROR(root.Object().status());
  TokenizerData data;
  BATON_RETURN_IF_ERROR(ReadModel(root["model"], data));
  BATON_RETURN_IF_ERROR(ReadAddedTokens(root["added_tokens"], data));
  BATON_RETURN_IF_ERROR(ReadNormalizer(root["normalizer"], data));
  BATON_RETURN_IF_ERROR(ReadPreTokenizer(root["pre_tokenizer"], data));
  BATON_RETURN_IF_ERROR(ReadPostProcessor(root["post_processor"], data));
  BATON_RETURN_IF_ERROR(CheckDecoder(root["decoder"]));
  return data;
}

absl::Status ApplyTokenizerConfig(std::string_view json, TokenizerData& data) {
  BATON_ASSIGN_OR_RETURN(const boost::json::value document, ParseJson(json, "tokenizer_config.json", {}));
  const JsonView root(&document, "tokenizer_config.json");
  BATON_RETURN_IF_ERROR(root.Object().status());
  BATON_RETURN_IF_ERROR(ReadTokenText(root["bos_token"], data.bos_token));
  BATON_RETURN_IF_ERROR(ReadTokenText(root["eos_token"], data.eos_token));
  BATON_RETURN_IF_ERROR(ReadTokenText(root["unk_token"], data.unk_token));
  BATON_RETURN_IF_ERROR(ReadTokenText(root["pad_token"], data.pad_token));
  BATON_RETURN_IF_ERROR(ReadChatTemplate(root["chat_template"], data));
  if (const TokenId bos = FindToken(data, data.bos_token); bos >= 0) data.bos = bos;
  if (const TokenId eos = FindToken(data, data.eos_token); eos >= 0) data.eos = {eos};
  BATON_ASSIGN_OR_RETURN(data.add_bos, root["add_bos_token"].Bool(data.add_bos));
  BATON_ASSIGN_OR_RETURN(const bool add_eos, root["add_eos_token"].Bool(false));
  if (add_eos) return root["add_eos_token"].Refuse("false (an end token after every prompt ends the answer)");
  if (data.add_bos && data.bos < 0) return root["bos_token"].Refuse("a token of the vocabulary, for add_bos_token");
  return absl::OkStatus();
}

absl::StatusOr<TokenizerData> ReadTokenizerDirectory(const std::filesystem::path& directory) {
  BATON_ASSIGN_OR_RETURN(const std::string json, ReadFile(directory / "tokenizer.json"));
  BATON_ASSIGN_OR_RETURN(TokenizerData data, ParseTokenizerJson(json));
  if (std::filesystem::exists(directory / "tokenizer_config.json")) {
    BATON_ASSIGN_OR_RETURN(const std::string config, ReadFile(directory / "tokenizer_config.json"));
    BATON_RETURN_IF_ERROR(ApplyTokenizerConfig(config, data));
  }
  if (std::filesystem::exists(directory / "chat_template.jinja")) {
    BATON_ASSIGN_OR_RETURN(data.chat_template, ReadFile(directory / "chat_template.jinja"));
  }
  return data;
}

}  // namespace baton
