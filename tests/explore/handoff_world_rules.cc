// Deaths in a World, and the rules that must hold in every state and at the end.
#include <algorithm>
#include <utility>

#include "base/status.h"
#include "handoff_world.h"

namespace baton {

// ---- deaths ----

void World::PrefillDies() {
  p_alive_ = false;
  p_reaped_ = p_reported_ = false;
  inbox_.clear();
  sequences_.clear();
  copies_.clear();
  prompts_.clear();
  measuring_ = 0;
  measured_blocks_.clear();
  prefill_ = PrefillSide(p_incarnation_ + 1, kLayers, options_.prefill);
  for (Session& session : sessions_) {
    if (session.p_incarnation != p_incarnation_) continue;
    session.broken = session.prefill_closed = true;
    session.to_prefill.clear();
  }
}

void World::Restart() {
  p_incarnation_ += 1;
  p_alive_ = true;
  p_reaped_ = false;
  news_.push_back({p_incarnation_, false});
}

void World::DecodeDies() {
  d_incarnation_ += 1;
  decode_ = DecodeSide(EpochBase(options_.epochs_repeat ? 1 : d_incarnation_), options_.decode);
  connecting_.clear();
  refused_incarnation_ = 0;
  pool_.assign(pool_.size(), {});
  for (Session& session : sessions_) {
    if (session.d_incarnation == d_incarnation_) continue;
    session.broken = session.decode_closed = session.decode_knows = true;
    session.to_decode.clear();
  }
  // The router replays what has not ended.
  for (Request& request : requests_) {
    const bool over = request.phase == Phase::kDone || request.cancelled;
    request = {.phase = over ? Phase::kDone : Phase::kIdle, .cancelled = request.cancelled};
  }
  news_ = {{p_incarnation_, p_reaped_}};
}

void World::DropClosedSessions() {
  std::erase_if(sessions_, [&](const Session& session) {
    const bool in_use = session.id == measuring_ || std::ranges::count(inbox_, session.id, &Message::session) > 0 ||
                        std::ranges::count(prompts_, session.id, &Prompt::session) > 0 ||
                        std::ranges::count(copies_, session.id, &Copy::session) > 0;
    return session.decode_knows && session.decode_closed && session.prefill_closed && session.to_decode.empty() &&
           !in_use;
  });
}

// ---- rules ----

void World::CheckMayBeWritten(BlockId id, uint8_t session, uint8_t r, std::string_view by) {
  const Block& block = pool_[id];
  if (block.fenced) return;
  const Request& request = requests_[r];
  const auto owned = std::ranges::find(request.blocks, id);
  const bool reserved = request.phase == Phase::kHanded && request.session == session &&
                        owned != request.blocks.end() && owned - request.blocks.begin() >= request.first_missing &&
                        block.owners == static_cast<uint8_t>(1 << r);
  if (!reserved) {
    Fail(Cat("block ", id, " can be written by ", by, " for request ", r, ", and is ",
             block.IsFree() ? "free" : "somebody's"));
  }
}

// No block is free, or somebody's, that P could still write.
void World::CheckWritable() {
  for (const Copy& copy : copies_) {
    if (copy.d_incarnation != d_incarnation_ || (copy.cancelled && !copy.late)) continue;
    const size_t end = copy.cancelled ? copy.next + size_t{1} : copy.pieces.size();
    for (size_t i = copy.next; i < end; ++i) {
      CheckMayBeWritten(copy.pieces[i].target, copy.session, copy.request, "a copy");
    }
  }
  for (const Prompt& prompt : prompts_) {
    const PrefillSide::Prompt* state = prefill_.Find(prompt.tag);
    const Session* session = FindSession(prompt.session);
    if (state == nullptr || state->state != PrefillState::kPushing || session == nullptr ||
        session->d_incarnation != d_incarnation_) {
      continue;
    }
    const std::vector<BlockId>& target = state->progress.target();
    for (size_t i = state->progress.first_missing(); i < target.size(); ++i) {
      CheckMayBeWritten(target[i], prompt.session, prompt.request, "P");
    }
  }
  const Session* session = FindSession(measuring_);
  for (const BlockId id : measured_blocks_) {
    if (session != nullptr && session->d_incarnation == d_incarnation_ && !pool_[id].lent && !pool_[id].fenced) {
      Fail(Cat("block ", id, " can be written by the measurement of a path, and is not lent"));
    }
  }
}

std::string World::CheckEnd() const {
  for (size_t r = 0; r < requests_.size(); ++r) {
    if (requests_[r].phase != Phase::kDone) return Cat("request ", r, " never ends");
  }
  for (size_t id = 0; id < pool_.size(); ++id) {
    const Block& block = pool_[id];
    if (block.fenced) return Cat("block ", id, " stays fenced");
    if (!block.IsFree()) return Cat("block ", id, " never comes home");
  }
  if (!decode_.requests().empty()) return "D still has a request";
  if (!prefill_.prompts().empty() || !prompts_.empty() || !copies_.empty()) return "P still has a prompt";
  if (!sequences_.empty()) return "P's scheduler still has a sequence";
  return "";
}

}  // namespace baton
