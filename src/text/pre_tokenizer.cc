#include "text/pre_tokenizer.h"

#include "text/unicode.h"

namespace baton {
namespace {

// Digits(individual_digits): every character of category N is a piece of its own.
class DigitsStep : public SplitStep {
 public:
  absl::Status Split(std::string_view text, std::vector<std::string_view>& pieces) const override {
    const uint8_t* properties = CodePointProperties();
    size_t plain = 0;
    for (size_t at = 0; at < text.size();) {
      const CodePoint code = DecodeUtf8(text.substr(at));
      if (properties[code.value] & kNumber) {
        if (plain < at) pieces.push_back(text.substr(plain, at - plain));
        pieces.push_back(text.substr(at, code.bytes));
        plain = at + code.bytes;
      }
      at += code.bytes;
    }
    if (plain < text.size()) pieces.push_back(text.substr(plain));
    return absl::OkStatus();
  }
};

}  // namespace

absl::StatusOr<PreTokenizer> PreTokenizer::Create(std::span<const TokenizerData::Split> steps) {
  PreTokenizer out;
  for (const TokenizerData::Split& step : steps) {
    if (step.digits_individually) {
      out.steps_.push_back(std::make_unique<DigitsStep>());
    } else if (auto scanner = CreateScannerStep(step.pattern)) {
      out.steps_.push_back(std::move(scanner));
    } else {
      BATON_ASSIGN_OR_RETURN(auto regex, CreateRegexStep(step.pattern));
      out.steps_.push_back(std::move(regex));
    }
  }
  return out;
}

absl::Status PreTokenizer::Split(std::string_view text, std::vector<std::string_view>& pieces) const {
  if (text.empty()) return absl::OkStatus();
  if (text.size() >= size_t{1} << 31) return ResourceExhausted("text: expected below 2 GiB, found ", text.size());
  if (steps_.empty()) {
    pieces.push_back(text);
    return absl::OkStatus();
  }
  std::vector<std::string_view> from = {text}, to;
  for (size_t i = 0; i + 1 < steps_.size(); ++i) {
    to.clear();
    for (const std::string_view piece : from) BATON_RETURN_IF_ERROR(steps_[i]->Split(piece, to));
    from.swap(to);
  }
  for (const std::string_view piece : from) BATON_RETURN_IF_ERROR(steps_.back()->Split(piece, pieces));
  return absl::OkStatus();
}

}  // namespace baton
