#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "base/mutex.h"
#include "base/steady_clock.h"
#include "transfer/queued_memory.h"

namespace baton {

namespace {

// Hands pieces to the real memory, few at a time and not too soon.
class ThrottledWriter : public PieceWriter {
 public:
  ThrottledWriter(std::unique_ptr<RemoteMemory> inner, const ThrottleOptions& options)
      : inner_(std::move(inner)), bytes_per_second_(options.bytes_per_second), corrupt_every_(options.corrupt_every) {}

  absl::Status WritePieces(std::span<const CopyRange> pieces, Epoch tag, void* after) override {
    int64_t bytes = 0;
    for (const CopyRange& piece : pieces) bytes += piece.bytes;
    const int64_t start_us = SteadyMicroseconds();
    if (bytes_per_second_ > 0) {
      free_us_ = std::max(free_us_, start_us) + static_cast<int64_t>(1e6 * bytes / bytes_per_second_);
      std::this_thread::sleep_for(std::chrono::microseconds(free_us_ - start_us));
    }
    absl::Status status;  // set before Flush returns
    std::vector<CopyRange> ranges(pieces.begin(), pieces.end());
    std::vector<uint8_t> changed;
    if (corrupt_every_ > 0 && ++calls_ % corrupt_every_ == 0) {
      CopyRange& range = ranges[calls_ / corrupt_every_ % ranges.size()];
      changed.assign(range.from, range.from + range.bytes);
      changed[changed.size() / 2] ^= 0x10;
      range.from = changed.data();
    }
    BATON_RETURN_IF_ERROR(inner_->Post(
        std::move(ranges), tag, [&status](const TransferResult& result) { status = result.status; }, after));
    inner_->Flush();
    return status;
  }

 private:
  const std::unique_ptr<RemoteMemory> inner_;
  const double bytes_per_second_;
  const int32_t corrupt_every_;
  int64_t calls_ = 0;
  int64_t free_us_ = 0;  // the path is busy until then
};

class ThrottledTransport : public Transport {
 public:
  ThrottledTransport(std::unique_ptr<Transport> inner, const ThrottleOptions& options)
      : inner_(std::move(inner)), options_(options), capabilities_(inner_->capabilities()) {
    capabilities_.advice = "the path is throttled on purpose";
    int64_t piece_bytes = kPieceBytes;
    // Pieces of five milliseconds, so that a slow path can be cancelled quickly too.
    if (options.bytes_per_second > 0) {
      piece_bytes = std::clamp<int64_t>(static_cast<int64_t>(options.bytes_per_second / 200), 256, kPieceBytes);
    }
    queue_ = TransferQueue::Create("copy-throttled", piece_bytes);
  }

  const std::string& name() const override { return inner_->name(); }
  const TransportCapabilities& capabilities() const override { return capabilities_; }
  absl::StatusOr<ExportedMemory> Export(const LocalMemory& memory) override { return inner_->Export(memory); }
  absl::StatusOr<std::unique_ptr<RemoteMemory>> Import(std::string_view descriptor, UniqueFd fd) override {
    BATON_ASSIGN_OR_RETURN(std::unique_ptr<RemoteMemory> inner, inner_->Import(descriptor, std::move(fd)));
    const int64_t bytes = inner->bytes();
    return MakeQueuedMemory(queue_, std::make_unique<ThrottledWriter>(std::move(inner), options_), bytes,
                            options_.delay_us);
  }

  TransferProgress progress() const override { return queue_->progress(); }

 private:
  const std::unique_ptr<Transport> inner_;
  const ThrottleOptions options_;
  TransportCapabilities capabilities_;
  std::shared_ptr<TransferQueue> queue_;
};

}  // namespace

std::unique_ptr<Transport> MakeThrottledTransport(std::unique_ptr<Transport> inner, const ThrottleOptions& options) {
  return std::make_unique<ThrottledTransport>(std::move(inner), options);
}

}  // namespace baton
