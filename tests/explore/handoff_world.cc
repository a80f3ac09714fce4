#include "handoff_world.h"

#include <algorithm>

#include "base/status.h"

namespace baton {
namespace {

constexpr WorkerId kPrefillWorker{1};

uint8_t RequestOf(SequenceId sequence) { return static_cast<uint8_t>((sequence.value - 1) % 16); }

}  // namespace

World::World(const WorldOptions& options)
    : options_(options),
      news_{{1, false}},
      decode_(EpochBase(1), options.decode),
      pool_(options.blocks),
      requests_(options.requests),
      prefill_(1, kLayers, options.prefill) {}

void World::Fail(std::string error) {
  if (error_.empty()) error_ = std::move(error);
}

World::Session* World::FindSession(uint8_t id) { return const_cast<Session*>(std::as_const(*this).FindSession(id)); }
const World::Session* World::FindSession(uint8_t id) const {
  const auto found = std::ranges::find(sessions_, id, &Session::id);
  return found == sessions_.end() ? nullptr : &*found;
}

int32_t World::FreeBlocks() const { return static_cast<int32_t>(std::ranges::count_if(pool_, &Block::IsFree)); }

// The block that holds the prefix of all prompts, or -1.
int32_t World::FindShared() const {
  if (!options_.shared_prefix) return -1;
  const auto found = std::ranges::find(pool_, true, &Block::published);
  return found == pool_.end() ? -1 : static_cast<int32_t>(found - pool_.begin());
}

int32_t World::BlocksNeeded() const { return options_.blocks_per_request - (FindShared() >= 0 ? 1 : 0); }

// What the bytes of a request's block should be.
uint8_t World::Mark(uint8_t request, size_t block) const {
  return options_.shared_prefix && block == 0 ? 1 : static_cast<uint8_t>(10 * (request + 1) + block);
}

// ---- D ----

void World::Ask(uint8_t request, uint64_t incarnation) {
  ExecutePeer(decode_.Need(kPrefillWorker, incarnation));
  decode_.Start(DecodeSequence(request), kPrefillWorker);
  requests_[request].phase = Phase::kHanded;
  if (decode_.peers().at(kPrefillWorker).incarnation == refused_incarnation_) {
    Execute(decode_.Handle(DecodeSequence(request), DecodeEvent::kPeerGone));
  }
}

void World::Connected(Session& session) {
  session.decode_knows = true;
  const PeerDecision decision = decode_.OnConnected(session.connection, true);
  if (decision.close != 0) {
    session.broken = session.decode_closed = true;
    return;
  }
  Message offer{
      .kind = Message::Kind::kOffer, .session = session.id, .number = decode_.peers().at(kPrefillWorker).incarnation};
  if (options_.probe && FreeBlocks() > 0) {
    const auto block = std::ranges::find_if(pool_, &Block::IsFree);
    block->lent = true;
    offer.blocks = {static_cast<BlockId>(block - pool_.begin())};
    decode_.Lend(session.connection, offer.blocks);
  }
  if (!session.broken) session.to_prefill.push_back(std::move(offer));
}

void World::ExecutePeer(const PeerDecision& decision) {
  for (Session& session : sessions_) {
    if (decision.close == 0 || session.connection != decision.close || session.d_incarnation != d_incarnation_)
      continue;
    session.broken = true;
    if (session.decode_knows) session.decode_closed = true;
  }
  if (decision.report_lost && p_alive_ && decode_.peers().at(kPrefillWorker).incarnation == p_incarnation_) {
    p_reported_ = true;
  }
  const auto settle = [&](const std::vector<BlockId>& blocks, bool from_lent, bool fence) {
    for (const BlockId id : blocks) {
      Block& block = pool_[id];
      if ((from_lent && !block.lent) || (!from_lent && !block.fenced)) Fail(Cat("block ", id, " has another owner"));
      block.lent = false;
      block.fenced = fence;
    }
  };
  settle(decision.free, true, false);
  settle(decision.fence, true, true);
  settle(decision.unfence, false, false);
  for (const DecodeDecision& request : decision.requests) Execute(request);
  if (decision.connect != 0) connecting_.push_back(decision.connect);
}

void World::Execute(const std::optional<DecodeDecision>& decision) {
  if (!decision) return;
  const uint8_t r = RequestOf(decision->sequence);
  if (decision->blocks != BlocksFate::kKeep) {
    const std::vector<BlockId> fenced = GiveBack(r, decision->blocks == BlocksFate::kFence);
    decode_.Fence(*decision, fenced);
  }
  const bool ends = decision->to == DecodeState::kForgotten && !decision->Does(DecodeAction::kDecode) &&
                    !decision->Does(DecodeAction::kRecompute);
  if (ends) requests_[r].phase = Phase::kDone;
  for (const DecodeAction action : decision->actions) Act(action, *decision);
}

void World::Act(DecodeAction action, const DecodeDecision& decision) {
  const uint8_t r = RequestOf(decision.sequence);
  Request& request = requests_[r];
  using Kind = Message::Kind;
  switch (action) {
    case DecodeAction::kNothing:
    case DecodeAction::kDeliverError:
      return;
    case DecodeAction::kSendPrefill:
      for (const Session& session : sessions_) {
        if (session.connection == decision.connection && session.d_incarnation == d_incarnation_) {
          request.session = session.id;
        }
      }
      return SendToPrefill(decision, {.kind = Kind::kPrefill, .request = r});
    case DecodeAction::kSendReservation:
      return SendToPrefill(
          decision,
          {.kind = Kind::kReservation, .request = r, .blocks = request.blocks, .first_missing = request.first_missing});
    case DecodeAction::kSendCancel:
      return SendToPrefill(decision, {.kind = Kind::kCancel, .request = r});
    case DecodeAction::kDeliverToken:
      request.token = true;
      return;
    case DecodeAction::kDecode:
      if (!request.token) Fail(Cat("request ", r, " decodes without its first token"));
      return Run(r, Phase::kDecoding);
    case DecodeAction::kResume:
      if (!request.token) Fail(Cat("request ", r, " goes on without its first token"));
      for (size_t i = FindCorrupt(r).value_or(0); i < request.blocks.size(); ++i) {
        pool_[request.blocks[i]].marks.fill(Mark(r, i));
      }
      return Run(r, Phase::kDecoding);
    case DecodeAction::kRecompute:
      if (!request.blocks.empty()) Fail(Cat("request ", r, " is computed anew and still has the old blocks"));
      request.phase = Phase::kLocalWaiting;
      return;
  }
}

void World::SendToPrefill(const DecodeDecision& decision, Message message) {
  for (Session& session : sessions_) {
    if (session.connection != decision.connection || session.d_incarnation != d_incarnation_) continue;
    message.session = session.id;
    message.number = decision.epoch;
    if (!session.broken) session.to_prefill.push_back(std::move(message));
    return;
  }
}

// Returns what was fenced.
std::vector<BlockId> World::GiveBack(uint8_t r, bool fence) {
  Request& request = requests_[r];
  std::vector<BlockId> fenced;
  for (size_t i = 0; i < request.blocks.size(); ++i) {
    Block& block = pool_[request.blocks[i]];
    const auto bit = static_cast<uint8_t>(1 << r);
    if ((block.owners & bit) == 0 || block.lent || block.fenced) {
      Fail(Cat("block ", request.blocks[i], " is not request ", r, "'s to give back"));
    }
    block.owners &= static_cast<uint8_t>(~bit);
    if (block.owners == 0) block.published = false;
    if (fence && static_cast<int32_t>(i) >= request.first_missing) {
      block.fenced = true;
      fenced.push_back(request.blocks[i]);
    }
  }
  request.blocks.clear();
  request.first_missing = 0;
  return fenced;
}

void World::TakeBlocks(uint8_t r) {
  Request& request = requests_[r];
  if (!request.blocks.empty()) Fail(Cat("request ", r, " takes blocks and has some"));
  if (const int32_t shared = FindShared(); shared >= 0) request.blocks.push_back(shared);
  request.first_missing = static_cast<int32_t>(request.blocks.size());
  for (BlockId id = 0; std::ssize(request.blocks) < options_.blocks_per_request && id < std::ssize(pool_); ++id) {
    if (!pool_[id].IsFree()) continue;
    pool_[id].marks = {};  // whatever they are
    request.blocks.push_back(id);
  }
  for (const BlockId id : request.blocks) pool_[id].owners |= static_cast<uint8_t>(1 << r);
}

void World::CheckArrived(uint8_t r, std::string_view when) {
  const Request& request = requests_[r];
  for (size_t i = 0; i < request.blocks.size(); ++i) {
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      if (pool_[request.blocks[i]].marks[layer] == Mark(r, i)) continue;
      return Fail(Cat("request ", r, " decodes on bytes that did not arrive, or not its own: block ", request.blocks[i],
                      ", layer ", layer, ", ", when));
    }
  }
  if (std::ssize(request.blocks) != options_.blocks_per_request) Fail(Cat("request ", r, " decodes without blocks"));
}

