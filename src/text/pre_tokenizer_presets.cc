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

// The letters with case, as DeepSeek's files list them (as numbers: normalizing this file would change some).
constexpr std::string_view kDeepSeekLetters =
    R"(\s?[)"
    R"(A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}\x{295}-\x{2AF})"
    R"(\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}\x{38C}\x{38E}-\x{3A1})"
    R"(\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556}\x{10A0}-\x{10C5}\x{13A0}-\x{13F5})"
    R"(\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A})"
    R"(\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B})"
    R"(\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC})"
    R"(\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107})"
    R"(\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124}\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134})"
    R"(\x{2139}\x{213C}-\x{213F}\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4})"
    R"(\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F}\x{A771}-\x{A787})"
    R"(\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A})"
    R"(\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2})"
    R"(\x{118A0}-\x{118DF}\x{1E900}-\x{1E943})"
    R"(]+)";
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
