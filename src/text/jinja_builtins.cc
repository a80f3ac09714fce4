#include "text/jinja_builtins.h"

#include <charconv>
#include <initializer_list>
#include <string>
#include <unordered_map>

#include "text/jinja_access.h"
#include "text/jinja_operators.h"
#include "text/jinja_text.h"

namespace baton::jinja {

namespace {

struct BoundParameter {
  std::string_view name;
  bool required = true;
  Value default_value;
};

struct Signature {
  const Builtin* builtin = nullptr;
  bool positional_only = false;
  std::vector<BoundParameter> parameters;  // "*" and "**" under those names
};

Value ParseDefault(std::string_view text) {
  if (text == "?") return Value();
  if (text == "none") return Value::None();
  if (text == "true" || text == "false") return Value::Bool(text == "true");
  if (text == "''") return Value::String("");
  int64_t number = 0;
  std::from_chars(text.data(), text.data() + text.size(), number);
  return Value::Integer(number);
}

Signature ParseSignature(const Builtin& builtin) {
  Signature signature{.builtin = &builtin};
  std::string_view text = builtin.parameters;
  if (text.starts_with('/')) {
    signature.positional_only = true;
    text.remove_prefix(1);
  }
  while (!text.empty()) {
    const std::string_view word = text.substr(0, text.find(' '));
    text.remove_prefix(std::min(word.size() + 1, text.size()));
    const size_t equals = word.find('=');
    BoundParameter parameter{word.substr(0, equals), equals == word.npos};
    if (!parameter.required) parameter.default_value = ParseDefault(word.substr(equals + 1));
    signature.parameters.push_back(std::move(parameter));
  }
  return signature;
}

class Table {
 public:
  Table(std::initializer_list<std::span<const Builtin>> parts) {
    for (const auto& part : parts) {
      for (const Builtin& builtin : part) signatures_.emplace(builtin.name, ParseSignature(builtin));
    }
  }
  const Signature* Find(std::string_view name) const {
    const auto found = signatures_.find(name);
    return found == signatures_.end() ? nullptr : &found->second;
  }

