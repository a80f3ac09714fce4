#include "text/detokenizer.h"

#include <utility>

#include "text/tokenizer.h"
#include "text/unicode.h"

namespace baton {

std::string IncrementalDetokenizer::Append(TokenId token) {
  if (skip_special_tokens_ && tokenizer_->IsSpecial(token)) return "";
  pending_.append(tokenizer_->TokenBytes(token));
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
