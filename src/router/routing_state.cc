#include "router/routing_state.h"

#include <algorithm>

namespace baton {

const WorkerView* RoutingState::Find(WorkerId id) const {
  const auto found = std::ranges::lower_bound(workers_, id, {}, &WorkerView::id);
  return found == workers_.end() || found->id != id ? nullptr : &*found;
}

WorkerView* RoutingState::Find(WorkerId id) {
  return const_cast<WorkerView*>(static_cast<const RoutingState*>(this)->Find(id));
}

WorkerView& RoutingState::Add(WorkerId id, WorkerRole role) {
  if (WorkerView* worker = Find(id)) return *worker;
  const auto place = std::ranges::lower_bound(workers_, id, {}, &WorkerView::id);
  slots_.insert(slots_.begin() + (place - workers_.begin()), index_.Slot(id));
  return *workers_.insert(place, WorkerView{.id = id, .role = role});
}

void RoutingState::Remove(WorkerId id) {
  const WorkerView* worker = Find(id);
  if (worker == nullptr) return;
  const auto place = worker - workers_.data();
  workers_.erase(workers_.begin() + place);
  slots_.erase(slots_.begin() + place);
}

void RoutingState::SetCached(const RouteRequest& request) {
  const std::span<const int64_t> prefix =
      index_.PrefixBlocks(request.reuses_prefix ? request.blocks : std::span<const BlockHash>());
  for (size_t i = 0; i < workers_.size(); ++i) {
    // The last token is always computed.
    workers_[i].cached_tokens = std::min(request.prompt_tokens - 1, prefix[slots_[i]] * request.block_size);
  }
}

std::vector<Selection> RoutingState::Rank(const RouteRequest& request, size_t count) {
  SetCached(request);
  return RankCandidates({.prompt_tokens = request.prompt_tokens,
                         .max_tokens = request.max_tokens,
                         .targets = targets_,
                         .max_local_prefill_tokens = max_local_prefill_tokens_},
                        workers_, count);
}

Placement RoutingState::Dispatched(const Selection& selection, const RouteRequest& request) {
  Placement placement{
      .decode = selection.decode, .prefill = selection.prefill.value_or(selection.decode), .active = true};
  if (WorkerView* decode = Find(placement.decode)) decode->sequences += 1;
  if (WorkerView* prefill = Find(placement.prefill)) {
    placement.queued_tokens = request.prompt_tokens - prefill->cached_tokens;
    prefill->queued_prefill_tokens += placement.queued_tokens;
    prefill->queued_prefills += 1;
  }
  index_.Dispatched(placement.prefill, request.blocks);  // the decode worker has them when it has the first token
  return placement;
}

void RoutingState::FirstToken(Placement& placement, const RouteRequest& request) {
  if (!placement.active || placement.has_first_token) return;
  placement.has_first_token = true;
  if (WorkerView* prefill = Find(placement.prefill)) {
    prefill->queued_prefill_tokens = std::max<int64_t>(0, prefill->queued_prefill_tokens - placement.queued_tokens);
    prefill->queued_prefills = std::max(0, prefill->queued_prefills - 1);
  }
  if (placement.prefill != placement.decode) index_.Dispatched(placement.decode, request.blocks);
}

void RoutingState::Ended(Placement& placement, const RouteRequest& request) {
  if (!placement.active) return;
  FirstToken(placement, request);
  if (placement.prefill != placement.decode) index_.DispatchEnded(placement.decode, request.blocks);
  index_.DispatchEnded(placement.prefill, request.blocks);
  placement.active = false;
  if (WorkerView* decode = Find(placement.decode)) decode->sequences = std::max(0, decode->sequences - 1);
}

}  // namespace baton
