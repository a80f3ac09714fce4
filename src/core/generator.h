// The seam between who answers clients and who generates: the front end calls a Generator and knows no more.
//
// Threading: Generate and Cancel may be called from any thread. The sink is called from the generator's own thread, in
//   order, never twice at once for one sequence, and must not block.
// Ownership: the generator holds the sink until its last event, the one with finish != kNone, which always comes.
// Errors: whatever happens to workers, the sink gets one last event with finish kError and a status that says why.
#pragma once

#include <functional>
#include <memory>

#include "core/request.h"

namespace baton {

using TokenSink = std::function<void(TokenEvent)>;

class Generator {
 public:
  virtual ~Generator() = default;
  // Returns a handle for Cancel. Refusals (queue full, nothing can serve) also arrive through the sink.
  virtual SequenceId Generate(Request request, TokenSink sink) = 0;
  // The sink still gets its last event (kCancelled), unless it already had it.
  virtual void Cancel(SequenceId sequence) = 0;
  // OK when it can serve, else the reason in words.
  virtual absl::Status Health() const = 0;
  // Whether to take new requests: as Health, but patient where what is wrong may be over soon, or is not everywhere.
  virtual absl::Status Admits() const { return Health(); }
};

}  // namespace baton
