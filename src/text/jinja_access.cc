#include "text/jinja_access.h"

#include <algorithm>
#include <array>
#include <optional>

#include "text/jinja_builtins.h"
#include "text/jinja_text.h"

namespace baton::jinja {

namespace {

Value Missing(const Value& value, std::string_view name) {
  return Value::Undefined(Cat("a ", value.TypeName(), " has no attribute or item ", QuoteText(name)));
}

// Methods that would change a list or dict: the immutable sandbox hides them.
bool IsRefused(const Value& value, std::string_view name) {
  constexpr std::array<std::string_view, 8> kList = {"append", "clear", "pop",    "reverse",
                                                     "insert", "sort",  "extend", "remove"};
  constexpr std::array<std::string_view, 5> kDict = {"clear", "pop", "popitem", "setdefault", "update"};
  if (value.is(Kind::kList)) return std::find(kList.begin(), kList.end(), name) != kList.end();
  return value.is_dict() && std::find(kDict.begin(), kDict.end(), name) != kDict.end();
}

std::optional<Value> LoopAttribute(const Loop& loop, std::string_view name) {
  const auto index = static_cast<int64_t>(loop.index);
  const auto length = static_cast<int64_t>(loop.items.size());
  if (name == "index") return Value::Integer(index + 1);
  if (name == "index0") return Value::Integer(index);
  if (name == "revindex") return Value::Integer(length - index);
  if (name == "revindex0") return Value::Integer(length - index - 1);
  if (name == "first") return Value::Bool(index == 0);
  if (name == "last") return Value::Bool(index + 1 == length);
  if (name == "length") return Value::Integer(length);
  if (name == "depth") return Value::Integer(loop.nesting + 1);
  if (name == "depth0") return Value::Integer(loop.nesting);
  if (name == "previtem") {
    return index == 0 ? Value::Undefined("there is no previous item") : loop.items[loop.index - 1];
  }
  if (name == "nextitem") {
    return index + 1 >= length ? Value::Undefined("there is no next item") : loop.items[loop.index + 1];
  }
  return std::nullopt;
}

// What objects hold besides methods.
std::optional<Value> DataAttribute(const Value& value, std::string_view name) {
  if (value.is(Kind::kLoop)) return LoopAttribute(value.loop(), name);
  if (value.is(Kind::kNamespace)) {
    const Value* found = value.name_space().attributes.Find(name);
    return found == nullptr ? std::nullopt : std::optional<Value>(*found);
  }
  if (value.is(Kind::kCycler) && name == "current") return value.cycler().items[value.cycler().position];
  if (value.is(Kind::kCallable) && name == "name") return Value::String(value.callable().name);
  // What groupby returns.
  if (value.is(Kind::kTuple) && value.label() == "group") {
    if (name == "grouper") return value.items()[0];
    if (name == "list") return value.items()[1];
  }
  return std::nullopt;
}

std::optional<Value> FindItem(const Value& value, const Value& key) {
  if (value.is_dict()) {
    const Value* found = Dict::IsHashable(key) ? value.dict().Find(key) : nullptr;
    return found == nullptr ? std::nullopt : std::optional<Value>(*found);
  }
  if (!key.is_integral()) return std::nullopt;
  int64_t index = key.integer();
  if (value.is_string()) {
    const std::string& text = value.string();
    if (index < 0) index += static_cast<int64_t>(CountCodePoints(text));
    size_t position = 0;
    for (int64_t i = 0; i < index && position < text.size(); ++i) DecodeCodePoint(text, position);
    if (index < 0 || position >= text.size()) return std::nullopt;
    const size_t start = position;
    DecodeCodePoint(text, position);
    return Value::String(text.substr(start, position - start));
  }
  if (!value.is_sequence() || value.is(Kind::kDictView)) return std::nullopt;
  const auto length = static_cast<int64_t>(value.items().size());
  if (index < 0) index += length;
  if (index < 0 || index >= length) return std::nullopt;
  return value.items()[static_cast<size_t>(index)];
}

std::optional<Value> OwnAttribute(const Value& value, std::string_view name) {
  if (IsRefused(value, name)) {
    return Value::Undefined(Cat("access to the method ", QuoteText(name), " of a ", value.TypeName(), " is not safe"));
  }
  if (std::optional<Value> data = DataAttribute(value, name)) return data;
  return FindMethod(value, name);
}

}  // namespace

Value GetOwnAttribute(const Value& value, std::string_view name) {
  if (std::optional<Value> found = OwnAttribute(value, name)) return *found;
  return Missing(value, name);
}

Value GetAttribute(const Value& value, std::string_view name) {
  if (std::optional<Value> found = OwnAttribute(value, name)) return *found;
  if (value.is_dict()) {
    if (const Value* item = value.dict().Find(name)) return *item;
  }
  return Missing(value, name);
}

Value GetItem(const Value& value, const Value& key) {
  if (std::optional<Value> found = FindItem(value, key)) return *found;
  if (key.is_string()) return GetOwnAttribute(value, key.string());
  return Missing(value, key.is_integral() ? Cat(key.integer()) : std::string(key.TypeName()));
}

}  // namespace baton::jinja
