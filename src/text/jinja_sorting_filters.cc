// Filters that order or compare items: SortingFilters of jinja_builtins.h.
#include <array>

#include "text/jinja_builtins.h"
#include "text/jinja_operators.h"
#include "text/jinja_text.h"

namespace baton::jinja {

namespace {

using Values = std::vector<Value>;
using Result = absl::StatusOr<Value>;

// Strings compare without their case, unless asked otherwise.
Value FoldCase(const Value& value, bool case_sensitive) {
  return value.is_string() && !case_sensitive ? Value::String(ToLower(value.string())) : value;
}

absl::StatusOr<Value> KeyOf(Runtime& runtime, const Value& item, const Value& path, bool case_sensitive) {
  BATON_ASSIGN_OR_RETURN(const Value value, FollowPath(item, path));
  if (value.is_string()) BATON_RETURN_IF_ERROR(runtime.ChargeBytes(value.string().size()));
  return FoldCase(value, case_sensitive);
}

// A stable order of `items` by `keys`.
absl::StatusOr<Values> SortByKeys(Runtime& runtime, const Values& items, const Values& keys, bool reverse) {
  BATON_ASSIGN_OR_RETURN(const std::vector<size_t> order, SortedOrder(runtime, keys, reverse));
  Values sorted;
  for (const size_t place : order) sorted.push_back(items[place]);
  return sorted;
}

// The paths of "a.b,c".
std::vector<Value> SplitPaths(const Value& path) {
  if (!path.is_string()) return {path};
  std::vector<Value> paths;
  std::string_view rest = path.string();
  while (true) {
    const std::string_view part = rest.substr(0, rest.find(','));
    paths.push_back(Value::String(std::string(part)));
    if (part.size() == rest.size()) return paths;
    rest.remove_prefix(part.size() + 1);
  }
}

Result Sort(Runtime& runtime, Values& a) {
  BATON_ASSIGN_OR_RETURN(const Values items, Iterate(runtime, a[0]));
  const std::vector<Value> paths = SplitPaths(a[3]);
  Values keys;
  for (const Value& item : items) {
    Values parts;
    for (const Value& path : paths) {
      BATON_ASSIGN_OR_RETURN(Value key, KeyOf(runtime, item, path, IsTrue(a[2])));
      parts.push_back(std::move(key));
    }
    keys.push_back(Value::List(std::move(parts)));
  }
  BATON_ASSIGN_OR_RETURN(Values sorted, SortByKeys(runtime, items, keys, IsTrue(a[1])));
  return Value::List(std::move(sorted));
}

Result SortDict(Runtime& runtime, Values& a) {
  const bool by_value = a[2].is_string() && a[2].string() == "value";
  if (!by_value && !a[2].is_undefined() && !(a[2].is_string() && a[2].string() == "key")) {
    return InvalidArgument("dictsort expects 'key' or 'value' to sort by");
  }
  if (a[0].is_undefined()) return UndefinedError(a[0]);
  if (!a[0].is_dict()) return InvalidArgument("dictsort expects a dict, found ", a[0].TypeName());
  Values items;
  Values keys;
  for (const auto& [key, value] : a[0].dict().entries()) {
    items.push_back(Value::Tuple({key, value}));
    keys.push_back(FoldCase(by_value ? value : key, IsTrue(a[1])));
  }
  BATON_ASSIGN_OR_RETURN(Values sorted, SortByKeys(runtime, items, keys, IsTrue(a[3])));
  return Value::List(std::move(sorted));
}

Result Unique(Runtime& runtime, Values& a) {
  Generator generator;
  const absl::StatusOr<Values> items = Iterate(runtime, a[0]);
  if (!items.ok()) {
    generator.error = items.status();
    return Value::FromGenerator(std::move(generator));
  }
  Dict seen;
  for (const Value& item : *items) {
    const absl::StatusOr<Value> key = KeyOf(runtime, item, a[2], IsTrue(a[1]));
    generator.error = key.status();
    if (!generator.error.ok()) break;
    if (!Dict::IsHashable(*key)) {
      generator.error = InvalidArgument("unique can't compare a ", key->TypeName());
      break;
    }
    if (seen.Find(*key) != nullptr) continue;
    seen.Set(*key, Value::None());
    BATON_RETURN_IF_ERROR(runtime.Charge(1 + (key->is_string() ? 0 : seen.size())));
    generator.items.push_back(item);
  }
  return Value::FromGenerator(std::move(generator));
}

// The least item (`greatest`: the greatest); the first of equals.
Result Extreme(Runtime& runtime, Values& a, bool greatest) {
  BATON_ASSIGN_OR_RETURN(const Values items, Iterate(runtime, a[0]));
  if (items.empty()) return Value::Undefined("there is no extreme item, the sequence is empty");
  size_t best = 0;
  Value best_key;
  for (size_t i = 0; i < items.size(); ++i) {
    BATON_ASSIGN_OR_RETURN(const Value key, KeyOf(runtime, items[i], a[2], IsTrue(a[1])));
    if (i > 0) {
      BATON_ASSIGN_OR_RETURN(const bool better,
                             greatest ? IsLess(runtime, best_key, key) : IsLess(runtime, key, best_key));
      if (!better) continue;
    }
    best = i;
    best_key = key;
  }
  return items[best];
}

Result Min(Runtime& runtime, Values& a) { return Extreme(runtime, a, false); }
Result Max(Runtime& runtime, Values& a) { return Extreme(runtime, a, true); }

// A list of (grouper, list) in the order of the groupers.
Result GroupBy(Runtime& runtime, Values& a) {
  BATON_ASSIGN_OR_RETURN(const Values items, Iterate(runtime, a[0]));
  std::vector<Value> pairs;  // of an item and its key as it is
  Values keys;
  for (const Value& item : items) {
    BATON_ASSIGN_OR_RETURN(Value key, FollowPath(item, a[1]));
    if (key.is_undefined() && !a[2].is_none()) key = a[2];
    keys.push_back(FoldCase(key, IsTrue(a[3])));
    pairs.push_back(Value::Tuple({item, key, keys.back()}));
  }
  BATON_ASSIGN_OR_RETURN(const Values sorted, SortByKeys(runtime, pairs, keys, false));
  Values groups;
  for (size_t i = 0; i < sorted.size();) {
    const Value& key = sorted[i].items()[2];
    const Value grouper = sorted[i].items()[1];
    Values members;
    for (; i < sorted.size(); ++i) {
      BATON_ASSIGN_OR_RETURN(const bool same, AreEqual(runtime, sorted[i].items()[2], key));
      if (!same) break;
      members.push_back(sorted[i].items()[0]);
    }
    if (members.empty()) return InvalidArgument("groupby can't group by a value that differs from itself");
    groups.push_back(Value::Group(grouper, Value::List(std::move(members))));
  }
  return Value::List(std::move(groups));
}

constexpr std::array kFilters = {
    Builtin{"sort", "value reverse=false case_sensitive=false attribute=none", Sort},
    Builtin{"dictsort", "value case_sensitive=false by=? reverse=false", SortDict},
    Builtin{"unique", "value case_sensitive=false attribute=none", Unique},
    Builtin{"min", "value case_sensitive=false attribute=none", Min},
    Builtin{"max", "value case_sensitive=false attribute=none", Max},
    Builtin{"groupby", "value attribute default=none case_sensitive=false", GroupBy},
};

}  // namespace

std::span<const Builtin> SortingFilters() { return kFilters; }

}  // namespace baton::jinja
