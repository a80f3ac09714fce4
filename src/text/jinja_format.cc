#include "text/jinja_format.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "text/jinja_access.h"
#include "text/jinja_operators.h"
#include "text/jinja_print.h"
#include "text/jinja_text.h"

namespace baton::jinja {

namespace {

constexpr int kMaxWidth = 10000;

bool IsAsciiDigit(char c) { return c >= '0' && c <= '9'; }

// A number at `position`, which moves past it; 0 where there is none.
absl::StatusOr<int> ReadWidth(std::string_view text, size_t& position) {
  int value = 0;
  while (position < text.size() && IsAsciiDigit(text[position])) {
    value = value * 10 + (text[position++] - '0');
    if (value > kMaxWidth) return InvalidArgument("a width in a format passes the limit of ", kMaxWidth);
  }
  return value;
}

// One conversion of "%…", from after the percent sign.
class PercentFormatter {
 public:
  PercentFormatter(Runtime& runtime, std::string_view format, const Value& values)
      : runtime_(runtime), format_(format), values_(values) {}

  absl::StatusOr<Value> Run() {
    while (position_ < format_.size()) {
      const char c = format_[position_++];
      if (c != '%') {
        out_.push_back(c);
        continue;
      }
      BATON_RETURN_IF_ERROR(Convert());
      BATON_RETURN_IF_ERROR(runtime_.ChargeBytes(out_.size()));
    }
    const size_t given = values_.is(Kind::kTuple) ? values_.items().size() : 1;
    // What could be indexed by name may be left over.
    const bool may_remain =
        values_.is_dict() || values_.is_undefined() || (values_.is_sequence() && !values_.is(Kind::kTuple));
    if (!used_name_ && !may_remain && used_ < given) return TooMany();
    return Value::String(std::move(out_));
  }

 private:
  static absl::Status TooMany() { return InvalidArgument("not all arguments were used by a % format"); }

  absl::StatusOr<Value> Next() {
    if (values_.is(Kind::kTuple)) {
      if (used_ < values_.items().size()) return values_.items()[used_++];
    } else if (used_ == 0) {
      ++used_;
      return values_;
    }
    return InvalidArgument("a % format wants more arguments than it was given");
  }

  absl::StatusOr<Value> Named() {
    const size_t end = format_.find(')', position_);
    if (end == format_.npos) return InvalidArgument("expected ')' after a name in a % format");
    if (!values_.is_dict()) return InvalidArgument("a % format with names wants a dict, found ", values_.TypeName());
    const std::string_view name = format_.substr(position_ + 1, end - position_ - 1);
    position_ = end + 1;
    used_name_ = true;
    const Value* found = values_.dict().Find(name);
    if (found == nullptr) return InvalidArgument("a % format names the key ", QuoteText(name), ", which is missing");
    return *found;
  }

  absl::StatusOr<int> ReadWidthOrStar() {
    if (position_ >= format_.size() || format_[position_] != '*') return ReadWidth(format_, position_);
    ++position_;
    BATON_ASSIGN_OR_RETURN(const Value value, Next());
    if (!value.is(Kind::kInteger)) return InvalidArgument("* in a % format wants int, found ", value.TypeName());
    if (std::abs(value.integer() % (2 * kMaxWidth)) > kMaxWidth || std::abs(value.integer() / kMaxWidth) > 1) {
      return InvalidArgument("a width in a format passes the limit of ", kMaxWidth);
    }
    return static_cast<int>(value.integer());
  }

  absl::Status Convert() {
    FormatSpec spec;
    spec.align = '>';
    Value value;
    const bool named = position_ < format_.size() && format_[position_] == '(';
    if (named) {
      BATON_ASSIGN_OR_RETURN(value, Named());
    }
    bool zero = false;
    for (; position_ < format_.size(); ++position_) {
      const char flag = format_[position_];
      if (flag == '-') {
        spec.align = '<';
      } else if (flag == '0') {
        zero = true;
      } else if (flag == '+' || (flag == ' ' && spec.sign != '+')) {
        spec.sign = flag;
      } else if (flag == '#') {
        spec.alternate = true;
      } else if (flag != ' ') {
        break;
      }
    }
    BATON_ASSIGN_OR_RETURN(spec.width, ReadWidthOrStar());
    if (spec.width < 0) {
      spec.align = '<';
      spec.width = -spec.width;
    }
    if (position_ < format_.size() && format_[position_] == '.') {
      ++position_;
      BATON_ASSIGN_OR_RETURN(spec.precision, ReadWidthOrStar());
      spec.precision = std::max(spec.precision, 0);
    }
    while (position_ < format_.size() && std::string_view("hlL").find(format_[position_]) != std::string_view::npos) {
      ++position_;
    }
    if (position_ >= format_.size()) return InvalidArgument("a % format ends in the middle");
    spec.type = format_[position_++];
    if (spec.type == '%') {
      out_.push_back('%');
      return absl::OkStatus();
    }
    if (!named) {
      BATON_ASSIGN_OR_RETURN(value, Next());
    }
    if (zero && spec.align == '>') {
      spec.fill = '0';
      spec.align = '=';
    }
    return Append(value, spec);
  }

