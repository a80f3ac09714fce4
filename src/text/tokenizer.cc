#include "text/tokenizer.h"

#include <unordered_map>
#include <utility>

#include "text/added_token_matcher.h"
#include "text/byte_alphabet.h"
#include "text/byte_pair_encoder.h"
#include "text/nfc.h"
#include "text/pre_tokenizer.h"
#include "text/unicode.h"

namespace baton {
namespace {

constexpr size_t kMaxVocabulary = 4 << 20;
constexpr size_t kMaxAddedTokenBytes = 4096;
constexpr size_t kMaxTextBytes = (size_t{1} << 31) - 1;

absl::Status CheckAddedToken(const TokenizerData& data, const AddedToken& token, std::vector<bool>& seen) {
  const auto refuse = [&](const auto&... parts) {
    return InvalidArgument("added token ", token.id, " \"", token.content, "\": ", parts...);
  };
  if (token.id < 0 || static_cast<size_t>(token.id) >= data.tokens.size()) {
    return refuse("expected an id below the vocabulary's ", data.tokens.size());
  }
  if (token.content.empty() || token.content.size() > kMaxAddedTokenBytes || !IsValidUtf8(token.content)) {
    return refuse("expected 1 to ", kMaxAddedTokenBytes, " bytes of UTF-8");
  }
  if (data.tokens[token.id] != token.content) {
    return refuse("expected the same text in the vocabulary, found \"", data.tokens[token.id], "\"");
  }
  if (seen[token.id]) return refuse("expected each id once, found it twice");
  seen[token.id] = true;
  return absl::OkStatus();
}

absl::Status CheckTokens(const TokenizerData& data) {
  if (data.tokens.empty() || data.tokens.size() > kMaxVocabulary) {
    return InvalidArgument("vocabulary: expected 1 to ", kMaxVocabulary, " tokens, found ", data.tokens.size());
  }
  std::unordered_map<std::string_view, size_t> ids;
  ids.reserve(data.tokens.size());
  for (size_t i = 0; i < data.tokens.size(); ++i) {
    if (data.tokens[i].empty()) continue;  // a hole
    const auto [first, inserted] = ids.emplace(data.tokens[i], i);
    if (!inserted) {
      return InvalidArgument("vocabulary: expected different tokens, found \"", data.tokens[i], "\" as ", first->second,
                             " and as ", i);
    }
  }
  std::vector<bool> seen(data.tokens.size());
  for (const AddedToken& token : data.added_tokens) BATON_RETURN_IF_ERROR(CheckAddedToken(data, token, seen));
  return absl::OkStatus();
}

absl::Status CheckIds(const TokenizerData& data) {
  const auto inside = [&](TokenId id) { return id >= 0 && static_cast<size_t>(id) < data.tokens.size(); };
  if (data.bos != -1 && !inside(data.bos)) {
    return InvalidArgument("beginning-of-sequence token: expected an id below ", data.tokens.size(), ", found ",
                           data.bos);
  }
  if (data.add_bos && data.bos == -1) {
    return InvalidArgument("the tokenizer says to add a beginning-of-sequence token, but names none");
  }
  for (const TokenId id : data.eos) {
    if (!inside(id)) {
      return InvalidArgument("end token: expected an id below ", data.tokens.size(), ", found ", id);
    }
  }
  return absl::OkStatus();
}

// The data with its preset, if any, written out.
absl::StatusOr<PreTokenizerPreset> ResolveSteps(const TokenizerData& data) {
  if (data.pre_tokenizer_preset.empty()) {
    return PreTokenizerPreset{data.pre_tokenizer, data.ignore_merges, data.normalize_nfc};
  }
  std::optional<PreTokenizerPreset> preset = FindPreTokenizerPreset(data.pre_tokenizer_preset);
  if (!preset) {
    return InvalidArgument("tokenizer.ggml.pre: expected one of ", PreTokenizerPresetNames(), "; found \"",
                           data.pre_tokenizer_preset, "\"; use the model's Hugging Face directory instead");
  }
  preset->ignore_merges |= data.ignore_merges;
  preset->normalize_nfc |= data.normalize_nfc;
  return *std::move(preset);
}

std::vector<AddedToken> Select(const std::vector<AddedToken>& tokens, bool normalized, bool nfc) {
  // Special tokens first: of two that look the same they count.
  std::vector<AddedToken> out;
  for (const bool special : {true, false}) {
    for (const AddedToken& token : tokens) {
      if (token.special != special || token.normalized != normalized) continue;
      out.push_back(token);
      if (nfc) out.back().content = NormalizeNfc(token.content);
    }
  }
  return out;
}

}  // namespace

struct Tokenizer::Impl {
  Impl(const TokenizerData& data, const PreTokenizerPreset& preset, PreTokenizer pre_tokenizer, BytePairEncoder encoder)
      : normalize_nfc(preset.normalize_nfc),
        add_prefix_space(data.add_prefix_space),
        added(Select(data.added_tokens, false, false)),
        normalized_added(Select(data.added_tokens, true, preset.normalize_nfc)),
        pre_tokenizer(std::move(pre_tokenizer)),
        encoder(std::move(encoder)),
        special(data.tokens.size()),
        bos(data.bos),
        add_bos(data.add_bos),
        eos(data.eos) {
    IndexTokens(data);
  }

