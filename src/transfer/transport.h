// Moves byte ranges into the memory of another process or device. Knows ranges, never blocks.
//
//   The owner of the memory:                               the writer:
//     transport = MakeSharedMemoryTransport();               transport = MakeSharedMemoryTransport();
//     exported = transport->Export({base, bytes, fd});       remote = transport->Import(descriptor, fd);
//     sends exported->descriptor and exported->fd  ───────>  remote->Post({{from, to_offset, bytes}}, epoch, done);
//
// Threading: every method from any thread. Callbacks come from the transport's own thread, one at a time, and must not
//   block; they may Post and Cancel, but not Flush.
// Ownership: a RemoteMemory may outlive its Transport. Destroying it cancels what is left and waits until no byte moves
//   any more (at most one piece, about a millisecond); each callback has been called by then, so hold no lock that one
//   takes. Destroying it in a callback is fine. Sources stay valid until their callback.
// Errors: InvalidArgument for a range out of bounds, before any byte moves, and for a descriptor that does not fit;
//   Cancelled; Unavailable when the path is gone.
// Limits: the queue is bounded by what callers post; copies go in pieces that take well under a millisecond, so that
//   Cancel is quick.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "base/unique_fd.h"
#include "core/ids.h"

namespace baton {

// Memory of this process that others shall write.
struct LocalMemory {
  uint8_t* base = nullptr;
  int64_t bytes = 0;
  int shareable_fd = -1;  // memfd of the whole range, if there is one; its owner keeps it
};

// What the writer needs to know. The memory can be imported while this lives; imports that exist go on.
struct ExportedMemory {
  std::string descriptor;  // opaque
  int fd = -1;             // to be sent with it; -1: none. Belongs to the memory's owner
  std::shared_ptr<void> registration;
};

struct CopyRange {
  const uint8_t* from = nullptr;
  int64_t to_offset = 0;  // in the remote memory
  int64_t bytes = 0;
};

struct TransferResult {
  absl::Status status;
  int64_t bytes = 0;    // written; less than posted when the status is not OK
  int64_t copy_us = 0;  // spent on moving them, without the time in the queue
};
using TransferDone = std::function<void(const TransferResult&)>;

struct TransferStats {
  int64_t bytes = 0;
  int64_t copy_us = 0;
  int64_t posts = 0;      // ended, cancelled ones included
  int64_t cancelled = 0;  // posts
};

// Of everything that a transport was asked to move: what is busy and does not move is stuck.
struct TransferProgress {
  uint64_t moved = 0;  // pieces, since the start
  bool busy = false;   // posts are under way
};

class RemoteMemory {
 public:
  virtual ~RemoteMemory() = default;
  virtual int64_t bytes() const = 0;
  // Posts of one tag are written first in, first out; the ranges of one post in any order: they must not overlap.
  // `done` is called exactly once if OK is returned, never otherwise; when it is called with OK, the other side can see
  // every byte. No ranges: only `done`, in order.
  // `after`: an event of the device that computes the sources (see LayerGroupSink): they are read when it has passed.
  // Null: they are there. It must live until `done`; FailedPrecondition in `done` where the copies cannot wait for one.
  virtual absl::Status Post(std::vector<CopyRange> ranges, Epoch tag, TransferDone done, void* after) = 0;
  absl::Status Post(std::vector<CopyRange> ranges, Epoch tag, TransferDone done) {
    return Post(std::move(ranges), tag, std::move(done), nullptr);
  }
  // Posts of `tag` that have not ended do so now, with Cancelled. When `done` is called (after their callbacks), no
  // byte of them is written any more. Posts that follow are new work.
  virtual void Cancel(Epoch tag, std::function<void()> done) = 0;
  // Waits until everything posted before has ended, callbacks included.
  virtual void Flush() = 0;
  virtual TransferStats stats() const = 0;
};

// Read once.
struct TransportCapabilities {
  bool needs_fd = false;                  // Export needs a shareable descriptor and Import gets it
  bool crosses_processes = false;         // else only memory of the same process can be imported
  bool overlaps_compute = false;          // copies run on hardware of their own, not on a core that could compute
  double floor_gigabytes_per_second = 0;  // a healthy path is faster
  std::string advice;                     // what to look at when it is slower
};

class Transport {
 public:
  virtual ~Transport() = default;
  virtual const std::string& name() const = 0;  // "shm"
  virtual const TransportCapabilities& capabilities() const = 0;
  virtual absl::StatusOr<ExportedMemory> Export(const LocalMemory& memory) = 0;
  // `descriptor` are foreign bytes; `fd` came with them.
  virtual absl::StatusOr<std::unique_ptr<RemoteMemory>> Import(std::string_view descriptor, UniqueFd fd) = 0;
  // For a watchdog. One that cannot say is never busy.
  virtual TransferProgress progress() const { return {}; }
};

// Memory of the same process.
std::unique_ptr<Transport> MakeLocalTransport();
// A memfd of another process on this machine, mapped (device/host_memory.h).
std::unique_ptr<Transport> MakeSharedMemoryTransport();
// Memory of a GPU: of another process on this machine by CUDA IPC, or of this one. `device`: the GPU that holds the
// sources and makes the copies. Exported is a whole allocation of cudaMalloc. A device error ends the copy that met it
// and this process's use of the device, not the other side. Defined only where the build found nvcc: BATON_HAVE_CUDA.
std::unique_ptr<Transport> MakeCudaIpcTransport(int32_t device);

// For tests: like `inner`, but slow, or not to be trusted.
struct ThrottleOptions {
  double bytes_per_second = 0;  // 0: not limited
  int64_t delay_us = 0;         // from Post to the first byte
  int32_t corrupt_every = 0;    // a bit of every so-many-th piece is another one when it arrives; 0: of none
};
std::unique_ptr<Transport> MakeThrottledTransport(std::unique_ptr<Transport> inner, const ThrottleOptions& options);

}  // namespace baton
