#include "text/regex_dialect.h"

#include <algorithm>
#include <array>
#include <optional>

#include "text/unicode.h"

namespace baton {
namespace {

constexpr size_t kMaxPattern = 64 << 10;
constexpr std::string_view kSpaceSet =
    R"(\t-\r \x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";
// Oniguruma's word characters: Alphabetic (of which categories L and Nl, and some symbols), M, Nd and Pc.
constexpr std::string_view kWordSet =
    R"(\p{L}\p{M}\p{Nl}\p{Nd}\p{Pc}\x{24B6}-\x{24E9}\x{1F130}-\x{1F149}\x{1F150}-\x{1F169}\x{1F170}-\x{1F189})";
// Outside of brackets it also takes these numbers for word characters.
constexpr std::string_view kWordQuirk = R"(\x{B2}\x{B3}\x{B9}\x{BC}-\x{BE})";
constexpr std::array<std::string_view, 36> kCategories = {
    "L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mn", "Mc", "Me", "N",  "Nd", "Nl", "No", "P",  "Pc", "Pd", "Ps",
    "Pe", "Pi", "Pf", "Po", "S",  "Sm", "Sc", "Sk", "So", "Z",  "Zs", "Zl", "Zp", "C",  "Cc", "Cf", "Co", "Cn"};
constexpr std::array<std::string_view, 16> kScripts = {
    "Han",    "Hiragana", "Katakana",   "Hangul", "Latin",   "Greek", "Cyrillic", "Arabic",
    "Hebrew", "Thai",     "Devanagari", "Tamil",  "Bengali", "Lao",   "Khmer",    "Armenian"};

bool IsAsciiLetterOrDigit(char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'); }
bool IsHex(char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'F') || (c >= 'a' && c <= 'f'); }

void AppendLiteral(std::string_view bytes, std::string& out) {
  if (static_cast<uint8_t>(bytes[0]) < 0x80 && !IsAsciiLetterOrDigit(bytes[0])) {
    constexpr char kHex[] = "0123456789ABCDEF";
    out.append({'\\', 'x', '{', kHex[bytes[0] >> 4], kHex[bytes[0] & 15], '}'});
    return;
  }
  out.append(bytes);
}

// One member of a character class, or one escape outside of a class.
struct Atom {
  std::string text;      // in PCRE2's dialect, for use within brackets
  bool single = false;   // one character, so that it may be the end of a range
  bool negated = false;  // `text` is the complement's members (\S, \W)
};

class Translator {
 public:
  explicit Translator(std::string_view pattern) : pattern_(pattern) {}

  absl::StatusOr<std::string> Run() {
    while (at_ < pattern_.size()) BATON_RETURN_IF_ERROR(Item());
    return std::move(out_);
  }

 private:
  template <typename... Parts>
  absl::Status Refuse(const Parts&... parts) const {
    return InvalidArgument("regular expression \"", pattern_, "\", byte ", at_, ": ", parts...,
                           "; this tokenizer's splitting is not supported");
  }
  bool Ahead(std::string_view text) const { return pattern_.substr(at_).starts_with(text); }
  std::string_view TakeCharacter() {
    const std::string_view taken = pattern_.substr(at_, DecodeUtf8(pattern_.substr(at_)).bytes);
    at_ += taken.size();
    return taken;
  }

  absl::Status Item() {
    switch (pattern_[at_]) {
      case '\\':
        return OutsideEscape();
      case '[':
        return Class();
      case '(':
        return Group();
      case '{':
        return Interval();
      case '.':
        out_.append("[^\\n]");
        break;
      case '^':
      case '$':
        out_.append("(?m:").append(1, pattern_[at_]).append(")");
        break;
      case '|':
      case ')':
      case '?':
      case '*':
      case '+':
        out_.push_back(pattern_[at_]);
        break;
      default:
        AppendLiteral(TakeCharacter(), out_);
        return absl::OkStatus();
    }
    ++at_;
    return absl::OkStatus();
  }

  absl::Status OutsideEscape() {
    BATON_ASSIGN_OR_RETURN(const Atom atom, Escape());
    if (atom.single) {
      out_.append(atom.text);
    } else {
      out_.append(atom.negated ? "[^" : "[").append(atom.text);
      out_.append(atom.text == kWordSet ? kWordQuirk : "").append("]");
    }
    return absl::OkStatus();
  }

  absl::StatusOr<Atom> Escape() {
    if (at_ + 1 >= pattern_.size()) return Refuse("expected a character after the backslash, found the end");
    const char c = pattern_[at_ + 1];
    constexpr std::string_view kNames = "tnvfrae", kCodes = "\t\n\v\f\r\a\x1B";
    const size_t control = kNames.find(c);
    Atom atom{.text = "", .single = false};
    if (control != kNames.npos) {
      atom.single = true;
      AppendLiteral(kCodes.substr(control, 1), atom.text);
    } else if (c == 's' || c == 'S') {
      atom.text = kSpaceSet;
      atom.negated = c == 'S';
    } else if (c == 'w' || c == 'W') {
      atom.text = kWordSet;
      atom.negated = c == 'W';
    } else if (c == 'd' || c == 'D') {
      atom.text = c == 'd' ? "\\p{Nd}" : "\\P{Nd}";
    } else if (c == 'p' || c == 'P') {
      return Property();
    } else if (c == 'u' || c == 'x') {
      return Number();
    } else if (IsAsciiLetterOrDigit(c)) {
      return Refuse("found \\", c, ", which is not supported");
    } else {
      ++at_;
      atom.single = true;
      AppendLiteral(TakeCharacter(), atom.text);
      return atom;
    }
    at_ += 2;
    return atom;
  }

