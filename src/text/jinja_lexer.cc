#include "text/jinja_lexer.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "text/jinja_literal.h"
#include "text/jinja_text.h"

namespace baton::jinja {

namespace {

constexpr size_t kMaxTemplateBytes = 1 << 20;

// Newlines become \n, and the last one goes.
std::string NormalizeSource(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      if (i + 1 < source.size() && source[i + 1] == '\n') continue;
      out.push_back('\n');
    } else {
      out.push_back(source[i]);
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)) {}

  absl::StatusOr<std::vector<Token>> Run() {
    while (position_ < source_.size()) {
      const size_t tag = FindTag();
      if (tag == source_.npos) {
        AddText(rest());
        Advance(source_.size());
        break;
      }
      BATON_RETURN_IF_ERROR(ReadTag(tag));
    }
    Add(TokenType::kEnd);
    return std::move(tokens_);
  }

 private:
  std::string_view rest() const { return std::string_view(source_).substr(position_); }
  bool StartsWith(std::string_view text) const { return rest().starts_with(text); }
  char PeekAt(size_t position) const { return position < source_.size() ? source_[position] : '\0'; }

  template <typename... Parts>
  absl::Status Fail(const Parts&... parts) const {
    return InvalidArgument("chat template line ", line_, ": ", parts...);
  }

  Token& Add(TokenType type, std::string_view text = "") {
    tokens_.push_back({type, line_, std::string(text)});
    return tokens_.back();
  }
  void AddText(std::string_view text) {
    if (!text.empty()) Add(TokenType::kText, text);
  }
  // Moves on, and remembers what the lstrip rule asks: whether the last match ended a line.
  void Advance(size_t position) {
    line_ += static_cast<int>(std::count(source_.begin() + position_, source_.begin() + position, '\n'));
    line_starting_ = position > position_ ? source_[position - 1] == '\n' : line_starting_;
    position_ = position;
  }
  size_t SkipSpace(size_t position) const {
    while (position < source_.size()) {
      size_t next = position;
      if (!IsSpace(DecodeCodePoint(source_, next))) break;
      position = next;
    }
    return position;
  }

  size_t FindTag() const {
    for (size_t i = source_.find('{', position_); i != source_.npos; i = source_.find('{', i + 1)) {
      const char next = PeekAt(i + 1);
      if (next == '{' || next == '%' || next == '#') return i;
    }
    return source_.npos;
  }

  // The text before a tag, after what the tag's sign and lstrip_blocks strip from it.
  std::string_view StripBeforeTag(std::string_view text, char sign, bool is_variable) const {
    if (sign == '-') return Strip(text, false, true);
    if (sign == '+' || is_variable) return text;
    const size_t newline = text.rfind('\n');
    if (newline == text.npos && !line_starting_) return text;
    const size_t line = newline == text.npos ? 0 : newline + 1;
    return Strip(text.substr(line)).empty() ? text.substr(0, line) : text;
  }

  absl::Status ReadTag(size_t tag) {
    const char type = source_[tag + 1];
    const char next = PeekAt(tag + 2);
    const char sign = next == '-' || next == '+' ? next : ' ';
    AddText(StripBeforeTag(rest().substr(0, tag - position_), sign, type == '{'));
    const size_t inside = tag + (sign == ' ' ? 2 : 3);
    if (type == '#') return ReadComment(inside);
    if (type == '%') {
      if (const auto raw = MatchRawBegin(inside)) return ReadRaw(*raw);
    }
    Advance(inside);
    Add(type == '{' ? TokenType::kVariableBegin : TokenType::kBlockBegin);
    return ReadInside(type == '{');
  }

  // Past the white space that a tag's end takes with it.
  size_t AfterTagEnd(size_t end, char sign) const {
    if (sign == '-') return SkipSpace(end);
    return sign != '+' && PeekAt(end) == '\n' ? end + 1 : end;
  }

  // Jinja takes a comment or raw block that opens at the very end for complete.
  absl::Status Finish() {
    Advance(source_.size());
    return absl::OkStatus();
  }

  absl::Status ReadComment(size_t inside) {
    if (inside == source_.size()) return Finish();
    const size_t end = source_.find("#}", inside);
    if (end == source_.npos) return Fail("expected '#}' at the end of a comment, found the end of the template");
    const char sign = end > inside ? source_[end - 1] : ' ';
    Advance(AfterTagEnd(end + 2, sign));
    return absl::OkStatus();
  }

  // The end of `raw %}` or `raw -%}`, if that follows.
  std::optional<size_t> MatchRawBegin(size_t position) const {
    position = SkipSpace(position);
    if (source_.compare(position, 3, "raw") != 0) return std::nullopt;
    position = SkipSpace(position + 3);
    if (source_.compare(position, 2, "%}") == 0) return position + 2;
    if (source_.compare(position, 3, "-%}") == 0) return SkipSpace(position + 3);
    return std::nullopt;
  }

