#include "text/jinja_value.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace baton::jinja {

namespace {

struct SequenceObject {
  std::vector<Value> items;
  std::string label;
};

int DepthOf(const std::vector<Value>& items) {
  int depth = 0;
  for (const Value& item : items) depth = std::max(depth, item.depth());
  return depth;
}

constexpr size_t kNowhere = std::numeric_limits<size_t>::max();

// Equality of hashable keys.
bool KeysEqual(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    return a.is_integral() && b.is_integral() ? a.integer() == b.integer() : a.number() == b.number();
  }
  if (a.kind() != b.kind()) return false;
  if (a.is_string()) return a.string() == b.string();
  if (!a.is(Kind::kTuple)) return true;  // None and undefined
  return std::equal(a.items().begin(), a.items().end(), b.items().begin(), b.items().end(), KeysEqual);
}

}  // namespace

Value::Value(Kind kind, std::shared_ptr<void> object, int depth)
    : kind_(kind), depth_(static_cast<uint16_t>(std::min(depth, 65535))), object_(std::move(object)) {}

Value Value::Undefined(std::string message) {
  return Value(Kind::kUndefined, std::make_shared<std::string>(std::move(message)), 0);
}

Value Value::Bool(bool value) {
  Value out(Kind::kBool);
  out.integer_ = value ? 1 : 0;
  return out;
}

Value Value::Integer(int64_t value) {
  Value out(Kind::kInteger);
  out.integer_ = value;
  return out;
}

Value Value::Double(double value) {
  Value out(Kind::kDouble);
  out.double_ = value;
  return out;
}

Value Value::String(std::string text) {
  return Value(Kind::kString, std::make_shared<std::string>(std::move(text)), 0);
}

Value Value::Sequence(Kind kind, std::vector<Value> items, std::string label) {
  const int depth = 1 + DepthOf(items);
  return Value(kind, std::make_shared<SequenceObject>(std::move(items), std::move(label)), depth);
}

Value Value::List(std::vector<Value> items) { return Sequence(Kind::kList, std::move(items), ""); }
Value Value::Tuple(std::vector<Value> items) { return Sequence(Kind::kTuple, std::move(items), ""); }
Value Value::Range(std::vector<Value> items, std::string label) {
  return Sequence(Kind::kRange, std::move(items), std::move(label));
}
Value Value::DictView(std::vector<Value> items, std::string label) {
  return Sequence(Kind::kDictView, std::move(items), std::move(label));
}

Value Value::Group(Value grouper, Value list) {
  return Sequence(Kind::kTuple, {std::move(grouper), std::move(list)}, "group");
}

Value Value::FromDict(Dict dict) {
  const int depth = 1 + dict.depth();
  return Value(Kind::kDict, std::make_shared<Dict>(std::move(dict)), depth);
}

Value Value::FromGenerator(Generator generator) {
  const int depth = 1 + DepthOf(generator.items);
  return Value(Kind::kGenerator, std::make_shared<Generator>(std::move(generator)), depth);
}

Value Value::FromCallable(Callable callable, int depth) {
  return Value(Kind::kCallable, std::make_shared<Callable>(std::move(callable)), depth);
}

Value Value::FromNamespace(std::shared_ptr<Namespace> value) { return Value(Kind::kNamespace, std::move(value), 1); }

Value Value::FromLoop(std::shared_ptr<Loop> value) {
  const int depth = 1 + DepthOf(value->items);
  return Value(Kind::kLoop, std::move(value), depth);
}

Value Value::FromCycler(std::shared_ptr<Cycler> value) {
  const int depth = 1 + DepthOf(value->items);
  return Value(Kind::kCycler, std::move(value), depth);
}

const std::vector<Value>& Value::items() const { return static_cast<const SequenceObject*>(object_.get())->items; }
const std::string& Value::label() const { return static_cast<const SequenceObject*>(object_.get())->label; }

bool Value::IsSameObject(const Value& other) const {
  if (kind_ != other.kind_) return false;
  if (object_ != nullptr || other.object_ != nullptr) return object_ == other.object_;
  return kind_ == Kind::kDouble ? double_ == other.double_ : integer_ == other.integer_;
}

std::string Value::UndefinedMessage() const { return object_ == nullptr ? "the value is undefined" : string(); }

std::string_view Value::TypeName() const {
  constexpr std::string_view kNames[] = {"Undefined", "NoneType",  "bool",        "int",       "float", "str",
                                         "list",      "tuple",     "range",       "dict view", "dict",  "generator",
                                         "function",  "Namespace", "LoopContext", "Cycler"};
  return kNames[static_cast<size_t>(kind_)];
}

bool Dict::IsHashable(const Value& key) {
  if (key.is(Kind::kTuple)) {
    // Deeper tuples could make the comparison of two keys endless.
    return key.depth() == 1 && std::all_of(key.items().begin(), key.items().end(), IsHashable);
  }
  return key.is_string() || key.is_number() || key.is_none() || key.is_undefined();
}

size_t Dict::FindOther(const Value& key) const {
  for (const size_t place : others_) {
    if (KeysEqual(entries_[place].first, key)) return place;
  }
  return kNowhere;
}

void Dict::Set(const Value& key, Value value) {
  depth_ = std::max({depth_, key.depth(), value.depth()});
  if (key.is_string()) {
    const auto [found, added] = index_.emplace(key.string(), entries_.size());
    if (!added) {
      entries_[found->second].second = std::move(value);
      return;
    }
  } else {
    const size_t place = FindOther(key);
    if (place != kNowhere) {
      entries_[place].second = std::move(value);
      return;
    }
    others_.push_back(entries_.size());
  }
  entries_.emplace_back(key, std::move(value));
}

const Value* Dict::Find(const Value& key) const {
  if (key.is_string()) return Find(key.string());
  const size_t place = FindOther(key);
  return place == kNowhere ? nullptr : &entries_[place].second;
}

const Value* Dict::Find(std::string_view key) const {
  const auto found = index_.find(std::string(key));
  return found == index_.end() ? nullptr : &entries_[found->second].second;
}

}  // namespace baton::jinja
