// A RemoteMemory whose pieces a TransferQueue writes: checks bounds, then queues.
#pragma once

#include <cstdint>
#include <memory>

#include "transfer/transfer_queue.h"
#include "transfer/transport.h"

namespace baton {

constexpr int64_t kPieceBytes = 1 << 20;  // a fraction of a millisecond

std::unique_ptr<RemoteMemory> MakeQueuedMemory(std::shared_ptr<TransferQueue> queue,
                                               std::unique_ptr<PieceWriter> writer, int64_t bytes,
                                               int64_t delay_us = 0);
// Memory that this process can address; `keep_alive` holds it.
std::unique_ptr<RemoteMemory> MakeMappedMemory(std::shared_ptr<TransferQueue> queue, uint8_t* base, int64_t bytes,
                                               std::shared_ptr<const void> keep_alive);

// InvalidArgument unless every range lies in [0, bytes).
absl::Status CheckRanges(const std::vector<CopyRange>& ranges, int64_t bytes);

}  // namespace baton
