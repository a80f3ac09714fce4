#include "router/kv_index.h"

#include <algorithm>

namespace baton {
namespace {

// Blocks by which lookups of large tables are begun before they are needed.
constexpr size_t kAhead = 4;

template <typename Map>
void AddHolder(Map& map, const BlockHash& hash, uint32_t slot) {
  auto& holders = map[hash];
  if (std::find(holders.begin(), holders.end(), slot) == holders.end()) holders.push_back(slot);
}

template <typename Map>
void RemoveHolder(Map& map, const BlockHash& hash, uint32_t slot) {
  const auto found = map.find(hash);
  if (found == map.end()) return;
  auto& holders = found->second;
  holders.erase(std::remove(holders.begin(), holders.end(), slot), holders.end());
  if (holders.empty()) map.erase(found);
}

}  // namespace

size_t KvIndex::Slot(WorkerId worker) {
  const auto [entry, added] = slots_.try_emplace(worker, static_cast<uint32_t>(parts_.size()));
  if (added) parts_.emplace_back();
  return entry->second;
}

void KvIndex::Store(uint32_t slot, const BlockHash& hash) {
  if (parts_[slot].blocks.insert(hash).second) AddHolder(reported_, hash, slot);
}

void KvIndex::Remove(uint32_t slot, const BlockHash& hash) {
  if (parts_[slot].blocks.erase(hash) > 0) RemoveHolder(reported_, hash, slot);
}

void KvIndex::Clear(uint32_t slot) {
  for (const BlockHash& hash : parts_[slot].blocks) RemoveHolder(reported_, hash, slot);
  parts_[slot].blocks.clear();
}

bool KvIndex::Apply(WorkerId worker, uint64_t first, std::span<const CacheChange> changes) {
  const auto slot = static_cast<uint32_t>(Slot(worker));
  Part& part = parts_[slot];
  if (part.state == State::kStale) return false;
  if (first != part.sequence + 1) return Lost(worker);
  part.state = State::kExact;
  part.sequence += changes.size();
  for (const CacheChange& change : changes) {
    switch (change.kind) {
      case CacheChange::Kind::kStored:
        Store(slot, change.hash);
        break;
      case CacheChange::Kind::kRemoved:
        Remove(slot, change.hash);
        break;
      case CacheChange::Kind::kCleared:
        Clear(slot);
        break;
    }
  }
  return false;
}

bool KvIndex::Lost(WorkerId worker) {
  const auto slot = static_cast<uint32_t>(Slot(worker));
  Part& part = parts_[slot];
  if (part.state == State::kStale) return false;
  Clear(slot);
  part.state = State::kStale;
  part.in_snapshot = false;
  ++part.gaps;
  return true;
}

void KvIndex::ApplySnapshot(WorkerId worker, uint64_t sequence, std::span<const BlockHash> blocks, bool begin,
                            bool end) {
  const auto slot = static_cast<uint32_t>(Slot(worker));
  Part& part = parts_[slot];
  if (begin) {
    Clear(slot);
    part.state = State::kStale;
  }
  if (!begin && !part.in_snapshot) return;  // a piece of one whose beginning was lost
  part.in_snapshot = !end;
  for (const BlockHash& hash : blocks) Store(slot, hash);
  if (!end) return;
  part.state = State::kExact;
  part.sequence = sequence;
  ++part.snapshots;
}

void KvIndex::Dispatched(WorkerId worker, std::span<const BlockHash> blocks) {
  const auto slot = static_cast<uint32_t>(Slot(worker));
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (i + kAhead < blocks.size()) dispatched_.prefetch(blocks[i + kAhead]);
    auto& expecting = dispatched_[blocks[i]];
    const auto found = std::ranges::find(expecting, slot, &Expecting::slot);
    if (found != expecting.end()) {
      ++found->requests;
    } else {
      expecting.push_back({slot, 1});
      ++parts_[slot].dispatched;
    }
  }
}

void KvIndex::DispatchEnded(WorkerId worker, std::span<const BlockHash> blocks) {
  const auto slot = static_cast<uint32_t>(Slot(worker));
  for (const BlockHash& hash : blocks) {
    const auto entry = dispatched_.find(hash);
    if (entry == dispatched_.end()) continue;
    auto& expecting = entry->second;
    const auto found = std::ranges::find(expecting, slot, &Expecting::slot);
    if (found == expecting.end() || --found->requests > 0) continue;
    expecting.erase(found);
    if (expecting.empty()) dispatched_.erase(entry);
    --parts_[slot].dispatched;
  }
}

void KvIndex::Forget(WorkerId worker) {
  const auto slot = static_cast<uint32_t>(Slot(worker));
  Clear(slot);
  absl::erase_if(dispatched_, [slot](auto& entry) {
    auto& expecting = entry.second;
    const auto rest = std::ranges::remove(expecting, slot, &Expecting::slot);
    expecting.erase(rest.begin(), rest.end());
    return expecting.empty();
  });
  const Part old = std::move(parts_[slot]);
  parts_[slot] = {};
  parts_[slot].gaps = old.gaps;
  parts_[slot].snapshots = old.snapshots;
}

void KvIndex::ForgetDispatched() {
  dispatched_.clear();
  for (Part& part : parts_) part.dispatched = 0;
}

// A worker's prefix grows at block i only when it has grown at all blocks before.
std::span<const int64_t> KvIndex::PrefixBlocks(std::span<const BlockHash> blocks) {
  lengths_.assign(parts_.size(), 0);
  for (size_t i = 0; i < blocks.size(); ++i) {
    const auto length = static_cast<int64_t>(i);
    if (i + kAhead < blocks.size()) {
      reported_.prefetch(blocks[i + kAhead]);
      dispatched_.prefetch(blocks[i + kAhead]);
    }
    bool grown = false;
    const auto grow = [&](uint32_t slot) {
      if (lengths_[slot] != length) return;
      lengths_[slot] = length + 1;
      grown = true;
    };
    if (const auto found = reported_.find(blocks[i]); found != reported_.end()) {
      for (const uint32_t slot : found->second) grow(slot);
    }
    if (const auto found = dispatched_.find(blocks[i]); found != dispatched_.end()) {
      for (const Expecting& expecting : found->second) grow(expecting.slot);
    }
    if (!grown) break;
  }
  return lengths_;
}

KvIndex::WorkerStats KvIndex::Stats(WorkerId worker) const {
  const auto found = slots_.find(worker);
  if (found == slots_.end()) return {};
  const Part& part = parts_[found->second];
  return {.state = part.state,
          .blocks = static_cast<int64_t>(part.blocks.size()),
          .dispatched = part.dispatched,
          .sequence = part.sequence,
          .gaps = part.gaps,
          .snapshots = part.snapshots};
}

std::vector<BlockHash> KvIndex::Blocks(WorkerId worker) const {
  const auto found = slots_.find(worker);
  if (found == slots_.end()) return {};
  const Part& part = parts_[found->second];
  std::vector<BlockHash> blocks(part.blocks.begin(), part.blocks.end());
  std::sort(blocks.begin(), blocks.end());
  return blocks;
}

}  // namespace baton
