// Methods of dicts, lists, loops and cyclers: tables of jinja_builtins.h. Argument 0 is the object itself.
#include <algorithm>
#include <array>

#include "text/jinja_builtins.h"
#include "text/jinja_operators.h"

namespace baton::jinja {

namespace {

using Values = std::vector<Value>;
using Result = absl::StatusOr<Value>;

Result Get(Runtime&, Values& a) {
  if (!Dict::IsHashable(a[1])) {
    return InvalidArgument("a ", a[1].TypeName(), " can't be the key of a dict");
  }
  const Value* found = a[0].dict().Find(a[1]);
  return found == nullptr ? a[2] : *found;
}

Result Keys(Runtime& runtime, Values& a) {
  BATON_RETURN_IF_ERROR(runtime.Charge(a[0].dict().size()));
  Values keys;
  for (const auto& [key, value] : a[0].dict().entries()) keys.push_back(key);
  return Value::DictView(std::move(keys), "dict_keys");
}

Result ValuesOf(Runtime& runtime, Values& a) {
  BATON_RETURN_IF_ERROR(runtime.Charge(a[0].dict().size()));
  Values values;
  for (const auto& [key, value] : a[0].dict().entries()) values.push_back(value);
  return Value::DictView(std::move(values), "dict_values");
}

Result Items(Runtime& runtime, Values& a) {
  BATON_RETURN_IF_ERROR(runtime.Charge(a[0].dict().size()));
  Values items;
  for (const auto& [key, value] : a[0].dict().entries()) items.push_back(Value::Tuple({key, value}));
  return Value::DictView(std::move(items), "dict_items");
}

Result Copy(Runtime&, Values& a) { return a[0]; }  // values never change

Result CountEqual(Runtime& runtime, Values& a) {
  int64_t count = 0;
  for (const Value& item : a[0].items()) {
    BATON_ASSIGN_OR_RETURN(const bool equal, AreEqual(runtime, item, a[1]));
    count += equal ? 1 : 0;
  }
  return Value::Integer(count);
}

Result Index(Runtime& runtime, Values& a) {
  const auto length = static_cast<int64_t>(a[0].items().size());
  auto clamp = [&](const Value& value, int64_t missing) {
    if (!value.is_integral()) return missing;
    const int64_t index = value.integer() < 0 ? value.integer() + length : value.integer();
    return std::clamp<int64_t>(index, 0, length);
  };
  for (int64_t i = clamp(a[2], 0); i < clamp(a[3], length); ++i) {
    BATON_ASSIGN_OR_RETURN(const bool equal, AreEqual(runtime, a[0].items()[static_cast<size_t>(i)], a[1]));
    if (equal) return Value::Integer(i);
  }
  return InvalidArgument("the item that index looks for is not in the list");
}

Result Cycle(Runtime&, Values& a) {
  const Values& choices = a[1].items();
  if (choices.empty()) return InvalidArgument("loop.cycle expects at least one item");
  return choices[a[0].loop().index % choices.size()];
}

// True where the arguments differ from those of the call before.
Result Changed(Runtime& runtime, Values& a) {
  Loop& loop = a[0].loop();
  bool same = false;
  if (loop.has_changed_value) {
    BATON_ASSIGN_OR_RETURN(same, AreEqual(runtime, loop.changed_value, a[1]));
  }
  if (same) return Value::Bool(false);
  if (a[1].depth() > 1) runtime.TakeApartAtEnd(a[0]);
  loop.has_changed_value = true;
  loop.changed_value = a[1];
  return Value::Bool(true);
}

Result Next(Runtime&, Values& a) {
  Cycler& cycler = a[0].cycler();
  Value item = cycler.items[cycler.position];
  cycler.position = (cycler.position + 1) % cycler.items.size();
  return item;
}

Result Reset(Runtime&, Values& a) {
  a[0].cycler().position = 0;
  return Value::None();
}

constexpr std::array kDictMethods = {
    Builtin{"get", "/self key default=none", Get},
    Builtin{"keys", "/self", Keys},
    Builtin{"values", "/self", ValuesOf},
    Builtin{"items", "/self", Items},
    Builtin{"copy", "/self", Copy},
};
constexpr std::array kListMethods = {
    Builtin{"count", "/self value", CountEqual},
    Builtin{"index", "/self value start=? stop=?", Index},
    Builtin{"copy", "/self", Copy},
};
constexpr std::array kLoopMethods = {
    Builtin{"cycle", "/self *", Cycle},
    Builtin{"changed", "/self *", Changed},
};
constexpr std::array kCyclerMethods = {
    Builtin{"next", "/self", Next},
    Builtin{"reset", "/self", Reset},
};

}  // namespace

std::span<const Builtin> DictMethods() { return kDictMethods; }
std::span<const Builtin> ListMethods() { return kListMethods; }
std::span<const Builtin> LoopMethods() { return kLoopMethods; }
std::span<const Builtin> CyclerMethods() { return kCyclerMethods; }

}  // namespace baton::jinja
