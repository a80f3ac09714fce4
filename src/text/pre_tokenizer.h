// Cuts text into the pieces that byte-pair encoding works on, as Hugging Face's Split, Digits and ByteLevel steps do.
//
// Threading: const calls from any thread. Ownership: pieces point into the caller's text.
// Errors: Create refuses patterns by name; Split fails with ResourceExhausted when a pattern needs too much work.
// Limits: text below 2 GiB, in valid UTF-8.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "core/tokenizer_data.h"

namespace baton {

// One step: appends the pieces of `text`, in order and without gaps.
class SplitStep {
 public:
  virtual ~SplitStep() = default;
  virtual absl::Status Split(std::string_view text, std::vector<std::string_view>& pieces) const = 0;
};

class PreTokenizer {
 public:
  static absl::StatusOr<PreTokenizer> Create(std::span<const TokenizerData::Split> steps);
  absl::Status Split(std::string_view text, std::vector<std::string_view>& pieces) const;

 private:
  std::vector<std::unique_ptr<SplitStep>> steps_;
};

// A pattern in Hugging Face's dialect, run by PCRE2.
absl::StatusOr<std::unique_ptr<SplitStep>> CreateRegexStep(std::string_view pattern);
// The same pieces by hand-written code, for the patterns that most models use; null for any other pattern.
std::unique_ptr<SplitStep> CreateScannerStep(std::string_view pattern);

// What a GGUF file means by `tokenizer.ggml.pre`.
struct PreTokenizerPreset {
  std::vector<TokenizerData::Split> steps;
  bool ignore_merges = false;
  bool normalize_nfc = false;
};
std::optional<PreTokenizerPreset> FindPreTokenizerPreset(std::string_view name);
// All names, for messages: "default, gpt-2, …".
std::string PreTokenizerPresetNames();

// The pattern of ByteLevel steps with use_regex, which is GPT-2's.
extern const std::string_view kGpt2Pattern;
extern const std::string_view kLlama3Pattern;
extern const std::string_view kQwen2Pattern;

}  // namespace baton
