#include "text/jinja_print.h"

#include "text/jinja_text.h"

namespace baton::jinja {

namespace {

class Printer {
 public:
  explicit Printer(Runtime& runtime) : runtime_(runtime) {}

  absl::Status Print(const Value& value) {
    // Namespaces may contain themselves, so the nesting of values is no bound here.
    if (depth_ > runtime_.limits().value_depth) return InvalidArgument("a value that is printed contains itself");
    BATON_RETURN_IF_ERROR(runtime_.Charge(1));
    ++depth_;
    const absl::Status status = PrintKind(value);
    --depth_;
    BATON_RETURN_IF_ERROR(status);
    if (out_.size() <= runtime_.limits().output_bytes) return absl::OkStatus();
    return runtime_.ChargeBytes(out_.size());
  }

  absl::StatusOr<std::string> Take() {
    BATON_RETURN_IF_ERROR(runtime_.ChargeBytes(out_.size()));
    return std::move(out_);
  }

 private:
  absl::Status PrintKind(const Value& value) {
    switch (value.kind()) {
      case Kind::kUndefined:
        out_ += "Undefined";
        return absl::OkStatus();
      case Kind::kNone:
        out_ += "None";
        return absl::OkStatus();
      case Kind::kBool:
        out_ += value.boolean() ? "True" : "False";
        return absl::OkStatus();
      case Kind::kInteger:
        out_ += Cat(value.integer());
        return absl::OkStatus();
      case Kind::kDouble:
        out_ += FormatDouble(value.number());
        return absl::OkStatus();
      case Kind::kString:
        BATON_RETURN_IF_ERROR(runtime_.ChargeBytes(value.string().size()));
        out_ += QuoteText(value.string());
        return absl::OkStatus();
      case Kind::kList:
        return PrintItems("[", value.items(), "]");
      case Kind::kTuple:
        return PrintItems("(", value.items(), value.items().size() == 1 ? ",)" : ")");
      case Kind::kRange:
        out_ += value.label();
        return absl::OkStatus();
      case Kind::kDictView:
        return PrintItems(Cat(value.label(), "(["), value.items(), "])");
      case Kind::kDict:
        return PrintDict(value.dict());
      case Kind::kNamespace:
        out_ += "<Namespace ";
        BATON_RETURN_IF_ERROR(PrintDict(value.name_space().attributes));
        out_ += ">";
        return absl::OkStatus();
      case Kind::kLoop:
        out_ += Cat("<LoopContext ", value.loop().index + 1, "/", value.loop().items.size(), ">");
        return absl::OkStatus();
      case Kind::kCallable:
        out_ += Cat("<function ", value.callable().name, ">");
        return absl::OkStatus();
      case Kind::kGenerator:
      case Kind::kCycler:
        out_ += Cat("<", value.TypeName(), ">");
        return absl::OkStatus();
    }
    return absl::OkStatus();
  }

  absl::Status PrintItems(std::string_view open, const std::vector<Value>& items, std::string_view close) {
    out_ += open;
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_ += ", ";
      BATON_RETURN_IF_ERROR(Print(items[i]));
    }
    out_ += close;
    return absl::OkStatus();
  }

  absl::Status PrintDict(const Dict& dict) {
    out_ += '{';
    for (size_t i = 0; i < dict.size(); ++i) {
      if (i > 0) out_ += ", ";
      BATON_RETURN_IF_ERROR(Print(dict.entries()[i].first));
      out_ += ": ";
      BATON_RETURN_IF_ERROR(Print(dict.entries()[i].second));
    }
    out_ += '}';
    return absl::OkStatus();
  }

  Runtime& runtime_;
  std::string out_;
  int depth_ = 0;
};

}  // namespace

absl::StatusOr<std::string> ToText(Runtime& runtime, const Value& value) {
  if (value.is_undefined()) return std::string();
  if (!value.is_string()) return ToRepr(runtime, value);
  BATON_RETURN_IF_ERROR(runtime.ChargeBytes(value.string().size()));
  return value.string();
}

absl::StatusOr<std::string> ToRepr(Runtime& runtime, const Value& value) {
  Printer printer(runtime);
  BATON_RETURN_IF_ERROR(printer.Print(value));
  return printer.Take();
}

}  // namespace baton::jinja
