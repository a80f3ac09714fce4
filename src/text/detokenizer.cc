#include "text/detokenizer.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "text/tokenizer.h"
#include "text/unicode.h"

namespace baton {
namespace {

bool IsAscii(std::string_view bytes) {
  return std::ranges::all_of(bytes, [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

}  // namespace

std::string IncrementalDetokenizer::Append(TokenId token) {
  if (skip_special_tokens_ && tokenizer_->IsSpecial(token)) return "";
  const std::string_view bytes = tokenizer_->TokenBytes(token);
  if (pending_.empty() && IsAscii(bytes)) return std::string(bytes);  // nearly every token
  pending_.append(bytes);
  std::string final_text;
  std::string_view rest = pending_;
  while (!rest.empty()) {
    const CodePoint code = DecodeUtf8(rest);
    if (code.truncated) break;
    if (code.valid) {
      final_text.append(rest.substr(0, code.bytes));
    } else {
      AppendUtf8(kReplacementCharacter, final_text);
    }
    rest.remove_prefix(code.bytes);
  }
  pending_ = std::string(rest);
  return final_text;
}

std::string IncrementalDetokenizer::Finish() { return ReplaceInvalidUtf8(std::exchange(pending_, "")); }

}  // namespace baton
