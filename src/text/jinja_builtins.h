// The filters, tests, functions and methods that every template has.
//
// Threading: the tables are constant. Errors: InvalidArgument for what Python or Jinja would refuse.
#pragma once

#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "text/jinja_runtime.h"

namespace baton::jinja {

// One builtin. `parameters` is a signature in short: names in order, "name=default" where a default exists (none, true,
// false, '', an integer, or ? for undefined); "*" takes the other positional arguments as a tuple, "**" the other named
// ones as a dict; a leading "/" refuses names. `call` gets one value for each entry.
struct Builtin {
  std::string_view name;
  std::string_view parameters;
  absl::StatusOr<Value> (*call)(Runtime&, std::vector<Value>& arguments);
};

bool HasFilter(std::string_view name);
bool HasTest(std::string_view name);
absl::StatusOr<Value> CallFilter(Runtime& runtime, std::string_view name, const Value& value, Arguments arguments);
absl::StatusOr<bool> CallTest(Runtime& runtime, std::string_view name, const Value& value, Arguments arguments);
// A method of `self`, bound to it.
std::optional<Value> FindMethod(const Value& self, std::string_view name);
// A global function: range, namespace, raise_exception…
std::optional<Value> FindFunction(std::string_view name);
// value(arguments).
absl::StatusOr<Value> Call(Runtime& runtime, const Value& value, Arguments arguments);

// The tables, by the file that holds them.
std::span<const Builtin> TextFilters();      // jinja_text_filters.cc
std::span<const Builtin> NumberFilters();    // jinja_number_filters.cc
std::span<const Builtin> SequenceFilters();  // jinja_sequence_filters.cc
std::span<const Builtin> LazyFilters();      // jinja_lazy_filters.cc
std::span<const Builtin> SortingFilters();   // jinja_sorting_filters.cc
std::span<const Builtin> Predicates();       // jinja_predicates.cc: the tests
std::span<const Builtin> Functions();        // jinja_functions.cc
std::span<const Builtin> StringMethods();    // jinja_string_methods.cc
std::span<const Builtin> SplitMethods();     // jinja_split_methods.cc: of strings too
std::span<const Builtin> DictMethods();      // jinja_container_methods.cc
std::span<const Builtin> ListMethods();      // of tuples too
std::span<const Builtin> LoopMethods();
std::span<const Builtin> CyclerMethods();

// Follows a path of attributes ("function.name", "0", or an integer) through items. None: the value itself.
absl::StatusOr<Value> FollowPath(const Value& value, const Value& path);

}  // namespace baton::jinja
