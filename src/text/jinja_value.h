// The dynamic values of a template: what Python's objects are to Jinja.
//
//   Value greeting = Value::String("hello");
//   Value list = Value::List({greeting, Value::Integer(3), Value::None()});
//
// Threading: values that a template only reads (everything but generators, namespaces, loops and cyclers, which live
// inside one rendering) may be shared between threads.
// Ownership: copies share their contents, which never change after they were built (again but for those four).
// Errors: accessors require the right kind.
// Limits: depth() counts nesting, so that the interpreter can refuse what would overflow the stack.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/status.h"

namespace baton::jinja {

enum class Kind : uint8_t {
  kUndefined,
  kNone,
  kBool,
  kInteger,
  kDouble,
  kString,
  kList,
  kTuple,
  kRange,     // range(...)
  kDictView,  // what .keys(), .values() and .items() return
  kDict,
  kGenerator,  // what lazy filters return: true, without a length, read once
  kCallable,
  kNamespace,
  kLoop,  // the `loop` of a for
  kCycler,
};

class Dict;
class Runtime;
class Value;
struct Arguments;
struct Callable;
struct Cycler;
struct Generator;
struct Loop;
struct Namespace;

class Value {
 public:
  Value() = default;  // undefined
  // `message` says why it is undefined, for the error of whoever uses it.
  static Value Undefined(std::string message);
  static Value None() { return Value(Kind::kNone); }
  static Value Bool(bool value);
  static Value Integer(int64_t value);
  static Value Double(double value);
  static Value String(std::string text);
  static Value List(std::vector<Value> items);
  static Value Tuple(std::vector<Value> items);
  static Value Range(std::vector<Value> items, std::string label);     // label: how it prints
  static Value DictView(std::vector<Value> items, std::string label);  // label: "dict_keys" and so on
  static Value Group(Value grouper, Value list);                       // a pair with these names, as groupby makes it
  static Value FromDict(Dict dict);
  static Value FromGenerator(Generator generator);
  static Value FromCallable(Callable callable, int depth = 1);
  static Value FromNamespace(std::shared_ptr<Namespace> value);
  static Value FromLoop(std::shared_ptr<Loop> value);
  static Value FromCycler(std::shared_ptr<Cycler> value);

  Kind kind() const { return kind_; }
  bool is(Kind kind) const { return kind_ == kind; }
  bool is_undefined() const { return kind_ == Kind::kUndefined; }
  bool is_none() const { return kind_ == Kind::kNone; }
  bool is_string() const { return kind_ == Kind::kString; }
  bool is_dict() const { return kind_ == Kind::kDict; }
  // Integers, and booleans, which are integers to Python.
  bool is_integral() const { return kind_ == Kind::kInteger || kind_ == Kind::kBool; }
  bool is_number() const { return is_integral() || kind_ == Kind::kDouble; }
  // Kinds whose items() can be read.
  bool is_sequence() const { return kind_ >= Kind::kList && kind_ <= Kind::kDictView; }

  bool boolean() const { return integer_ != 0; }
  int64_t integer() const { return integer_; }  // of a boolean too
  double number() const { return kind_ == Kind::kDouble ? double_ : static_cast<double>(integer_); }
  const std::string& string() const { return *static_cast<const std::string*>(object_.get()); }
  const std::vector<Value>& items() const;
  const std::string& label() const;
  const Dict& dict() const { return *static_cast<const Dict*>(object_.get()); }
  Generator& generator() const { return *static_cast<Generator*>(object_.get()); }
  const Callable& callable() const { return *static_cast<const Callable*>(object_.get()); }
  Namespace& name_space() const { return *static_cast<Namespace*>(object_.get()); }
  Loop& loop() const { return *static_cast<Loop*>(object_.get()); }
  Cycler& cycler() const { return *static_cast<Cycler*>(object_.get()); }

  // Python's `is`.
  bool IsSameObject(const Value& other) const;
  // Why this undefined value is undefined.
  std::string UndefinedMessage() const;
  // The name of the kind in Python, for messages: "str", "dict".
  std::string_view TypeName() const;
  int depth() const { return depth_; }

 private:
  explicit Value(Kind kind) : kind_(kind) {}
  Value(Kind kind, std::shared_ptr<void> object, int depth);
  static Value Sequence(Kind kind, std::vector<Value> items, std::string label);

  Kind kind_ = Kind::kUndefined;
  uint16_t depth_ = 0;
  union {
    int64_t integer_ = 0;
    double double_;
  };
  std::shared_ptr<void> object_;
};

// A dict in insertion order. Keys: strings, numbers, None, undefined, and tuples of those.
class Dict {
 public:
  using Entry = std::pair<Value, Value>;
  static bool IsHashable(const Value& key);
  // Replaces the value of an equal key, which keeps its place. `key` must be hashable.
  void Set(const Value& key, Value value);
  void Set(std::string_view key, Value value) { Set(Value::String(std::string(key)), std::move(value)); }
  // nullptr where there is none.
  const Value* Find(const Value& key) const;
  const Value* Find(std::string_view key) const;
  const std::vector<Entry>& entries() const { return entries_; }
  size_t size() const { return entries_.size(); }
  int depth() const { return depth_; }  // of the deepest key or value

 private:
  size_t FindOther(const Value& key) const;

  std::vector<Entry> entries_;
  std::unordered_map<std::string, size_t> index_;  // of the string keys
  std::vector<size_t> others_;                     // places of the other keys
  int depth_ = 0;
};

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

struct Callable {
  std::string name;
  std::function<absl::StatusOr<Value>(Runtime&, Arguments)> call;
};

// Items were computed ahead; an error of the computation waits until a reader reaches its place.
struct Generator {
  std::vector<Value> items;
  absl::Status error;
  size_t next = 0;
};

struct Namespace {
  Dict attributes;
};

struct Loop {
  std::vector<Value> items;
  size_t index = 0;
  int nesting = 0;  // loop.depth0
  bool has_changed_value = false;
  Value changed_value;
  std::function<absl::StatusOr<Value>(Runtime&, Value)> recurse;  // empty unless the loop is recursive
};

struct Cycler {
  std::vector<Value> items;
  size_t position = 0;
};

}  // namespace baton::jinja
