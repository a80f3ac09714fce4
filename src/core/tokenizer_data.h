// A byte-level BPE tokenizer as data, as read from a GGUF file or from tokenizer.json.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/ids.h"

namespace baton {

struct AddedToken {
  TokenId id = 0;
  std::string content;   // UTF-8
  bool special = false;  // left out of decoded text by default
  bool single_word = false;
  bool lstrip = false;
  bool rstrip = false;
  bool normalized = false;
};

struct TokenizerData {
  std::vector<std::string>
      tokens;  // [vocabulary], in the byte-level alphabet (GPT-2's printable stand-ins); added tokens plain
  std::vector<std::pair<std::string, std::string>> merges;  // best first
  std::vector<AddedToken> added_tokens;
  // The steps of the pre-tokenizer, in order: regular expressions in Hugging Face's dialect whose matches are isolated;
  // the text between matches is a piece of its own.
  struct Split {
    std::string pattern;
    bool digits_individually = false;  // instead of a pattern: every digit (Unicode N) is a piece of its own
  };
  std::vector<Split> pre_tokenizer;
  // Instead of the steps above, GGUF names a preset ("llama-bpe", "smollm", "qwen2"; "default" when it does not say).
  // `text` turns it into steps and the two flags below; empty when the steps are given.
  std::string pre_tokenizer_preset;
  bool ignore_merges = false;  // a piece that is a whole token is taken without merging (Llama 3)
  bool normalize_nfc = false;  // Qwen 2
  bool add_prefix_space = false;

  TokenId bos = -1;           // -1: none
  bool add_bos = false;       // put before every prompt that is tokenized with special tokens
  std::vector<TokenId> eos;   // tokens that end an answer
  std::string chat_template;  // Jinja; may be empty
  std::string bos_token, eos_token, unk_token, pad_token;  // as text, for the template
};

}  // namespace baton
