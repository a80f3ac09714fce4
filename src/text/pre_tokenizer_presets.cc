// The pre-tokenizers that GGUF files name, with the patterns of the models' published tokenizer.json where one exists.
#include <array>
#include <utility>

#include "text/pre_tokenizer.h"

namespace baton {

const std::string_view kGpt2Pattern = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
const std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const std::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

namespace {

using Split = TokenizerData::Split;

Split Pattern(std::string_view pattern) { return {.pattern = std::string(pattern), .digits_individually = false}; }
Split Digits() { return {.pattern = "", .digits_individually = true}; }

PreTokenizerPreset Gpt2() { return {.steps = {Pattern(kGpt2Pattern)}}; }
PreTokenizerPreset DigitsGpt2() { return {.steps = {Digits(), Pattern(kGpt2Pattern)}}; }
PreTokenizerPreset Llama3() { return {.steps = {Pattern(kLlama3Pattern)}, .ignore_merges = true}; }
PreTokenizerPreset Qwen2() { return {.steps = {Pattern(kQwen2Pattern)}, .normalize_nfc = true}; }

// What files from before `tokenizer.ggml.pre` was invented are read with.
PreTokenizerPreset Default() {
  return {.steps = {Pattern(R"([\p{P}\$\+<=>\^~\|]+)"),
                    Pattern(R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S))"),
                    Pattern(R"(\p{N}+)"), Pattern("[0-9][0-9][0-9]")}};
}

// The letters with case, as DeepSeek's files list them.
constexpr std::string_view kDeepSeekLetters =
    R"(\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼ)"
    R"(ℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+)";
constexpr std::string_view kDeepSeekHan = "[一-龥ࠀ-一가-\u{D7FF}]+";

PreTokenizerPreset DeepSeekLlm() {
  return {.steps = {Pattern("[\r\n]"), Pattern(kDeepSeekLetters), Pattern(R"(\s?[!-/:-~！-／：-～‘-‟　-。]+)"),
                    Pattern(R"(\s+$)"), Pattern(kDeepSeekHan), Pattern(R"(\p{N}+)")}};
}
PreTokenizerPreset DeepSeekCoder() {
  return {
      .steps = {Pattern("[\r\n]"), Pattern(R"(\s?\p{L}+)"), Pattern(R"(\s?\p{P}+)"), Pattern(kDeepSeekHan), Digits()}};
}
PreTokenizerPreset DeepSeekV3() {
  return {.steps = {Pattern(R"(\p{N}{1,3})"), Pattern("[一-龥぀-ゟ゠-ヿ]+"),
                    Pattern(R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|)"
                            R"( ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)")}};
}

using Maker = PreTokenizerPreset (*)();
constexpr std::array<std::pair<std::string_view, Maker>, 15> kPresets = {{
    {"default", Default},
    {"gpt-2", Gpt2},
    {"smollm", DigitsGpt2},
    {"starcoder", DigitsGpt2},
    {"refact", DigitsGpt2},
    {"codeshell", DigitsGpt2},
    {"llama-bpe", Llama3},
    {"llama3", Llama3},
    {"llama-v3", Llama3},
    {"qwen2", Qwen2},
    {"deepseek-r1-qwen", Qwen2},
    {"megrez", Qwen2},
    {"deepseek-llm", DeepSeekLlm},
    {"deepseek-coder", DeepSeekCoder},
    {"deepseek-v3", DeepSeekV3},
}};

}  // namespace

std::optional<PreTokenizerPreset> FindPreTokenizerPreset(std::string_view name) {
  for (const auto& [known, make] : kPresets) {
    if (known == name) return make();
  }
  return std::nullopt;
}

std::string PreTokenizerPresetNames() {
  std::string out;
  for (const auto& [name, make] : kPresets) out.append(out.empty() ? "" : ", ").append(name);
  return out;
}

}  // namespace baton