  absl::Status Append(const Value& value, FormatSpec spec) {
    if (spec.type == 's' || spec.type == 'r' || spec.type == 'a' || spec.type == 'c') {
      BATON_ASSIGN_OR_RETURN(std::string text, TextOf(value, spec));
      spec.fill = ' ';
      spec.align = spec.align == '=' ? '>' : spec.align;
      spec.type = 's';
      BATON_ASSIGN_OR_RETURN(text, FormatText(text, spec));
      out_ += text;
      return absl::OkStatus();
    }
    if (std::string_view("diuxXoeEfFgG").find(spec.type) == std::string_view::npos) {
      return InvalidArgument("unsupported conversion '%", spec.type, "' in a % format");
    }
    if (!value.is_number()) {
      if (value.is_undefined()) return UndefinedError(value);
      return InvalidArgument("'%", spec.type, "' in a format wants a number, found ", value.TypeName());
    }
    BATON_ASSIGN_OR_RETURN(const std::string text, FormatNumberInPercent(value, spec));
    out_ += text;
    return absl::OkStatus();
  }

  absl::StatusOr<std::string> FormatNumberInPercent(const Value& value, FormatSpec spec) {
    if (std::string_view("eEfFgG").find(spec.type) != std::string_view::npos) {
      return FormatNumber(Value::Double(value.number()), spec);
    }
    const bool decimal = std::string_view("diu").find(spec.type) != std::string_view::npos;
    if (value.is(Kind::kDouble) && (!decimal || !std::isfinite(value.number()) || std::fabs(value.number()) > 9e18)) {
      return InvalidArgument("'%", spec.type, "' in a format wants an int, found a float");
    }
    const int64_t integer =
        value.is(Kind::kDouble) ? static_cast<int64_t>(std::trunc(value.number())) : value.integer();
    if (spec.precision >= 0) return InvalidArgument("a precision of an integer in a % format is not supported");
    spec.type = decimal ? 'd' : spec.type;
    return FormatNumber(Value::Integer(integer), spec);
  }

  absl::StatusOr<std::string> TextOf(const Value& value, const FormatSpec& spec) {
    if (spec.type == 's') return ToText(runtime_, value);
    if (spec.type != 'c') return ToRepr(runtime_, value);
    if (value.is_string() && CountCodePoints(value.string()) == 1) return value.string();
    if (!value.is_integral() || value.integer() < 0 || value.integer() > 0x10FFFF) {
      return InvalidArgument("'%c' in a format wants one character, found ", value.TypeName());
    }
    std::string out;
    AppendCodePoint(out, static_cast<char32_t>(value.integer()));
    return out;
  }

  Runtime& runtime_;
  const std::string_view format_;
  const Value& values_;
  std::string out_;
  size_t position_ = 0;
  size_t used_ = 0;
  bool used_name_ = false;
};

}  // namespace

absl::StatusOr<Value> FormatPercent(Runtime& runtime, std::string_view format, const Value& values) {
  return PercentFormatter(runtime, format, values).Run();
}

namespace {

absl::StatusOr<FormatSpec> ParseSpec(std::string_view text) {
  FormatSpec spec;
  size_t position = 0;
  constexpr std::string_view kAligns = "<>^=";
  if (!text.empty()) {
    size_t next = 0;
    const char32_t first = DecodeCodePoint(text, next);
    if (next < text.size() && kAligns.find(text[next]) != kAligns.npos) {
      spec.fill = first;
      spec.align = text[next];
      position = next + 1;
    } else if (kAligns.find(text[0]) != kAligns.npos) {
      spec.align = text[0];
      position = 1;
    }
  }
  auto take = [&](std::string_view characters) {
    if (position >= text.size() || characters.find(text[position]) == characters.npos) return '\0';
    return text[position++];
  };
  if (const char sign = take("+- ")) spec.sign = sign;
  spec.alternate = take("#") != 0;
  if (take("0") != 0 && spec.align == 0) {
    spec.fill = '0';
    spec.align = '=';
  }
  BATON_ASSIGN_OR_RETURN(spec.width, ReadWidth(text, position));
  spec.separator = take(",_");
  if (take(".") != 0) {
    if (position >= text.size() || !IsAsciiDigit(text[position])) {
      return InvalidArgument("a format specification lacks its precision");
    }
    BATON_ASSIGN_OR_RETURN(spec.precision, ReadWidth(text, position));
  }
  spec.type = take("bcdeEfFgGnosxX%");
  if (position != text.size()) return InvalidArgument("invalid format specification ", QuoteText(text));
  return spec;
}

class BraceFormatter {
 public:
  BraceFormatter(Runtime& runtime, const Arguments& arguments) : runtime_(runtime), arguments_(arguments) {}

