// Filters about the items of a value: SequenceFilters of jinja_builtins.h.
#include <algorithm>
#include <array>

#include "text/jinja_access.h"
#include "text/jinja_builtins.h"
#include "text/jinja_operators.h"
#include "text/jinja_print.h"
#include "text/jinja_text.h"

namespace baton::jinja {

namespace {

using Values = std::vector<Value>;
using Result = absl::StatusOr<Value>;

Result Count(Runtime& runtime, Values& a) {
  BATON_ASSIGN_OR_RETURN(const int64_t length, Length(runtime, a[0]));
  return Value::Integer(length);
}

Result First(Runtime& runtime, Values& a) {
  if (a[0].is(Kind::kGenerator)) {
    Generator& generator = a[0].generator();
    if (generator.next < generator.items.size()) return generator.items[generator.next++];
    if (!generator.error.ok()) return generator.error;
    return Value::Undefined("there is no first item, the sequence is empty");
  }
  BATON_ASSIGN_OR_RETURN(const Values items, Iterate(runtime, a[0]));
  return items.empty() ? Value::Undefined("there is no first item, the sequence is empty") : items.front();
}

Result Last(Runtime& runtime, Values& a) {
  if (a[0].is(Kind::kGenerator)) return InvalidArgument("last expects a sequence, found a generator; use list first");
  BATON_ASSIGN_OR_RETURN(const Values items, Iterate(runtime, a[0]));
  return items.empty() ? Value::Undefined("there is no last item, the sequence is empty") : items.back();
}

Result List(Runtime& runtime, Values& a) {
  BATON_ASSIGN_OR_RETURN(Values items, Iterate(runtime, a[0]));
  return Value::List(std::move(items));
}

Result Join(Runtime& runtime, Values& a) {
  BATON_ASSIGN_OR_RETURN(const Values items, Iterate(runtime, a[0]));
  BATON_ASSIGN_OR_RETURN(const std::string separator, ToText(runtime, a[1]));
  std::string out;
  for (size_t i = 0; i < items.size(); ++i) {
    BATON_ASSIGN_OR_RETURN(const Value item, FollowPath(items[i], a[2]));
    BATON_ASSIGN_OR_RETURN(const std::string text, ToText(runtime, item));
    if (i > 0) out += separator;
    out += text;
    if (out.size() > runtime.limits().output_bytes) break;
  }
  BATON_RETURN_IF_ERROR(runtime.ChargeBytes(out.size()));
  return Value::String(std::move(out));
}

Result Reverse(Runtime& runtime, Values& a) {
  if (a[0].is_string()) {
    BATON_RETURN_IF_ERROR(runtime.ChargeBytes(a[0].string().size()));
    std::u32string text = ToCodePoints(a[0].string());
    std::reverse(text.begin(), text.end());
    return Value::String(FromCodePoints(text));
  }
  BATON_ASSIGN_OR_RETURN(Values items, Iterate(runtime, a[0]));
  std::reverse(items.begin(), items.end());
  // What Python can't walk backwards becomes a list first.
  if (a[0].is(Kind::kGenerator)) return Value::List(std::move(items));
  return Value::FromGenerator({.items = std::move(items)});
}

Result Default(Runtime&, Values& a) {
  const bool missing = a[0].is_undefined() || (IsTrue(a[2]) && !IsTrue(a[0]));
  return missing ? a[1] : a[0];
}

Result Attribute(Runtime& runtime, Values& a) {
  BATON_ASSIGN_OR_RETURN(const std::string name, ToText(runtime, a[1]));
  return GetOwnAttribute(a[0], name);
}

Result Items(Runtime&, Values& a) {
  Generator generator;
  if (a[0].is_dict()) {
    for (const auto& [key, value] : a[0].dict().entries()) generator.items.push_back(Value::Tuple({key, value}));
  } else if (!a[0].is_undefined()) {
    generator.error = InvalidArgument("items expects a dict, found ", a[0].TypeName());
  }
  return Value::FromGenerator(std::move(generator));
}

// The items of `value` for a lazy filter, whose errors wait for the reader.
Values ItemsFor(Runtime& runtime, const Value& value, Generator& generator) {
  absl::StatusOr<Values> items = Iterate(runtime, value);
  if (items.ok()) return *std::move(items);
  generator.error = items.status();
  return {};
}

Result Batch(Runtime& runtime, Values& a) {
  Generator generator;
  const Values items = ItemsFor(runtime, a[0], generator);
  const bool is_count = a[1].is_number();
  if (!is_count && generator.error.ok()) generator.error = InvalidArgument("batch expects a number of items");
  Values row;
  for (const Value& item : items) {
    if (is_count && static_cast<double>(row.size()) == a[1].number()) {
      generator.items.push_back(Value::List(std::exchange(row, {})));
    }
    row.push_back(item);
  }
  if (!row.empty()) {
    if (!a[2].is_none() && is_count && a[1].number() > static_cast<double>(row.size())) {
      if (!a[1].is_integral()) return InvalidArgument("batch expects an int, found float");
      BATON_RETURN_IF_ERROR(runtime.Charge(static_cast<uint64_t>(a[1].integer())));
      row.resize(static_cast<size_t>(a[1].integer()), a[2]);
    }
    generator.items.push_back(Value::List(std::move(row)));
  }
  return Value::FromGenerator(std::move(generator));
}

Result Slices(Runtime& runtime, Values& a) {
  Generator generator;
  const Values items = ItemsFor(runtime, a[0], generator);
  const int64_t slices = a[1].is_integral() ? a[1].integer() : 0;
  if (slices == 0 && generator.error.ok()) generator.error = InvalidArgument("slice expects a number of slices");
  if (!generator.error.ok() || slices < 0) return Value::FromGenerator(std::move(generator));
  BATON_RETURN_IF_ERROR(runtime.Charge(static_cast<uint64_t>(slices)));
  const auto length = static_cast<int64_t>(items.size());
  const int64_t longer = length % slices;
  auto next = items.begin();
  for (int64_t i = 0; i < slices; ++i) {
    const auto end = next + length / slices + (i < longer ? 1 : 0);
    Values row(next, end);
    if (!a[2].is_none() && i >= longer) row.push_back(a[2]);
    generator.items.push_back(Value::List(std::move(row)));
    next = end;
  }
  return Value::FromGenerator(std::move(generator));
}

constexpr std::array kFilters = {
    Builtin{"length", "/obj", Count},
    Builtin{"count", "/obj", Count},
    Builtin{"first", "seq", First},
    Builtin{"last", "seq", Last},
    Builtin{"list", "value", List},
    Builtin{"join", "value d='' attribute=none", Join},
    Builtin{"reverse", "value", Reverse},
    Builtin{"default", "value default_value='' boolean=false", Default},
    Builtin{"d", "value default_value='' boolean=false", Default},
    Builtin{"attr", "obj name", Attribute},
    Builtin{"items", "value", Items},
    Builtin{"batch", "value linecount fill_with=none", Batch},
    Builtin{"slice", "value slices fill_with=none", Slices},
};

}  // namespace

std::span<const Builtin> SequenceFilters() { return kFilters; }

}  // namespace baton::jinja