 private:
  std::unordered_map<std::string_view, Signature> signatures_;
};

const Table& FilterTable() {
  static const Table table{TextFilters(), NumberFilters(), SequenceFilters(), LazyFilters(), SortingFilters()};
  return table;
}
const Table& TestTable() {
  static const Table table{Predicates()};
  return table;
}
const Table& FunctionTable() {
  static const Table table{Functions()};
  return table;
}

const Table* MethodTable(Kind kind) {
  static const Table strings{StringMethods(), SplitMethods()};
  static const Table dicts{DictMethods()};
  static const Table lists{ListMethods()};
  static const Table loops{LoopMethods()};
  static const Table cyclers{CyclerMethods()};
  switch (kind) {
    case Kind::kString:
      return &strings;
    case Kind::kDict:
      return &dicts;
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kRange:
      return &lists;
    case Kind::kLoop:
      return &loops;
    case Kind::kCycler:
      return &cyclers;
    default:
      return nullptr;
  }
}

// The named argument `name`, taken out of `arguments`.
std::optional<Value> TakeNamed(Arguments& arguments, std::string_view name) {
  for (auto it = arguments.named.begin(); it != arguments.named.end(); ++it) {
    if (it->first != name) continue;
    Value value = std::move(it->second);
    arguments.named.erase(it);
    return value;
  }
  return std::nullopt;
}

Value RestOfNamed(Arguments& arguments) {
  Dict rest;
  for (auto& [name, value] : arguments.named) rest.Set(name, std::move(value));
  arguments.named.clear();
  return Value::FromDict(std::move(rest));
}

absl::StatusOr<std::vector<Value>> Bind(const Signature& signature, Arguments arguments) {
  const std::string_view name = signature.builtin->name;
  std::vector<Value> bound;
  size_t used = 0;
  for (const BoundParameter& parameter : signature.parameters) {
    if (parameter.name == "*") {
      const auto first = arguments.positional.begin() + static_cast<ptrdiff_t>(used);
      bound.push_back(Value::Tuple({first, arguments.positional.end()}));
      used = arguments.positional.size();
    } else if (parameter.name == "**") {
      bound.push_back(RestOfNamed(arguments));
    } else if (used < arguments.positional.size()) {
      bound.push_back(std::move(arguments.positional[used++]));
    } else if (std::optional<Value> named = TakeNamed(arguments, signature.positional_only ? "" : parameter.name)) {
      bound.push_back(std::move(*named));
    } else if (!parameter.required) {
      bound.push_back(parameter.default_value);
    } else {
      return InvalidArgument(name, " expects the argument '", parameter.name, "'");
    }
  }
  if (used < arguments.positional.size()) {
    return InvalidArgument(name, " expects at most ", used, " arguments, found ", arguments.positional.size());
  }
  if (!arguments.named.empty()) {
    return InvalidArgument(name, " has no argument '", arguments.named.front().first, "'");
  }
  return bound;
}

absl::StatusOr<Value> CallBuiltin(Runtime& runtime, const Signature& signature, Arguments arguments) {
  BATON_RETURN_IF_ERROR(runtime.Charge(1 + arguments.positional.size() + arguments.named.size()));
  if (runtime.filter_depth >= runtime.limits().filter_depth) {
    return InvalidArgument("filters run inside each other deeper than the limit of ", runtime.limits().filter_depth);
  }
  BATON_ASSIGN_OR_RETURN(std::vector<Value> bound, Bind(signature, std::move(arguments)));
  ++runtime.filter_depth;
  absl::StatusOr<Value> result = signature.builtin->call(runtime, bound);
  --runtime.filter_depth;
  return result;
}

// `self` is the first argument, unless it is undefined as a sign that there is none.
Value MakeCallable(const Signature& signature, std::optional<Value> self) {
  const int depth = self.has_value() ? self->depth() + 1 : 1;
  auto call = [&signature, self = std::move(self)](Runtime& runtime, Arguments arguments) {
    if (self.has_value()) arguments.positional.insert(arguments.positional.begin(), *self);
    return CallBuiltin(runtime, signature, std::move(arguments));
  };
  return Value::FromCallable({std::string(signature.builtin->name), std::move(call)}, depth);
}

}  // namespace

bool HasFilter(std::string_view name) { return FilterTable().Find(name) != nullptr; }
bool HasTest(std::string_view name) { return TestTable().Find(name) != nullptr; }

absl::StatusOr<Value> CallFilter(Runtime& runtime, std::string_view name, const Value& value, Arguments arguments) {
  const Signature* signature = FilterTable().Find(name);
  if (signature == nullptr) return InvalidArgument("there is no filter named ", QuoteText(name));
  arguments.positional.insert(arguments.positional.begin(), value);
  return CallBuiltin(runtime, *signature, std::move(arguments));
}

absl::StatusOr<bool> CallTest(Runtime& runtime, std::string_view name, const Value& value, Arguments arguments) {
  const Signature* signature = TestTable().Find(name);
  if (signature == nullptr) return InvalidArgument("there is no test named ", QuoteText(name));
  arguments.positional.insert(arguments.positional.begin(), value);
  BATON_ASSIGN_OR_RETURN(const Value result, CallBuiltin(runtime, *signature, std::move(arguments)));
  return IsTrue(result);
}

std::optional<Value> FindMethod(const Value& self, std::string_view name) {
  const Table* table = MethodTable(self.kind());
  const Signature* signature = table == nullptr ? nullptr : table->Find(name);
  if (signature == nullptr) return std::nullopt;
  return MakeCallable(*signature, self);
}

std::optional<Value> FindFunction(std::string_view name) {
  const Signature* signature = FunctionTable().Find(name);
  if (signature == nullptr) return std::nullopt;
  return MakeCallable(*signature, std::nullopt);
}

absl::StatusOr<Value> Call(Runtime& runtime, const Value& value, Arguments arguments) {
  BATON_RETURN_IF_ERROR(runtime.Charge(1));
  if (value.is(Kind::kCallable)) return value.callable().call(runtime, std::move(arguments));
  if (value.is_undefined()) return UndefinedError(value);
  if (value.is(Kind::kLoop)) {
    if (!value.loop().recurse) return InvalidArgument("expected 'recursive' at the for whose loop is called");
    if (arguments.positional.size() != 1 || !arguments.named.empty()) {
      return InvalidArgument("a recursive loop is called with one argument");
    }
    return value.loop().recurse(runtime, std::move(arguments.positional[0]));
  }
  return InvalidArgument("expected something to call, found ", value.TypeName());
}

absl::StatusOr<Value> FollowPath(const Value& value, const Value& path) {
  if (path.is_none()) return value;
  auto step = [](const Value& from, const Value& key) -> absl::StatusOr<Value> {
    if (from.is_undefined()) return UndefinedError(from);
    return GetItem(from, key);
  };
  if (!path.is_string()) return step(value, path);
  Value current = value;
  std::string_view rest = path.string();
  while (true) {
    const std::string_view part = rest.substr(0, rest.find('.'));
    int64_t number = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), number);
    const bool is_number = !part.empty() && part[0] != '-' && error == std::errc() && end == part.data() + part.size();
    BATON_ASSIGN_OR_RETURN(current,
                           step(current, is_number ? Value::Integer(number) : Value::String(std::string(part))));
    if (part.size() == rest.size()) return current;
    rest.remove_prefix(part.size() + 1);
  }
}

}  // namespace baton::jinja