  absl::StatusOr<Atom> Property() {
    const size_t close = pattern_.find('}', at_);
    const bool braced = at_ + 2 < pattern_.size() && pattern_[at_ + 2] == '{' && close != pattern_.npos;
    const std::string_view name = braced ? pattern_.substr(at_ + 3, close - at_ - 3) : "";
    const bool category = std::find(kCategories.begin(), kCategories.end(), name) != kCategories.end();
    if (!category && std::find(kScripts.begin(), kScripts.end(), name) == kScripts.end()) {
      return Refuse("expected a general category such as \\p{L} or a common script, found {", name, "}");
    }
    Atom atom{.text = Cat("\\", pattern_[at_ + 1], category ? "{" : "{sc:", name, "}")};
    at_ = close + 1;
    return atom;
  }

  // \uHHHH or \x{H…}.
  absl::StatusOr<Atom> Number() {
    const bool braced = Ahead("\\x{");
    size_t from = at_ + (braced ? 3 : 2), to = from;
    while (to < pattern_.size() && to - from < (braced ? 6 : 4) && IsHex(pattern_[to])) ++to;
    const bool complete = braced ? to > from && to < pattern_.size() && pattern_[to] == '}' : to - from == 4;
    if (!complete || (!braced && pattern_[at_ + 1] == 'x')) return Refuse("expected \\uHHHH or \\x{H...}");
    Atom atom{.text = Cat("\\x{", pattern_.substr(from, to - from), "}"), .single = true};
    at_ = to + (braced ? 1 : 0);
    return atom;
  }

  absl::StatusOr<Atom> ClassMember() {
    if (at_ >= pattern_.size()) return Refuse("expected ], found the end");
    if (pattern_[at_] == '[') return Refuse("found [ within a class; nested classes are not supported");
    if (Ahead("&&")) return Refuse("found &&; intersections of classes are not supported");
    if (pattern_[at_] == '\\') return Escape();
    Atom atom{.text = "", .single = true};
    AppendLiteral(TakeCharacter(), atom.text);
    return atom;
  }

  absl::Status Class() {
    out_.push_back(pattern_[at_++]);
    if (Ahead("^")) out_.push_back(pattern_[at_++]);
    if (Ahead("]")) return Refuse("found an empty class");
    while (!Ahead("]")) {
      BATON_ASSIGN_OR_RETURN(const Atom atom, ClassMember());
      if (atom.negated) BATON_RETURN_IF_ERROR(AppendNegated(atom));
      if (!atom.negated) out_.append(atom.text);
      const bool range = atom.single && Ahead("-") && at_ + 1 < pattern_.size() && pattern_[at_ + 1] != ']';
      if (!range) continue;
      ++at_;
      BATON_ASSIGN_OR_RETURN(const Atom last, ClassMember());
      if (!last.single) return Refuse("expected a character at the end of the range, found a class");
      out_.append("-").append(last.text);
    }
    out_.push_back(pattern_[at_++]);
    return absl::OkStatus();
  }

  // \S and \W within brackets.
  absl::Status AppendNegated(const Atom& atom) {
    if (atom.text != kSpaceSet) return Refuse("found \\W within a class, which is not supported");
    out_.append("\\P{White_Space}");
    return absl::OkStatus();
  }

  absl::Status Group() {
    for (const std::string_view opening : {"(?:", "(?i:", "(?=", "(?!", "(?<=", "(?<!", "(?>"}) {
      if (!Ahead(opening)) continue;
      out_.append(opening);
      at_ += opening.size();
      return absl::OkStatus();
    }
    if (Ahead("(?")) return Refuse("expected (?:, (?i:, (?>, or a look-around, found another kind of group");
    out_.append("(?:");
    ++at_;
    return absl::OkStatus();
  }

  // {n}, {n,}, {,m} or {n,m}; anything else is a brace that stands for itself.
  absl::Status Interval() {
    const size_t close = pattern_.find('}', at_);
    const std::string_view body = pattern_.substr(at_ + 1, close == pattern_.npos ? 0 : close - at_ - 1);
    const size_t comma = body.find(',');
    const std::string_view low = body.substr(0, comma);
    const std::string_view high = comma == body.npos ? "" : body.substr(comma + 1);
    const auto digits = [](std::string_view text) {
      return text.size() <= 5 && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
    };
    if (!digits(low) || !digits(high) || (low.empty() && high.empty())) {
      AppendLiteral("{", out_);
      ++at_;
      return absl::OkStatus();
    }
    out_.append("{").append(low.empty() ? "0" : low);
    if (comma != body.npos) out_.append(",").append(high);
    out_.append("}");
    at_ = close + 1;
    if (Ahead("+") || Ahead("?")) return Refuse("found ", pattern_[at_], " after an interval, which is not supported");
    return absl::OkStatus();
  }

  std::string_view pattern_;
  size_t at_ = 0;
  std::string out_;
};

}  // namespace

absl::StatusOr<std::string> TranslateRegex(std::string_view pattern) {
  if (pattern.size() > kMaxPattern) {
    return InvalidArgument("regular expression: expected at most ", kMaxPattern, " bytes, found ", pattern.size());
  }
  if (!IsValidUtf8(pattern)) return InvalidArgument("regular expression: expected UTF-8");
  // The same matches without a quadratic search through long runs of spaces that end no line.
  if (pattern == R"(\s+$)") return TranslateRegex(R"((?<!\s)\s+(?:$))");
  return Translator(pattern).Run();
}

std::string LiteralRegex(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (static_cast<uint8_t>(c) < 0x80 && !IsAsciiLetterOrDigit(c) && static_cast<uint8_t>(c) >= 0x20) {
      out.push_back('\\');
    }
    out.push_back(c);
  }
  return out;
}

}  // namespace baton