  absl::Status ReadRaw(size_t inside) {
    if (inside == source_.size()) return Finish();
    Advance(inside);
    for (size_t i = source_.find("{%", inside); i != source_.npos; i = source_.find("{%", i + 1)) {
      const char next = PeekAt(i + 2);
      const char sign = next == '-' || next == '+' ? next : ' ';
      size_t position = SkipSpace(i + (sign == ' ' ? 2 : 3));
      if (source_.compare(position, 6, "endraw") != 0) continue;
      position = SkipSpace(position + 6);
      const char end_sign = PeekAt(position) == '-' || PeekAt(position) == '+' ? PeekAt(position) : ' ';
      if (end_sign != ' ') ++position;
      if (source_.compare(position, 2, "%}") != 0) continue;
      AddText(StripBeforeTag(rest().substr(0, i - position_), sign, false));
      Advance(AfterTagEnd(position + 2, end_sign));
      return absl::OkStatus();
    }
    return Fail("expected '{% endraw %}', found the end of the template");
  }

  // The byte after the tag's end, if one stands here.
  std::optional<size_t> MatchTagEnd(bool is_variable) const {
    const std::string_view end = is_variable ? "}}" : "%}";
    const char first = PeekAt(position_);
    const bool has_sign = first == '-' || (first == '+' && !is_variable);
    const size_t start = position_ + (has_sign ? 1 : 0);
    if (source_.compare(start, 2, end) != 0) return std::nullopt;
    if (is_variable) return has_sign ? SkipSpace(start + 2) : start + 2;
    return AfterTagEnd(start + 2, has_sign ? first : ' ');
  }

  absl::Status ReadInside(bool is_variable) {
    std::string open;  // brackets that wait for their partners
    while (position_ < source_.size()) {
      if (open.empty()) {
        if (const auto end = MatchTagEnd(is_variable)) {
          Add(is_variable ? TokenType::kVariableEnd : TokenType::kBlockEnd);
          Advance(*end);
          return absl::OkStatus();
        }
      }
      const size_t after_space = SkipSpace(position_);
      if (after_space != position_) {
        Advance(after_space);
        continue;
      }
      BATON_RETURN_IF_ERROR(ReadToken(open));
    }
    return absl::OkStatus();  // the parser says what was expected
  }

  absl::Status ReadToken(std::string& open) {
    const char c = source_[position_];
    if (c >= '0' && c <= '9') return ReadNumber();
    if (c == '"' || c == '\'') return ReadString(c);
    const size_t name_end = MatchName();
    if (name_end != position_) {
      Add(TokenType::kName, rest().substr(0, name_end - position_));
      Advance(name_end);
      return absl::OkStatus();
    }
    return ReadOperator(open);
  }

  size_t MatchName() const {
    size_t position = position_;
    while (position < source_.size()) {
      size_t next = position;
      const char32_t c = DecodeCodePoint(source_, next);
      if (c != '_' && !IsAlpha(c) && !IsNumeric(c)) break;
      position = next;
    }
    return position;
  }

  absl::Status ReadNumber() {
    const bool after_dot = position_ > 0 && source_[position_ - 1] == '.';
    BATON_ASSIGN_OR_RETURN(const NumberLiteral literal, ReadNumberLiteral(rest(), !after_dot, line_));
    Token& token = Add(literal.is_integer ? TokenType::kInteger : TokenType::kDouble, rest().substr(0, literal.length));
    token.integer = literal.integer;
    token.number = literal.number;
    Advance(position_ + literal.length);
    return absl::OkStatus();
  }

  absl::Status ReadString(char quote) {
    size_t end = position_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size())
      return Fail("expected ", quote, " at the end of a string, found the end of the template");
    BATON_ASSIGN_OR_RETURN(std::string text,
                           UnescapeString(std::string_view(source_).substr(position_ + 1, end - position_ - 1), line_));
    Add(TokenType::kString, text);
    Advance(end + 1);
    return absl::OkStatus();
  }

  absl::Status ReadOperator(std::string& open) {
    static constexpr std::string_view kOperators[] = {"==", "!=", ">=", "<=", "//", "**", "+", "-", "/",
                                                      "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                                      ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};
    const auto found = std::find_if(std::begin(kOperators), std::end(kOperators),
                                    [this](std::string_view text) { return StartsWith(text); });
    if (found == std::end(kOperators)) {
      size_t next = position_;
      const char32_t c = DecodeCodePoint(source_, next);
      return Fail("unexpected character ", QuoteText(FromCodePoints({&c, 1})), " in a tag");
    }
    const char c = found->front();
    if (c == '(' || c == '[' || c == '{') open.push_back(c == '(' ? ')' : c == '[' ? ']' : '}');
    if (c == ')' || c == ']' || c == '}') {
      if (open.empty()) return Fail("unexpected '", c, "'");
      if (open.back() != c) return Fail("expected '", open.back(), "', found '", c, "'");
      open.pop_back();
    }
    Add(TokenType::kOperator, *found);
    Advance(position_ + found->size());
    return absl::OkStatus();
  }

  const std::string source_;
  size_t position_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source) {
  if (source.size() > kMaxTemplateBytes) {
    return InvalidArgument("a chat template may have ", kMaxTemplateBytes, " bytes, found ", source.size());
  }
  if (!IsValidUtf8(source)) return InvalidArgument("a chat template must be valid UTF-8");
  return Lexer(NormalizeSource(source)).Run();
}

}  // namespace baton::jinja
