// Folders: text
// Arbitrary bytes as tokenizer.json. What loads must encode a text, and decode it in parts as at once.
#include <cstdlib>

#include "text/detokenizer.h"
#include "text/tokenizer.h"
#include "text/tokenizer_json.h"
#include "text/unicode.h"

namespace {

constexpr std::string_view kText =
    "Hello he's WE'LL 12345 <s>\xC3\xA9 e\xCC\x81 \xE4\xB8\xAD\xFF  \n\r\n\t</s> "
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab";

void Check(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view json(reinterpret_cast<const char*>(data), size);
  auto read = baton::ParseTokenizerJson(json);
  if (!read.ok()) return 0;
  // The same bytes are good enough for the other file: all that matters is that nothing breaks.
  (void)baton::ApplyTokenizerConfig(json, *read);
  const auto tokenizer = baton::Tokenizer::Create(*read);
  if (!tokenizer.ok()) return 0;
  for (const bool special : {false, true}) {
    const auto tokens = tokenizer->Encode(kText, {.add_special_tokens = special, .parse_special = special});
    if (!tokens.ok()) continue;
    for (const baton::TokenId token : *tokens) Check(token >= 0 && token < tokenizer->vocabulary_size());
    baton::IncrementalDetokenizer detokenizer(*tokenizer, special);
    std::string streamed;
    for (const baton::TokenId token : *tokens) streamed += detokenizer.Append(token);
    streamed += detokenizer.Finish();
    Check(streamed == tokenizer->Decode(*tokens, special));
    Check(baton::IsValidUtf8(streamed));
  }
  return 0;
}