  void IndexTokens(const TokenizerData& data) {
    std::vector<bool> is_added(data.tokens.size());
    for (const AddedToken& token : data.added_tokens) {
      is_added[token.id] = true;
      special[token.id] = token.special;
    }
    offsets.reserve(data.tokens.size() + 1);
    offsets.push_back(0);
    for (size_t i = 0; i < data.tokens.size(); ++i) {
      const std::string& token = data.tokens[i];
      bytes.append(is_added[i] ? token : BytesOfAlphabet(token).value_or(token));
      offsets.push_back(bytes.size());
    }
  }

  absl::Status Encode(std::string_view text, bool match_special, std::vector<TokenId>& tokens) const;
  absl::Status EncodeSegment(std::string_view text, bool match_special, std::vector<TokenId>& tokens) const;
  absl::Status EncodePlain(std::string_view text, std::vector<TokenId>& tokens) const;

  bool normalize_nfc, add_prefix_space;
  AddedTokenMatcher added, normalized_added;
  PreTokenizer pre_tokenizer;
  BytePairEncoder encoder;
  std::string bytes;            // of all tokens, one after the other
  std::vector<size_t> offsets;  // [vocabulary + 1] into bytes
  std::vector<bool> special;    // [vocabulary]
  TokenId bos;
  bool add_bos;
  std::vector<TokenId> eos;
};

// The order is the reference's: added tokens in the raw text, then normalization of what is between them, then added
// tokens that ask for normalized text, then the pre-tokenizer.
absl::Status Tokenizer::Impl::Encode(std::string_view text, bool match_special, std::vector<TokenId>& tokens) const {
  std::vector<AddedTokenMatcher::Segment> segments;
  added.Split(text, match_special, segments);
  for (const auto& segment : segments) {
    if (segment.token >= 0) {
      tokens.push_back(segment.token);
    } else {
      BATON_RETURN_IF_ERROR(EncodeSegment(segment.text, match_special, tokens));
    }
  }
  return absl::OkStatus();
}

absl::Status Tokenizer::Impl::EncodeSegment(std::string_view text, bool match_special,
                                            std::vector<TokenId>& tokens) const {
  std::string normalized;
  if (normalize_nfc && !IsQuicklyNfc(text)) {
    normalized = NormalizeNfc(text);
    text = normalized;
  }
  if (normalized_added.empty()) return EncodePlain(text, tokens);
  std::vector<AddedTokenMatcher::Segment> segments;
  normalized_added.Split(text, match_special, segments);
  for (const auto& segment : segments) {
    if (segment.token >= 0) {
      tokens.push_back(segment.token);
    } else {
      BATON_RETURN_IF_ERROR(EncodePlain(segment.text, tokens));
    }
  }
  return absl::OkStatus();
}

absl::Status Tokenizer::Impl::EncodePlain(std::string_view text, std::vector<TokenId>& tokens) const {
  std::string prefixed;
  if (add_prefix_space && !text.starts_with(' ')) {
    prefixed = Cat(" ", text);
    text = prefixed;
  }
  std::vector<std::string_view> pieces;
  pieces.reserve(text.size() / 4 + 1);
  BATON_RETURN_IF_ERROR(pre_tokenizer.Split(text, pieces));
  tokens.reserve(tokens.size() + pieces.size());
  for (const std::string_view piece : pieces) encoder.Encode(piece, tokens);
  return absl::OkStatus();
}

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

absl::StatusOr<Tokenizer> Tokenizer::Create(const TokenizerData& data) {
  BATON_RETURN_IF_ERROR(CheckTokens(data));
  BATON_RETURN_IF_ERROR(CheckIds(data));
  BATON_ASSIGN_OR_RETURN(const PreTokenizerPreset preset, ResolveSteps(data));
  BATON_ASSIGN_OR_RETURN(PreTokenizer pre_tokenizer, PreTokenizer::Create(preset.steps));
  BATON_ASSIGN_OR_RETURN(BytePairEncoder encoder, BytePairEncoder::Create(data, preset.ignore_merges));
  return Tokenizer(std::make_unique<Impl>(data, preset, std::move(pre_tokenizer), std::move(encoder)));
}

absl::StatusOr<std::vector<TokenId>> Tokenizer::Encode(std::string_view text, EncodeOptions options) const {
  if (text.size() > kMaxTextBytes / 3) {  // replacing invalid bytes may make three of each
    return ResourceExhausted("text: expected at most ", kMaxTextBytes / 3, " bytes, found ", text.size());
  }
  std::vector<TokenId> tokens;
  if (options.add_special_tokens && impl_->add_bos) tokens.push_back(impl_->bos);
  if (IsValidUtf8(text)) {
    BATON_RETURN_IF_ERROR(impl_->Encode(text, options.parse_special, tokens));
  } else {
    BATON_RETURN_IF_ERROR(impl_->Encode(ReplaceInvalidUtf8(text), options.parse_special, tokens));
  }
  return tokens;
}

std::string Tokenizer::Decode(std::span<const TokenId> tokens, bool skip_special_tokens) const {
  std::string bytes;
  for (const TokenId token : tokens) {
    if (!skip_special_tokens || !IsSpecial(token)) bytes.append(TokenBytes(token));
  }
  return IsValidUtf8(bytes) ? bytes : ReplaceInvalidUtf8(bytes);
}

std::string_view Tokenizer::TokenBytes(TokenId token) const {
  if (token < 0 || token >= vocabulary_size()) return "";
  const size_t begin = impl_->offsets[token];
  return std::string_view(impl_->bytes).substr(begin, impl_->offsets[token + 1] - begin);
}

std::string Tokenizer::TokenText(TokenId token) const { return ReplaceInvalidUtf8(TokenBytes(token)); }

bool Tokenizer::IsSpecial(TokenId token) const {
  return token >= 0 && token < vocabulary_size() && impl_->special[token];
}

std::optional<TokenId> Tokenizer::FindToken(std::string_view text) const {
  for (TokenId id = 0; id < vocabulary_size(); ++id) {
    if (TokenBytes(id) == text) return id;
  }
  return std::nullopt;
}

int32_t Tokenizer::vocabulary_size() const { return static_cast<int32_t>(impl_->special.size()); }
TokenId Tokenizer::bos() const { return impl_->bos; }
bool Tokenizer::add_bos() const { return impl_->add_bos; }
const std::vector<TokenId>& Tokenizer::eos() const { return impl_->eos; }

}  // namespace baton
