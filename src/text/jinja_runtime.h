// What one rendering may use and has used: the limits that stop hostile templates, the clock, and what must be taken
// apart at the end.
//
// Threading: one rendering, one thread. Ownership: keeps every namespace of the rendering until its end, when it
// empties them, so that values that contain themselves are freed.
// Errors: InvalidArgument that names the limit.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/status.h"
#include "text/jinja_value.h"

namespace baton::jinja {

struct Limits {
  size_t output_bytes = 16 << 20;  // of the result, and of every string on the way
  uint64_t steps = 10'000'000;     // evaluated nodes, touched items, and 16 bytes of text each count as one
  int evaluation_depth = 1000;     // nested statements and expressions, through macros
  int macro_depth = 100;           // macros that run inside each other
  int filter_depth = 50;           // map of map of map…
  int value_depth = 100;           // lists in lists, or dicts in dicts
  int64_t range_items = 100'000;   // as in Jinja's sandbox
};

class Runtime {
 public:
  Runtime(const Limits& limits, std::chrono::system_clock::time_point now) : limits_(limits), now_(now) {}
  ~Runtime() {
    for (const auto& value : namespaces_) value->attributes = Dict();
    for (const Value& value : loops_) value.loop().changed_value = Value();
  }
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  const Limits& limits() const { return limits_; }
  std::chrono::system_clock::time_point now() const { return now_; }

  absl::Status Charge(uint64_t steps) {
    steps_ += steps;
    if (steps_ <= limits_.steps) return absl::OkStatus();
    return InvalidArgument("the template needs more than the limit of ", limits_.steps,
                           " steps; shorten the conversation or simplify the template");
  }
  // For a string of `bytes` that is about to be made or read.
  absl::Status ChargeBytes(size_t bytes) {
    if (bytes > limits_.output_bytes) {
      return InvalidArgument("the template makes a text longer than the limit of ", limits_.output_bytes, " bytes");
    }
    return Charge(1 + bytes / 16);
  }

  Value MakeNamespace(Dict attributes) {
    namespaces_.push_back(std::make_shared<Namespace>(std::move(attributes)));
    return Value::FromNamespace(namespaces_.back());
  }

  // A loop that remembers more than plain values, which may hold the loop itself.
  void TakeApartAtEnd(const Value& loop) { loops_.push_back(loop); }

  // The line of the template that is being executed.
  int line = 1;
  // Filters that run inside each other (map over map).
  int filter_depth = 0;
  // The error is the template's own (raise_exception): its message is passed on as it is.
  bool raised = false;

 private:
  const Limits limits_;
  const std::chrono::system_clock::time_point now_;
  uint64_t steps_ = 0;
  std::vector<std::shared_ptr<Namespace>> namespaces_;
  std::vector<Value> loops_;
};

}  // namespace baton::jinja
