#include "text/jinja_operators.h"

#include <algorithm>
#include <cmath>

#include "text/jinja_text.h"

namespace baton::jinja {

bool IsTrue(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
    case Kind::kInteger:
      return value.integer() != 0;
    case Kind::kDouble:
      return value.number() != 0;
    case Kind::kString:
      return !value.string().empty();
    case Kind::kDict:
      return value.dict().size() > 0;
    default:
      return !value.is_sequence() || !value.items().empty();
  }
}

absl::Status UndefinedError(const Value& value) { return InvalidArgument(value.UndefinedMessage()); }

namespace {

bool NumbersEqual(const Value& a, const Value& b) {
  return a.is_integral() && b.is_integral() ? a.integer() == b.integer() : a.number() == b.number();
}

absl::StatusOr<bool> DictsEqual(Runtime& runtime, const Dict& a, const Dict& b) {
  if (a.size() != b.size()) return false;
  for (const auto& [key, value] : a.entries()) {
    const Value* other = b.Find(key);
    if (other == nullptr) return false;
    BATON_ASSIGN_OR_RETURN(const bool equal, AreEqual(runtime, value, *other));
    if (!equal) return false;
  }
  return true;
}

absl::Status TypeMismatch(std::string_view what, const Value& a, const Value& b) {
  if (a.is_undefined()) return UndefinedError(a);
  if (b.is_undefined()) return UndefinedError(b);
  return InvalidArgument("expected two values that can be ", what, ", found ", a.TypeName(), " and ", b.TypeName());
}

}  // namespace

absl::StatusOr<bool> AreEqual(Runtime& runtime, const Value& a, const Value& b) {
  BATON_RETURN_IF_ERROR(runtime.Charge(1));
  if (a.is_number() && b.is_number()) return NumbersEqual(a, b);
  if (a.kind() != b.kind()) return false;
  if (a.is_undefined() || a.is_none() || a.IsSameObject(b)) return true;
  if (a.is_string()) return a.string() == b.string();
  if (a.is_dict()) return DictsEqual(runtime, a.dict(), b.dict());
  if (!a.is_sequence() || a.items().size() != b.items().size()) return false;
  for (size_t i = 0; i < a.items().size(); ++i) {
    BATON_ASSIGN_OR_RETURN(const bool equal, AreEqual(runtime, a.items()[i], b.items()[i]));
    if (!equal) return false;
  }
  return true;
}

absl::StatusOr<bool> IsLess(Runtime& runtime, const Value& a, const Value& b) {
  BATON_RETURN_IF_ERROR(runtime.Charge(1));
  if (a.is_number() && b.is_number()) {
    return a.is_integral() && b.is_integral() ? a.integer() < b.integer() : a.number() < b.number();
  }
  // Byte order of UTF-8 is the order of its code points.
  if (a.is_string() && b.is_string()) return a.string() < b.string();
  if (a.kind() != b.kind() || (!a.is(Kind::kList) && !a.is(Kind::kTuple))) return TypeMismatch("ordered", a, b);
  const size_t common = std::min(a.items().size(), b.items().size());
  for (size_t i = 0; i < common; ++i) {
    BATON_ASSIGN_OR_RETURN(const bool equal, AreEqual(runtime, a.items()[i], b.items()[i]));
    if (!equal) return IsLess(runtime, a.items()[i], b.items()[i]);
  }
  return a.items().size() < b.items().size();
}

absl::StatusOr<bool> Contains(Runtime& runtime, const Value& container, const Value& item) {
  if (container.is_string()) {
    if (item.is_undefined()) return UndefinedError(item);
    if (!item.is_string()) return InvalidArgument("expected a str before 'in', found ", item.TypeName());
    BATON_RETURN_IF_ERROR(runtime.ChargeBytes(container.string().size()));
    return FindText(container.string(), item.string()) != std::string::npos;
  }
  if (container.is_dict()) {
    if (!Dict::IsHashable(item)) {
      return InvalidArgument("a ", item.TypeName(), " can't be the key of a dict");
    }
    return container.dict().Find(item) != nullptr;
  }
  if (container.is(Kind::kGenerator)) {
    Generator& generator = container.generator();
    while (generator.next < generator.items.size()) {
      BATON_ASSIGN_OR_RETURN(const bool equal, AreEqual(runtime, generator.items[generator.next++], item));
      if (equal) return true;
    }
    if (!generator.error.ok()) return generator.error;
    return false;
  }
  BATON_ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(runtime, container));
  for (const Value& candidate : items) {
    BATON_ASSIGN_OR_RETURN(const bool equal, AreEqual(runtime, candidate, item));
    if (equal) return true;
  }
  return false;
}

absl::StatusOr<bool> Compare(Runtime& runtime, Operator op, const Value& a, const Value& b) {
  auto negate = [](absl::StatusOr<bool> result) { return result.ok() ? absl::StatusOr<bool>(!*result) : result; };
  // `a <= b` is not `not (b < a)` where a number is no number.
  const bool unordered = (a.is_number() && std::isnan(a.number())) || (b.is_number() && std::isnan(b.number()));
  switch (op) {
    case Operator::kEqual:
      return AreEqual(runtime, a, b);
    case Operator::kNotEqual:
      return negate(AreEqual(runtime, a, b));
    case Operator::kLess:
      return IsLess(runtime, a, b);
    case Operator::kGreater:
      return IsLess(runtime, b, a);
    case Operator::kLessEqual:
      if (unordered && a.is_number() && b.is_number()) return false;
      return negate(IsLess(runtime, b, a));
    case Operator::kGreaterEqual:
      if (unordered && a.is_number() && b.is_number()) return false;
      return negate(IsLess(runtime, a, b));
    case Operator::kIn:
      return Contains(runtime, b, a);
    default:
      return negate(Contains(runtime, b, a));
  }
}

