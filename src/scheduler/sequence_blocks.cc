// What a sequence has in the pool: hashes, names of full blocks, announcements, integrity.
#include <algorithm>

#include "scheduler/scheduler.h"

namespace baton {

// Blocks that must be there before a sequence runs: all known tokens, and the first one to decode.
int32_t Scheduler::BlocksToAdmit(const Sequence& sequence) const {
  if (sequence.kind == SequenceKind::kPrefillOnly) return pool_.BlocksFor(sequence.length());
  return pool_.BlocksFor(std::min(sequence.length() + 1, sequence.max_computed()));
}

// The blocks that may come from the prefix cache. Never the last token when it is computed here, because the next one
// is sampled from it; so the block that holds it is a private one. A remote sequence gets its first token sent.
std::span<const BlockHash> Scheduler::UsableHashes(const Sequence& sequence) const {
  if (sequence.prompt_logprobs) return {};
  const bool computed_here = sequence.kind != SequenceKind::kRemote || sequence.state != SequenceState::kReserved;
  const size_t usable = (sequence.length() - (computed_here ? 1 : 0)) / pool_.block_size();
  return std::span(sequence.hashes).first(std::min(sequence.hashes.size(), usable));
}

void Scheduler::ExtendHashes(Sequence& sequence) const {
  if (!options_.prefix_caching) return;
  const size_t block_size = pool_.block_size();
  for (size_t i = sequence.hashes.size(); (i + 1) * block_size <= sequence.tokens.size(); ++i) {
    const BlockHash parent = i == 0 ? sequence.root : sequence.hashes[i - 1];
    sequence.hashes.push_back(ChildHash(parent, std::span(sequence.tokens).subspan(i * block_size, block_size)));
  }
}

// Publishes the blocks that have become full, and wakes whoever waits for them.
void Scheduler::NameFullBlocks(Sequence& sequence) {
  if (!options_.prefix_caching) return;
  ExtendHashes(sequence);
  const int32_t block_size = pool_.block_size();
  // Who was aborted may have computed a token that it never heard of.
  const int32_t named = std::min(sequence.computed, sequence.length());
  for (int32_t& i = sequence.named_blocks; (i + 1) * block_size <= named; ++i) {
    const BlockHash parent = i == 0 ? sequence.root : sequence.hashes[i - 1];
    pool_.Publish(sequence.blocks[i], sequence.hashes[i], parent,
                  std::span(sequence.tokens).subspan(i * block_size, block_size));
  }
  Unannounce(sequence, sequence.named_blocks);
}

// Tells others that this sequence is going to compute its remaining full blocks.
void Scheduler::Announce(Sequence& sequence) {
  sequence.announced_begin = sequence.named_blocks;
  sequence.announced_end = static_cast<int32_t>(sequence.hashes.size());
  for (int32_t i = sequence.announced_begin; i < sequence.announced_end; ++i) {
    computing_.try_emplace(sequence.hashes[i], &sequence);
  }
}

// Blocks below `end` are not going to be computed by this sequence any more: they are there, or it is gone.
void Scheduler::Unannounce(Sequence& sequence, int32_t end) {
  for (; sequence.announced_begin < std::min(end, sequence.announced_end); ++sequence.announced_begin) {
    const auto found = computing_.find(sequence.hashes[sequence.announced_begin]);
    if (found != computing_.end() && found->second == &sequence) computing_.erase(found);
  }
}

void Scheduler::FreeBlocks(Sequence& sequence) {
  Unannounce(sequence, sequence.announced_end);
  pool_.Free(sequence.blocks);
  sequence.blocks.clear();
  sequence.computed = sequence.planned = sequence.unknown = 0;
  sequence.named_blocks = 0;
  sequence.complete_blocks = 0;
  sequence.decoding = false;
  sequence.collected_logprobs.clear();
}

absl::Status Scheduler::CheckSequence(const Sequence& sequence) const {
  const int32_t blocks = static_cast<int32_t>(sequence.blocks.size());
  const bool waiting = sequence.state == SequenceState::kWaiting;
  if (waiting != sequence.blocks.empty() || pool_.BlocksFor(sequence.planned) > blocks) {
    return Internal("sequence ", sequence.id.value, " has ", blocks, " blocks for ", sequence.planned, " tokens");
  }
  const bool in_flight = sequence.in_flight > 0;
  if (in_flight != (sequence.planned > sequence.computed) || (sequence.ended && !in_flight) ||
      (!sequence.ended && sequence.unknown > sequence.in_flight) ||
      sequence.in_flight > static_cast<int32_t>(in_flight_.size())) {
    return Internal("sequence ", sequence.id.value, " is part of ", sequence.in_flight, " steps of ", in_flight_.size(),
                    " in flight: computed ", sequence.computed, ", planned ", sequence.planned, ", unknown ",
                    sequence.unknown, ", ended ", sequence.ended);
  }
  for (int32_t i = 0; i < blocks; ++i) {
    const BlockId block = sequence.blocks[i];
    const bool full = (i + 1) * pool_.block_size() <= sequence.computed;
    const bool to_write = !full && i >= sequence.named_blocks;
    if (pool_.RefCount(block) < 1 || (to_write && pool_.IsPublished(block))) {
      return Internal("sequence ", sequence.id.value, ": block ", block, " has ", pool_.RefCount(block),
                      " references, published ", pool_.IsPublished(block), ", still to be written ", to_write);
    }
  }
  return absl::OkStatus();
}

absl::Status Scheduler::CheckIntegrity() const {
  BATON_RETURN_IF_ERROR(pool_.CheckIntegrity());
  std::unordered_map<SequenceState, int32_t> counts;
  std::vector<int32_t> references(pool_.num_blocks(), 0);
  for (const auto& [id, sequence] : sequences_) {
    BATON_RETURN_IF_ERROR(CheckSequence(*sequence));
    ++counts[sequence->state];
    for (BlockId block : sequence->blocks) ++references[block];
  }
  for (BlockId block = 0; block < pool_.num_blocks(); ++block) {
    if (references[block] > pool_.RefCount(block)) {
      return Internal("block ", block, ": sequences hold ", references[block], " references, the pool counts ",
                      pool_.RefCount(block));
    }
  }
  const int32_t waiting = waiting_.size() + static_cast<int32_t>(parked_.size());
  const int32_t running = static_cast<int32_t>(running_.size());
  if (counts[SequenceState::kWaiting] != waiting || counts[SequenceState::kRunning] != running ||
      counts[SequenceState::kHeld] != held_ || counts[SequenceState::kReserved] != reserved_) {
    return Internal("states and queues disagree: waiting ", counts[SequenceState::kWaiting], "/", waiting, ", running ",
                    counts[SequenceState::kRunning], "/", running, ", held ", counts[SequenceState::kHeld], "/", held_,
                    ", reserved ", counts[SequenceState::kReserved], "/", reserved_);
  }
  for (const auto& [hash, sequence] : computing_) {
    if (std::ranges::find(running_, sequence) == running_.end()) return Internal("an announcement without a sequence");
  }
  return absl::OkStatus();
}

}  // namespace baton
