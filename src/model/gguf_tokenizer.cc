#include "model/gguf_tokenizer.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace baton {
namespace {

// llama.cpp's types of tokens.
constexpr int64_t kControl = 3;
constexpr int64_t kUserDefined = 4;

absl::Status ReadMerges(const GgufFile& file, TokenizerData& data) {
  BATON_ASSIGN_OR_RETURN(const GgufArray* merges, file.Strings("tokenizer.ggml.merges"));
  data.merges.reserve(merges->strings.size());
  for (const std::string_view merge : merges->strings) {
    const size_t space = merge.find(' ', 1);  // neither side is empty, and no token of the byte alphabet has a space
    if (space == std::string_view::npos || space + 1 == merge.size()) {
      return InvalidArgument("GGUF key 'tokenizer.ggml.merges': expected two tokens with a space between, found '",
                             merge, "'");
    }
    data.merges.emplace_back(merge.substr(0, space), merge.substr(space + 1));
  }
  return absl::OkStatus();
}

absl::Status ReadAddedTokens(const GgufFile& file, TokenizerData& data) {
  if (file.Find("tokenizer.ggml.token_type") == nullptr) return absl::OkStatus();
  BATON_ASSIGN_OR_RETURN(const std::vector<int64_t> types, file.Integers("tokenizer.ggml.token_type"));
  if (types.size() != data.tokens.size()) {
    return InvalidArgument("GGUF key 'tokenizer.ggml.token_type': expected ", data.tokens.size(), " types, found ",
                           types.size());
  }
  for (size_t id = 0; id < types.size(); ++id) {
    if (types[id] != kControl && types[id] != kUserDefined) continue;
    data.added_tokens.push_back(
        {.id = static_cast<TokenId>(id), .content = data.tokens[id], .special = types[id] == kControl});
  }
  return absl::OkStatus();
}

// The id under `key`, or -1 when there is none.
absl::StatusOr<TokenId> ReadTokenId(const GgufFile& file, std::string_view key, const TokenizerData& data) {
  if (file.Find(key) == nullptr) return -1;
  BATON_ASSIGN_OR_RETURN(const int64_t id, file.Integer(key));
  if (id == 0xffffffff || id == -1) return -1;  // how converters write "none"
  if (id < 0 || id >= static_cast<int64_t>(data.tokens.size())) {
    return InvalidArgument("GGUF key '", key, "': token ", id, " is not among the ", data.tokens.size(), " tokens");
  }
  return static_cast<TokenId>(id);
}

void AddEos(TokenId id, TokenizerData& data) {
  if (id >= 0 && std::find(data.eos.begin(), data.eos.end(), id) == data.eos.end()) data.eos.push_back(id);
}

absl::Status ReadSpecialTokens(const GgufFile& file, TokenizerData& data) {
  const auto text = [&](TokenId id) { return id < 0 ? std::string() : data.tokens[id]; };
  BATON_ASSIGN_OR_RETURN(data.bos, ReadTokenId(file, "tokenizer.ggml.bos_token_id", data));
  BATON_ASSIGN_OR_RETURN(const TokenId eos, ReadTokenId(file, "tokenizer.ggml.eos_token_id", data));
  BATON_ASSIGN_OR_RETURN(const TokenId eot, ReadTokenId(file, "tokenizer.ggml.eot_token_id", data));
  BATON_ASSIGN_OR_RETURN(const TokenId eom, ReadTokenId(file, "tokenizer.ggml.eom_token_id", data));
  BATON_ASSIGN_OR_RETURN(const TokenId unknown, ReadTokenId(file, "tokenizer.ggml.unknown_token_id", data));
  BATON_ASSIGN_OR_RETURN(const TokenId padding, ReadTokenId(file, "tokenizer.ggml.padding_token_id", data));
  for (const TokenId id : {eos, eot, eom}) AddEos(id, data);
  // Files from before there were keys for the end of a turn name it only by its token.
  for (const AddedToken& token : data.added_tokens) {
    if (token.content == "<|eot_id|>" || token.content == "<|eom_id|>" || token.content == "<|im_end|>") {
      AddEos(token.id, data);
    }
  }
  data.bos_token = text(data.bos);
  data.eos_token = text(eos);
  data.unk_token = text(unknown);
  data.pad_token = text(padding);
  return absl::OkStatus();
}

absl::Status ReadAddBos(const GgufFile& file, TokenizerData& data) {
  // Llama 3 files from before the key was written mean true.
  const std::string& preset = data.pre_tokenizer_preset;
  data.add_bos = preset == "llama3" || preset == "llama-v3" || preset == "llama-bpe";
  if (const GgufValue* value = file.Find("tokenizer.ggml.add_bos_token")) {
    const bool* add = std::get_if<bool>(value);
    if (add == nullptr) return InvalidArgument("GGUF key 'tokenizer.ggml.add_bos_token': expected true or false");
    data.add_bos = *add;
  }
  data.add_bos = data.add_bos && data.bos >= 0;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::optional<TokenizerData>> ReadGgufTokenizer(const GgufFile& file, int32_t vocabulary) {
  if (file.Find("tokenizer.ggml.model") == nullptr) return std::nullopt;
  BATON_ASSIGN_OR_RETURN(const std::string_view model, file.String("tokenizer.ggml.model"));
  if (model == "no_vocab" || model == "none") return std::nullopt;
  if (model != "gpt2") {
    return Unimplemented("GGUF key 'tokenizer.ggml.model': '", model,
                         "' is not supported; supported is gpt2, which is byte-level BPE");
  }
  TokenizerData data;
  BATON_ASSIGN_OR_RETURN(const GgufArray* tokens, file.Strings("tokenizer.ggml.tokens"));
  if (tokens->count == 0 || tokens->count > vocabulary) {
    return InvalidArgument("GGUF key 'tokenizer.ggml.tokens': expected 1 to ", vocabulary, " tokens, found ",
                           tokens->count);
  }
  data.tokens.assign(tokens->strings.begin(), tokens->strings.end());
  BATON_RETURN_IF_ERROR(ReadMerges(file, data));
  BATON_RETURN_IF_ERROR(ReadAddedTokens(file, data));
  BATON_RETURN_IF_ERROR(ReadSpecialTokens(file, data));
  data.pre_tokenizer_preset = "default";
  if (file.Find("tokenizer.ggml.pre") != nullptr) {
    BATON_ASSIGN_OR_RETURN(const std::string_view preset, file.String("tokenizer.ggml.pre"));
    data.pre_tokenizer_preset = preset;
  }
  BATON_RETURN_IF_ERROR(ReadAddBos(file, data));
  if (file.Find("tokenizer.chat_template") != nullptr) {
    BATON_ASSIGN_OR_RETURN(const std::string_view chat_template, file.String("tokenizer.chat_template"));
    data.chat_template = chat_template;
  }
  return data;
}

}  // namespace baton