absl::StatusOr<int64_t> Length(Runtime& runtime, const Value& value) {
  if (value.is_undefined()) return 0;
  if (value.is_string()) {
    BATON_RETURN_IF_ERROR(runtime.ChargeBytes(value.string().size()));
    return static_cast<int64_t>(CountCodePoints(value.string()));
  }
  if (value.is_dict()) return static_cast<int64_t>(value.dict().size());
  if (value.is_sequence()) return static_cast<int64_t>(value.items().size());
  if (value.is(Kind::kLoop)) return static_cast<int64_t>(value.loop().items.size());
  return InvalidArgument("a ", value.TypeName(), " has no length");
}

namespace {

absl::StatusOr<std::vector<Value>> DrainGenerator(Runtime& runtime, Generator& generator) {
  BATON_RETURN_IF_ERROR(runtime.Charge(generator.items.size() - generator.next));
  std::vector<Value> items(generator.items.begin() + static_cast<ptrdiff_t>(generator.next), generator.items.end());
  generator.next = generator.items.size();
  if (!generator.error.ok()) return generator.error;
  return items;
}

}  // namespace

absl::StatusOr<std::vector<Value>> Iterate(Runtime& runtime, const Value& value) {
  std::vector<Value> items;
  if (value.is_undefined()) return items;
  if (value.is_sequence()) {
    BATON_RETURN_IF_ERROR(runtime.Charge(value.items().size()));
    return value.items();
  }
  if (value.is_string()) {
    const std::string& text = value.string();
    BATON_RETURN_IF_ERROR(runtime.Charge(text.size()));
    for (size_t position = 0; position < text.size();) {
      const size_t start = position;
      DecodeCodePoint(text, position);
      items.push_back(Value::String(text.substr(start, position - start)));
    }
    return items;
  }
  if (value.is_dict()) {
    BATON_RETURN_IF_ERROR(runtime.Charge(value.dict().size()));
    for (const auto& [key, unused] : value.dict().entries()) items.push_back(key);
    return items;
  }
  if (value.is(Kind::kGenerator)) return DrainGenerator(runtime, value.generator());
  return InvalidArgument("expected something to iterate over, found ", value.TypeName());
}

namespace {

absl::StatusOr<int64_t> SliceIndex(const Value& value, int64_t missing) {
  if (value.is_undefined() || value.is_none()) return missing;
  if (!value.is_integral()) return InvalidArgument("expected int or None in a slice, found ", value.TypeName());
  return value.integer();
}

// The places that Python's slice would visit in a sequence of `length`.
absl::StatusOr<std::vector<size_t>> SlicePlaces(int64_t length, const Value& start, const Value& stop,
                                                const Value& step) {
  BATON_ASSIGN_OR_RETURN(const int64_t stride, SliceIndex(step, 1));
  if (stride == 0) return InvalidArgument("the step of a slice can't be 0");
  const bool forward = stride > 0;
  const int64_t lowest = forward ? 0 : -1;
  const int64_t highest = forward ? length : length - 1;
  auto clamp = [&](int64_t index) {
    if (index < 0) index = index < -length ? lowest : index + length;
    return std::clamp(index, lowest, highest);
  };
  BATON_ASSIGN_OR_RETURN(int64_t first, SliceIndex(start, 0));
  BATON_ASSIGN_OR_RETURN(int64_t last, SliceIndex(stop, 0));
  const bool has_start = !start.is_undefined() && !start.is_none();
  const bool has_stop = !stop.is_undefined() && !stop.is_none();
  first = has_start ? clamp(first) : (forward ? 0 : length - 1);
  last = has_stop ? clamp(last) : (forward ? length : -1);
  std::vector<size_t> places;
  for (int64_t i = first; forward ? i < last : i > last;) {
    places.push_back(static_cast<size_t>(i));
    if (__builtin_add_overflow(i, stride, &i)) break;
  }
  return places;
}

}  // namespace

absl::StatusOr<Value> Slice(Runtime& runtime, const Value& value, const Value& start, const Value& stop,
                            const Value& step) {
  if (value.is_undefined()) return UndefinedError(value);
  if (value.is_string()) {
    BATON_RETURN_IF_ERROR(runtime.ChargeBytes(value.string().size()));
    const std::u32string text = ToCodePoints(value.string());
    BATON_ASSIGN_OR_RETURN(const auto places, SlicePlaces(static_cast<int64_t>(text.size()), start, stop, step));
    std::string out;
    for (const size_t place : places) AppendCodePoint(out, text[place]);
    return Value::String(std::move(out));
  }
  if (!value.is_sequence() || value.is(Kind::kDictView)) {
    return InvalidArgument("expected a str, list or tuple to slice, found ", value.TypeName());
  }
  BATON_RETURN_IF_ERROR(runtime.Charge(value.items().size()));
  BATON_ASSIGN_OR_RETURN(const auto places, SlicePlaces(static_cast<int64_t>(value.items().size()), start, stop, step));
  std::vector<Value> items;
  for (const size_t place : places) items.push_back(value.items()[place]);
  return value.is(Kind::kTuple) ? Value::Tuple(std::move(items)) : Value::List(std::move(items));
}

}  // namespace baton::jinja