  absl::StatusOr<std::string> Run(std::string_view format, int nesting = 0) {
    std::string out;
    for (size_t i = 0; i < format.size(); ++i) {
      const char c = format[i];
      if (c != '{' && c != '}') {
        out.push_back(c);
      } else if (i + 1 < format.size() && format[i + 1] == c && nesting == 0) {
        out.push_back(c);
        ++i;
      } else if (c == '}') {
        return InvalidArgument("a format has a '}' without its '{'");
      } else {
        BATON_ASSIGN_OR_RETURN(const size_t end, FindEnd(format, i + 1));
        BATON_ASSIGN_OR_RETURN(const std::string text, Replace(format.substr(i + 1, end - i - 1), nesting));
        out += text;
        BATON_RETURN_IF_ERROR(runtime_.ChargeBytes(out.size()));
        i = end;
      }
    }
    return out;
  }

 private:
  static absl::StatusOr<size_t> FindEnd(std::string_view format, size_t position) {
    int open = 1;
    for (; position < format.size(); ++position) {
      if (format[position] == '{') ++open;
      if (format[position] == '}' && --open == 0) return position;
    }
    return InvalidArgument("a format has a '{' without its '}'");
  }

  // field[!conversion][:specification]
  absl::StatusOr<std::string> Replace(std::string_view field, int nesting) {
    const size_t mark = field.find_first_of("!:");
    BATON_ASSIGN_OR_RETURN(Value value, Find(field.substr(0, mark)));
    std::string_view rest = mark == field.npos ? "" : field.substr(mark);
    if (rest.starts_with('!')) {
      if (rest.size() < 2 || (rest[1] != 's' && rest[1] != 'r'))
        return InvalidArgument("expected !s or !r in a format");
      BATON_ASSIGN_OR_RETURN(std::string text, rest[1] == 's' ? ToText(runtime_, value) : ToRepr(runtime_, value));
      value = Value::String(std::move(text));
      rest.remove_prefix(2);
      if (!rest.empty() && rest[0] != ':') return InvalidArgument("expected ':' after the conversion in a format");
    }
    if (!rest.empty()) rest.remove_prefix(1);
    if (nesting > 1) return InvalidArgument("a format nests its fields too deeply");
    BATON_ASSIGN_OR_RETURN(const std::string specification, Run(rest, nesting + 1));
    BATON_ASSIGN_OR_RETURN(const FormatSpec spec, ParseSpec(specification));
    if (value.is_number() && !(value.is(Kind::kBool) && specification.empty())) return FormatNumber(value, spec);
    if (!value.is_string() && !specification.empty()) {
      return InvalidArgument("a ", value.TypeName(), " takes no format specification");
    }
    BATON_ASSIGN_OR_RETURN(const std::string text, ToText(runtime_, value));
    return FormatText(text, spec);
  }

  absl::StatusOr<Value> Find(std::string_view field) {
    const size_t end = std::min(field.find_first_of(".["), field.size());
    BATON_ASSIGN_OR_RETURN(Value value, FindArgument(field.substr(0, end)));
    for (size_t position = end; position < field.size();) {
      const bool attribute = field[position] == '.';
      const size_t stop =
          attribute ? std::min(field.find_first_of(".[", position + 1), field.size()) : field.find(']', position);
      if (stop == field.npos) return InvalidArgument("a format has a '[' without its ']'");
      const std::string_view name = field.substr(position + 1, stop - position - 1);
      BATON_ASSIGN_OR_RETURN(const Value key, Key(name));
      if (value.is_undefined()) return UndefinedError(value);
      value = attribute ? GetAttribute(value, name) : GetItem(value, key);
      position = attribute ? stop : stop + 1;
    }
    return value;
  }

  static absl::StatusOr<Value> Key(std::string_view name) {
    if (name.empty() || !std::all_of(name.begin(), name.end(), IsAsciiDigit)) {
      return Value::String(std::string(name));
    }
    size_t position = 0;
    BATON_ASSIGN_OR_RETURN(const int index, ReadWidth(name, position));
    return Value::Integer(index);
  }

  absl::StatusOr<Value> FindArgument(std::string_view name) {
    const bool numbered = !name.empty() && IsAsciiDigit(name[0]);
    if (name.empty() || numbered) {
      if (numbered ? next_ > 0 : used_numbers_) return InvalidArgument("a format mixes numbered and unnumbered fields");
      used_numbers_ = numbered;
      BATON_ASSIGN_OR_RETURN(const Value key, Key(name));
      const size_t index = numbered && key.is(Kind::kInteger) ? static_cast<size_t>(key.integer()) : next_++;
      if (index < arguments_.positional.size()) return arguments_.positional[index];
      return InvalidArgument("a format wants more than the ", arguments_.positional.size(), " values given");
    }
    for (const auto& [key, value] : arguments_.named) {
      if (key == name) return value;
    }
    return InvalidArgument("a format names ", QuoteText(name), ", which is missing");
  }

  Runtime& runtime_;
  const Arguments& arguments_;
  size_t next_ = 0;
  bool used_numbers_ = false;
};

}  // namespace

absl::StatusOr<Value> FormatBraces(Runtime& runtime, std::string_view format, const Arguments& arguments) {
  BATON_ASSIGN_OR_RETURN(std::string text, BraceFormatter(runtime, arguments).Run(format));
  return Value::String(std::move(text));
}

}  // namespace baton::jinja
