// The global functions of a template: Functions of jinja_builtins.h.
#include <algorithm>
#include <array>
#include <ctime>

#include "text/jinja_builtins.h"
#include "text/jinja_operators.h"
#include "text/jinja_print.h"

namespace baton::jinja {

namespace {

using Values = std::vector<Value>;
using Result = absl::StatusOr<Value>;

Result Range(Runtime& runtime, Values& a) {
  const Values& arguments = a[0].items();
  if (arguments.empty() || arguments.size() > 3) return InvalidArgument("range expects 1 to 3 integers");
  for (const Value& value : arguments) {
    if (value.is_undefined()) return UndefinedError(value);
    if (!value.is_integral()) return InvalidArgument("range expects int, found ", value.TypeName());
  }
  const bool only_stop = arguments.size() == 1;
  const int64_t start = only_stop ? 0 : arguments[0].integer();
  const int64_t stop = arguments[only_stop ? 0 : 1].integer();
  const int64_t step = arguments.size() == 3 ? arguments[2].integer() : 1;
  if (step == 0) return InvalidArgument("the step of a range can't be 0");
  const int64_t limit = runtime.limits().range_items;
  Values items;
  for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
    if (static_cast<int64_t>(items.size()) == limit) {
      return InvalidArgument("a range has more items than the limit of ", limit);
    }
    items.push_back(Value::Integer(i));
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  BATON_RETURN_IF_ERROR(runtime.Charge(items.size()));
  std::string label = Cat("range(", start, ", ", stop);
  label += step == 1 ? ")" : Cat(", ", step, ")");
  return Value::Range(std::move(items), std::move(label));
}

// dict(mapping or pairs, name=value…)
absl::StatusOr<Dict> BuildDict(Runtime& runtime, Values& a, std::string_view name) {
  const Values& arguments = a[0].items();
  if (arguments.size() > 1) return InvalidArgument(name, " expects one positional argument, found ", arguments.size());
  Dict dict;
  if (!arguments.empty() && arguments[0].is_dict()) {
    dict = arguments[0].dict();
  } else if (!arguments.empty()) {
    BATON_ASSIGN_OR_RETURN(const Values pairs, Iterate(runtime, arguments[0]));
    for (const Value& pair : pairs) {
      BATON_ASSIGN_OR_RETURN(const Values parts, Iterate(runtime, pair));
      if (parts.size() != 2) return InvalidArgument(name, " expects pairs, found ", parts.size(), " values");
      if (!Dict::IsHashable(parts[0])) return InvalidArgument("a ", parts[0].TypeName(), " can't be the key of a dict");
      dict.Set(parts[0], parts[1]);
    }
  }
  for (const auto& [key, value] : a[1].dict().entries()) dict.Set(key, value);
  BATON_RETURN_IF_ERROR(runtime.Charge(dict.size()));
  return dict;
}

Result MakeDict(Runtime& runtime, Values& a) {
  BATON_ASSIGN_OR_RETURN(Dict dict, BuildDict(runtime, a, "dict"));
  return Value::FromDict(std::move(dict));
}

Result MakeNamespace(Runtime& runtime, Values& a) {
  BATON_ASSIGN_OR_RETURN(Dict dict, BuildDict(runtime, a, "namespace"));
  return runtime.MakeNamespace(std::move(dict));
}

// Nothing at the first call, the separator ever after.
Result MakeJoiner(Runtime&, Values& a) {
  const Value separator = a[0].is_undefined() ? Value::String(", ") : a[0];
  auto used = std::make_shared<bool>(false);
  auto call = [separator, used](Runtime&, Arguments arguments) -> Result {
    if (!arguments.positional.empty() || !arguments.named.empty())
      return InvalidArgument("a joiner takes no arguments");
    return std::exchange(*used, true) ? separator : Value::String("");
  };
  return Value::FromCallable({"joiner", std::move(call)}, separator.depth() + 1);
}

Result MakeCycler(Runtime&, Values& a) {
  if (a[0].items().empty()) return InvalidArgument("cycler expects at least one item");
  return Value::FromCycler(std::make_shared<Cycler>(Cycler{a[0].items()}));
}

Result RaiseException(Runtime& runtime, Values& a) {
  BATON_ASSIGN_OR_RETURN(const std::string message, ToText(runtime, a[0]));
  runtime.raised = true;
  return InvalidArgument(message);
}

// Python's datetime has microseconds and, here, no time zone; the rest is the C library's.
std::string AdaptFormat(std::string_view format, int64_t microseconds) {
  std::string out;
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%' || i + 1 == format.size()) {
      out.push_back(format[i]);
      continue;
    }
    const char c = format[++i];
    if (c == 'f') {
      const std::string digits = Cat(microseconds);
      out += std::string(6 - digits.size(), '0') + digits;
    } else if (c != 'z' && c != 'Z') {
      out += {'%', c};
    }
  }
  return out;
}

Result FormatTime(Runtime& runtime, Values& a) {
  if (!a[0].is_string()) return InvalidArgument("strftime_now expects str, found ", a[0].TypeName());
  if (a[0].string().size() > 1000) return InvalidArgument("strftime_now expects a format of at most 1000 bytes");
  const auto microseconds =
      std::chrono::duration_cast<std::chrono::microseconds>(runtime.now().time_since_epoch()).count() % 1'000'000;
  const std::time_t time = std::chrono::system_clock::to_time_t(runtime.now());
  std::tm local{};
  if (localtime_r(&time, &local) == nullptr) return InvalidArgument("the clock has no local time");
  const std::string format = AdaptFormat(a[0].string(), std::max<int64_t>(microseconds, 0));
  // The final space tells an empty result from a buffer that is too small.
  std::string out(64 * 1024, '\0');
  const size_t size = std::strftime(out.data(), out.size(), (format + " ").c_str(), &local);
  if (size == 0) return InvalidArgument("strftime_now makes too long a text");
  out.resize(size - 1);
  return Value::String(std::move(out));
}

constexpr std::array kFunctions = {
    Builtin{"range", "/*", Range},
    Builtin{"dict", "/* **", MakeDict},
    Builtin{"namespace", "/* **", MakeNamespace},
    Builtin{"joiner", "sep=?", MakeJoiner},
    Builtin{"cycler", "/*", MakeCycler},
    Builtin{"raise_exception", "message", RaiseException},
    Builtin{"strftime_now", "format", FormatTime},
};

}  // namespace

std::span<const Builtin> Functions() { return kFunctions; }

}  // namespace baton::jinja
