// Strong names for the numbers that travel between folders.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>

namespace baton {

using TokenId = int32_t;  // index into a model's vocabulary
using BlockId = int32_t;  // index into one worker's block pool

// A number that cannot be mixed up with another kind of number.
template <typename Tag>
struct StrongId {
  uint64_t value = 0;
  auto operator<=>(const StrongId&) const = default;
};

using SequenceId = StrongId<struct SequenceTag>;  // one sequence, within one worker's lifetime
using WorkerId = StrongId<struct WorkerTag>;      // one place for a worker in a deployment; outlives restarts
using Epoch = StrongId<struct EpochTag>;  // one (request, attempt) of the hand-off; never used twice by a process

}  // namespace baton

template <typename Tag>
struct std::hash<baton::StrongId<Tag>> {
  size_t operator()(const baton::StrongId<Tag>& id) const noexcept { return std::hash<uint64_t>()(id.value); }
};
