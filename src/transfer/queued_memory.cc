#include "transfer/queued_memory.h"

#include <utility>

#include "transfer/copy_bytes.h"

namespace baton {

namespace {

class QueuedMemory : public RemoteMemory {
 public:
  QueuedMemory(std::shared_ptr<TransferQueue> queue, std::unique_ptr<PieceWriter> writer, int64_t bytes,
               int64_t delay_us)
      : queue_(std::move(queue)),
        writer_(std::move(writer)),
        lane_(queue_->Open(writer_.get())),
        bytes_(bytes),
        delay_us_(delay_us) {}
  ~QueuedMemory() override { queue_->Close(lane_); }

  int64_t bytes() const override { return bytes_; }
  absl::Status Post(std::vector<CopyRange> ranges, Epoch tag, TransferDone done, void* after) override {
    BATON_RETURN_IF_ERROR(CheckRanges(ranges, bytes_));
    queue_->Post(lane_, {.ranges = std::move(ranges), .tag = tag, .done = std::move(done), .after = after}, delay_us_);
    return absl::OkStatus();
  }
  void Cancel(Epoch tag, std::function<void()> done) override { queue_->Cancel(lane_, tag, std::move(done)); }
  void Flush() override { queue_->Flush(lane_); }
  TransferStats stats() const override { return queue_->stats(lane_); }

 private:
  const std::shared_ptr<TransferQueue> queue_;
  const std::unique_ptr<PieceWriter> writer_;
  const TransferQueue::LanePointer lane_;
  const int64_t bytes_;
  const int64_t delay_us_;
};

class MappedWriter : public PieceWriter {
 public:
  MappedWriter(uint8_t* base, std::shared_ptr<const void> keep_alive)
      : base_(base), keep_alive_(std::move(keep_alive)) {}
  absl::Status WritePieces(std::span<const CopyRange> pieces, Epoch, void* after) override {
    if (after != nullptr) return FailedPrecondition("copies that a core makes cannot wait for an event of a device");
    for (const CopyRange& piece : pieces) CopyBytes(base_ + piece.to_offset, piece.from, piece.bytes);
    return absl::OkStatus();
  }

 private:
  uint8_t* const base_;
  const std::shared_ptr<const void> keep_alive_;
};

}  // namespace

absl::Status CheckRanges(const std::vector<CopyRange>& ranges, int64_t bytes) {
  for (size_t i = 0; i < ranges.size(); ++i) {
    const CopyRange& range = ranges[i];
    if (range.bytes < 0 || range.to_offset < 0 || range.bytes > bytes || range.to_offset > bytes - range.bytes) {
      return InvalidArgument("range ", i, " of ", ranges.size(), ": ", range.bytes, " bytes at offset ",
                             range.to_offset, ", expected within memory of ", bytes, " bytes; nothing was written");
    }
    if (range.from == nullptr && range.bytes > 0) {
      return InvalidArgument("range ", i, " of ", ranges.size(), " has no source; nothing was written");
    }
  }
  return absl::OkStatus();
}

std::unique_ptr<RemoteMemory> MakeQueuedMemory(std::shared_ptr<TransferQueue> queue,
                                               std::unique_ptr<PieceWriter> writer, int64_t bytes, int64_t delay_us) {
  return std::make_unique<QueuedMemory>(std::move(queue), std::move(writer), bytes, delay_us);
}

std::unique_ptr<RemoteMemory> MakeMappedMemory(std::shared_ptr<TransferQueue> queue, uint8_t* base, int64_t bytes,
                                               std::shared_ptr<const void> keep_alive) {
  return MakeQueuedMemory(std::move(queue), std::make_unique<MappedWriter>(base, std::move(keep_alive)), bytes);
}

}  // namespace baton