std::optional<size_t> World::FindCorrupt(uint8_t r) const {
  const Request& request = requests_[r];
  for (size_t i = request.first_missing; i < request.blocks.size(); ++i) {
    const Block& block = pool_[request.blocks[i]];
    if (std::ranges::count(block.marks, Mark(r, i)) != kLayers) return i;
  }
  return std::nullopt;
}

void World::Run(uint8_t r, Phase phase) {
  Request& request = requests_[r];
  if (phase == Phase::kLocalRunning) {
    for (size_t i = request.first_missing; i < request.blocks.size(); ++i) {
      pool_[request.blocks[i]].marks.fill(Mark(r, i));
    }
  }
  CheckArrived(r, "at its start");
  request.phase = phase;
  if (options_.shared_prefix && !request.blocks.empty() && FindShared() < 0) pool_[request.blocks[0]].published = true;
}

void World::EndRequest(uint8_t r) {
  GiveBack(r, false);
  requests_[r].phase = Phase::kDone;
}

void World::DecodeReceives(Session& session) {
  const Message message = session.to_decode.front();
  session.to_decode.erase(session.to_decode.begin());
  DecodeEvent event = DecodeEvent::kStarted;
  using Kind = Message::Kind;
  switch (message.kind) {
    case Kind::kMeasured:
      for (const BlockId id : decode_.OnMeasured(session.connection)) {
        if (!pool_[id].lent) Fail(Cat("block ", id, " was not lent"));
        pool_[id].lent = false;
      }
      if (message.refused && decode_.IsOpen(session.connection)) {
        refused_incarnation_ = decode_.peers().at(kPrefillWorker).incarnation;
      }
      return;
    case Kind::kStarted:
      event = DecodeEvent::kStarted;
      break;
    case Kind::kFirstToken:
      event = DecodeEvent::kFirstToken;
      break;
    case Kind::kLastToken:
      event = DecodeEvent::kLastToken;
      break;
    case Kind::kComplete:
      event = DecodeEvent::kComplete;
      if (const auto found = decode_.Find(session.connection, message.number); options_.verify && found) {
        const bool arriving = found->second == DecodeState::kArriving;
        if (arriving && FindCorrupt(RequestOf(found->first))) event = DecodeEvent::kCorrupt;
      }
      break;
    case Kind::kQuiesced:
      event = DecodeEvent::kQuiesced;
      break;
    case Kind::kRefused:
      event = DecodeEvent::kRefused;
      break;
    default:
      return Fail("a message that is not for D");
  }
  const auto decision = decode_.OnMessage(session.connection, message.number, event);
  if (decision &&
      (requests_[RequestOf(decision->sequence)].session != session.id || decision->epoch != message.number)) {
    Fail(Cat("a stale message was accepted, for request ", RequestOf(decision->sequence)));
  }
  Execute(decision);
}

}  // namespace baton
