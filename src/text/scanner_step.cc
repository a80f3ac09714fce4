// The pieces of GPT-2's, Llama 3's and Qwen 2's patterns by hand-written code; the tests compare it with PCRE2.
#include <algorithm>

#include "text/pre_tokenizer.h"
#include "text/unicode.h"

namespace baton {
namespace {

// A place in valid UTF-8, with the properties of the character there.
class Cursor {
 public:
  Cursor(std::string_view text, size_t at) : text_(text), at_(at), properties_(CodePointProperties()) { Look(); }

  size_t at() const { return at_; }
  bool done() const { return at_ == text_.size(); }
  char32_t code() const { return code_; }  // 0 at the end
  bool letter() const { return bits_ & kLetter; }
  bool number() const { return bits_ & kNumber; }
  bool space() const { return bits_ & kWhiteSpace; }
  bool newline() const { return code_ == '\r' || code_ == '\n'; }
  // Neither space, letter nor number; false at the end.
  bool symbol() const { return !done() && !(bits_ & (kLetter | kNumber | kWhiteSpace)); }
  void Next() {
    at_ += bytes_;
    Look();
  }

 private:
  void Look() {
    if (done()) {
      code_ = 0;
      bits_ = bytes_ = 0;
      return;
    }
    const uint8_t first = static_cast<uint8_t>(text_[at_]);
    if (first < 0x80) {
      code_ = first;
      bytes_ = 1;
    } else {
      const CodePoint decoded = DecodeUtf8(text_.substr(at_));
      code_ = decoded.value;
      bytes_ = static_cast<uint8_t>(decoded.bytes);
    }
    bits_ = properties_[code_];
  }

  std::string_view text_;
  size_t at_;
  const uint8_t* properties_;
  char32_t code_ = 0;
  uint8_t bits_ = 0, bytes_ = 0;
};

char32_t FoldCase(char32_t code) {
  if (code >= 'A' && code <= 'Z') return code + 32;
  return code == 0x17F ? U's' : code;  // the long s is the only other character that folds to one of these letters
}

// 's 't 're 've 'm 'll 'd at `from`; returns where it ends, or `from`.
size_t Contraction(Cursor from, bool fold_case) {
  const size_t begin = from.at();
  if (from.code() != '\'') return begin;
  const auto take = [&] {
    from.Next();
    return fold_case ? FoldCase(from.code()) : from.code();
  };
  const char32_t first = take();
  if (first == 's' || first == 't' || first == 'm' || first == 'd') {
    from.Next();
    return from.at();
  }
  if (first != 'r' && first != 'v' && first != 'l') return begin;
  if (take() != (first == 'l' ? U'l' : U'e')) return begin;
  from.Next();
  return from.at();
}

// A run of white space at `from`: up to its end when nothing follows, else without its last character (which belongs
// to what follows), else that one character. This is \s+(?!\S)|\s+.
size_t Space(Cursor from) {
  size_t last = from.at();
  const size_t begin = last;
  while (from.space()) {
    last = from.at();
    from.Next();
  }
  return from.done() || last == begin ? from.at() : last;
}

size_t Letters(Cursor& cursor) {
  while (cursor.letter()) cursor.Next();
  return cursor.at();
}

class Gpt2Step : public SplitStep {
 public:
  absl::Status Split(std::string_view text, std::vector<std::string_view>& pieces) const override {
    for (size_t at = 0; at < text.size();) {
      const size_t end = End(Cursor(text, at));
      pieces.push_back(text.substr(at, end - at));
      at = end;
    }
    return absl::OkStatus();
  }

 private:
  static size_t End(const Cursor begin) {
    if (const size_t end = Contraction(begin, false); end != begin.at()) return end;
    Cursor cursor = begin;
    if (cursor.code() == ' ') cursor.Next();
    if (cursor.letter()) return Letters(cursor);
    if (cursor.number()) {
      while (cursor.number()) cursor.Next();
      return cursor.at();
    }
    if (cursor.symbol()) {
      while (cursor.symbol()) cursor.Next();
      return cursor.at();
    }
    return Space(begin);
  }
};

// Llama 3 takes up to three digits at once, Qwen 2 one.
class Llama3Step : public SplitStep {
 public:
  explicit Llama3Step(int digits) : digits_(digits) {}

  absl::Status Split(std::string_view text, std::vector<std::string_view>& pieces) const override {
    for (size_t at = 0; at < text.size();) {
      const size_t end = End(Cursor(text, at));
      pieces.push_back(text.substr(at, end - at));
      at = end;
    }
    return absl::OkStatus();
  }

 private:
  size_t End(const Cursor begin) const {
    if (const size_t end = Contraction(begin, true); end != begin.at()) return end;
    Cursor cursor = begin;
    if (!cursor.letter() && !cursor.number() && !cursor.newline()) cursor.Next();
    if (cursor.letter()) return Letters(cursor);
    cursor = begin;
    if (cursor.number()) {
      for (int i = 0; i < digits_ && cursor.number(); ++i) cursor.Next();
      return cursor.at();
    }
    if (cursor.code() == ' ') cursor.Next();
    if (cursor.symbol()) {
      while (cursor.symbol()) cursor.Next();
      while (cursor.newline()) cursor.Next();
      return cursor.at();
    }
    return Lines(begin);
  }

  // \s*[\r\n]+ takes white space up to its last line end; without one it is as for GPT-2.
  static size_t Lines(const Cursor begin) {
    size_t end = begin.at();
    for (Cursor cursor = begin; cursor.space();) {
      const bool newline = cursor.newline();
      cursor.Next();
      if (newline) end = cursor.at();
    }
    return end != begin.at() ? end : Space(begin);
  }

  int digits_;
};

}  // namespace

std::unique_ptr<SplitStep> CreateScannerStep(std::string_view pattern) {
  if (pattern == kGpt2Pattern) return std::make_unique<Gpt2Step>();
  if (pattern == kLlama3Pattern) return std::make_unique<Llama3Step>(3);
  if (pattern == kQwen2Pattern) return std::make_unique<Llama3Step>(1);
  return nullptr;
}

}  // namespace baton
