// map, select and their kin: LazyFilters of jinja_builtins.h. What goes wrong with an item is an error only for a
// reader that reaches it, as in Python's generators.
#include <array>
#include <functional>

#include "text/jinja_builtins.h"
#include "text/jinja_operators.h"
#include "text/jinja_text.h"

namespace baton::jinja {

namespace {

using Values = std::vector<Value>;
using Result = absl::StatusOr<Value>;

Arguments ArgumentsFrom(const Value& positional, size_t first, const Dict& named) {
  Arguments arguments;
  for (size_t i = first; i < positional.items().size(); ++i) arguments.positional.push_back(positional.items()[i]);
  for (const auto& [name, value] : named.entries()) arguments.named.emplace_back(name.string(), value);
  return arguments;
}

// Feeds the items of `value` to `step`, which adds to the generator; stops at the first error.
Result Generate(Runtime& runtime, const Value& value,
                const std::function<absl::Status(const Value& item, Generator& generator)>& step) {
  Generator generator;
  if (!IsTrue(value)) return Value::FromGenerator(std::move(generator));
  const absl::StatusOr<Values> items = Iterate(runtime, value);
  if (!items.ok()) {
    generator.error = items.status();
    return Value::FromGenerator(std::move(generator));
  }
  for (const Value& item : *items) {
    generator.error = step(item, generator);
    if (!generator.error.ok()) break;
  }
  return Value::FromGenerator(std::move(generator));
}

Result Failed(absl::Status error) { return Value::FromGenerator({.items = {}, .error = std::move(error)}); }

Result MapAttribute(Runtime& runtime, const Value& value, const Dict& named) {
  const Value attribute = *named.Find("attribute");
  const Value* found = named.Find("default");
  const Value fallback = found == nullptr ? Value::None() : *found;
  for (const auto& [name, unused] : named.entries()) {
    if (name.string() != "attribute" && name.string() != "default") {
      return Failed(InvalidArgument("map has no argument ", QuoteText(name.string()), " beside attribute and default"));
    }
  }
  return Generate(runtime, value, [&](const Value& item, Generator& generator) -> absl::Status {
    BATON_ASSIGN_OR_RETURN(Value result, FollowPath(item, attribute));
    if (result.is_undefined() && !fallback.is_none()) result = fallback;
    generator.items.push_back(std::move(result));
    return absl::OkStatus();
  });
}

Result Map(Runtime& runtime, Values& a) {
  const Dict& named = a[2].dict();
  if (!IsTrue(a[0])) return Value::FromGenerator({});
  if (a[1].items().empty() && named.Find("attribute") != nullptr) return MapAttribute(runtime, a[0], named);
  if (a[1].items().empty() || !a[1].items()[0].is_string()) {
    return Failed(InvalidArgument("map expects the name of a filter"));
  }
  const std::string filter = a[1].items()[0].string();
  return Generate(runtime, a[0], [&](const Value& item, Generator& generator) -> absl::Status {
    BATON_ASSIGN_OR_RETURN(Value result, CallFilter(runtime, filter, item, ArgumentsFrom(a[1], 1, named)));
    generator.items.push_back(std::move(result));
    return absl::OkStatus();
  });
}

// `wanted`: what the test must say. `by_attribute`: the first argument names what is tested.
Result Choose(Runtime& runtime, Values& a, bool wanted, bool by_attribute) {
  if (!IsTrue(a[0])) return Value::FromGenerator({});
  const Values& arguments = a[1].items();
  const size_t offset = by_attribute ? 1 : 0;
  if (arguments.size() < offset) return Failed(InvalidArgument("expected the name of an attribute to select by"));
  const Value attribute = by_attribute ? arguments[0] : Value::None();
  const bool has_test = arguments.size() > offset;
  if (has_test && !arguments[offset].is_string()) return Failed(InvalidArgument("select expects the name of a test"));
  const std::string test = has_test ? arguments[offset].string() : "";
  return Generate(runtime, a[0], [&](const Value& item, Generator& generator) -> absl::Status {
    BATON_ASSIGN_OR_RETURN(const Value tested, FollowPath(item, attribute));
    bool passed = IsTrue(tested);
    if (has_test) {
      BATON_ASSIGN_OR_RETURN(passed, CallTest(runtime, test, tested, ArgumentsFrom(a[1], offset + 1, a[2].dict())));
    }
    if (passed == wanted) generator.items.push_back(item);
    return absl::OkStatus();
  });
}

Result Select(Runtime& runtime, Values& a) { return Choose(runtime, a, true, false); }
Result Reject(Runtime& runtime, Values& a) { return Choose(runtime, a, false, false); }
Result SelectAttribute(Runtime& runtime, Values& a) { return Choose(runtime, a, true, true); }
Result RejectAttribute(Runtime& runtime, Values& a) { return Choose(runtime, a, false, true); }

constexpr std::array kFilters = {
    Builtin{"map", "/value * **", Map},
    Builtin{"select", "/value * **", Select},
    Builtin{"reject", "/value * **", Reject},
    Builtin{"selectattr", "/value * **", SelectAttribute},
    Builtin{"rejectattr", "/value * **", RejectAttribute},
};

}  // namespace

std::span<const Builtin> LazyFilters() { return kFilters; }

}  // namespace baton::jinja
