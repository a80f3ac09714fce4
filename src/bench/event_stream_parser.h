// Server-sent events (WHATWG HTML, "Interpreting an event stream"), as their bytes arrive: the data of each event.
// Comments and the fields event, id and retry are skipped.
//
// Threading: one thread. Ownership: a view given to the callback is valid during the call.
// Errors: DataLoss beyond the limit. Limits: bytes of one event's data, and of one line.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

#include "base/status.h"

namespace baton {

class EventStreamParser {
 public:
  explicit EventStreamParser(size_t event_bytes_max = 16 << 20) : event_bytes_max_(event_bytes_max) {}

  // Calls on_event(data) for each event that ends within `bytes`.
  absl::Status Feed(std::string_view bytes, const std::function<void(std::string_view)>& on_event);
  void Reset() { *this = EventStreamParser(event_bytes_max_); }

 private:
  absl::Status OnLine(std::string_view line, const std::function<void(std::string_view)>& on_event);

  size_t event_bytes_max_;
  std::string line_;  // begun in earlier bytes
  std::string data_;
  bool has_data_ = false;
  bool after_carriage_return_ = false;  // a line feed that follows belongs to the same line end
};

}  // namespace baton
