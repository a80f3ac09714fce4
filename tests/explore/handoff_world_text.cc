// A World in words, and as a key.
#include "base/status.h"
#include "handoff_world.h"

namespace baton {
namespace {

using E = WorldEvent;

}  // namespace

// ---- names ----

std::string World::Describe(const Choice& choice) const {
  static constexpr const char* kMessages[] = {"PoolOffer",
                                              "Prefill",
                                              "Reservation",
                                              "CancelPrefill",
                                              "PathMeasured",
                                              "Started",
                                              "FirstToken",
                                              "FirstToken (the last)",
                                              "Complete",
                                              "Quiesced",
                                              "Quiesced (refused for good)",
                                              "closed",
                                              "abort",
                                              "release"};
  const int a = choice.a;
  const auto name = [&](const std::vector<Message>& queue) -> std::string {
    if (queue.empty()) return "nothing";
    const Message& front = queue.front();
    return front.number > 0xffff ? Cat(kMessages[static_cast<int>(front.kind)], " of epoch ", front.number >> 16, ".",
                                       front.number & 0xffff)
                                 : kMessages[static_cast<int>(front.kind)];
  };
  const auto session = [&] { return static_cast<int>(sessions_[a].id); };
  switch (choice.event) {
    case E::kAsk:
      return Cat("request ", a, " comes to D, to be prefilled by incarnation ", static_cast<int>(choice.b), " of P");
    case E::kCancel:
      return Cat("request ", a, " is cancelled, or its deadline passes");
    case E::kHeadRoom:
      return Cat("D has head-room for request ", a, " and sends Prefill");
    case E::kReserve:
      return Cat("D reserves blocks for request ", a);
    case E::kNeverFits:
      return Cat("D's scheduler refuses request ", a, " for good");
    case E::kLocalAdmit:
      return Cat("D prefills request ", a, " itself");
    case E::kFinish:
      return Cat("request ", a, " generates its last token");
    case E::kConnected:
      return Cat("D hears that session ", session(), " is open");
    case E::kConnectFailed:
      return "D cannot connect";
    case E::kDecodeReceives:
      return Cat("D receives ", name(sessions_[a].to_decode), " by session ", session());
    case E::kDecodeClosed:
      return Cat("D hears that session ", session(), " is closed");
    case E::kMembers:
      return Cat("D hears that incarnation ", news_.front().incarnation, " of P is ",
                 news_.front().dead ? "reaped" : "there");
    case E::kAccept:
      return Cat("incarnation ", static_cast<int>(p_incarnation_), " of P accepts session ",
                 static_cast<int>(next_session_));
    case E::kPrefillReceives:
      return Cat("P receives ", name(sessions_[a].to_prefill), " by session ", session());
    case E::kPrefillClosed:
      return Cat("P hears that session ", session(), " is closed");
    case E::kInbox:
      return Cat("P's step loop takes ", name(inbox_), a == 0 ? "" : ", and its scheduler refuses it");
    case E::kMeasured:
      return "P has measured the path";
    case E::kStep:
    case E::kEndsAtOnce: {
      const Sequence& sequence = sequences_[a];
      const std::string what = sequence.position == StepsOfPrompt() ? "samples the first token"
                               : sequence.position % 3 == 0         ? "begins a step"
                                                                    : "has computed a layer";
      return Cat("P ", what, " of request ", static_cast<int>(sequence.request),
                 choice.event == E::kEndsAtOnce ? ", which ends it" : "");
    }
    case E::kPreempt:
      return Cat("P preempts request ", static_cast<int>(sequences_[a].request));
    case E::kLease:
      return Cat("P's hold lease of request ", static_cast<int>(prompts_[a].request), " runs out");
    case E::kDeadlineAtP:
      return Cat("P ends request ", static_cast<int>(prompts_[a].request), ": its deadline has passed");
    case E::kWrite:
    case E::kCorruptWrite:
    case E::kLateWrite: {
      const Copy& copy = copies_[a];
      return Cat("P writes layers [", copy.pieces[copy.next].layer_begin, ", ", copy.pieces[copy.next].layer_end,
                 ") of block ", copy.pieces[copy.next].target, " for request ", static_cast<int>(copy.request),
                 choice.event == E::kLateWrite      ? ", after the cancel"
                 : choice.event == E::kCorruptWrite ? ", and other bytes arrive"
                                                    : "");
    }
    case E::kCopyEnded:
      return Cat("a cancelled copy of request ", static_cast<int>(copies_[a].request), " has ended");
    case E::kCopyFails:
      return Cat("a copy of request ", static_cast<int>(copies_[a].request), " fails");
    case E::kBreak:
      return Cat("session ", session(), " breaks");
    case E::kBreakAndLose:
      return Cat("session ", session(), " breaks, and loses what was under way");
    case E::kDuplicateToPrefill:
      return Cat(name(sessions_[a].to_prefill), " is sent twice");
    case E::kDuplicateToDecode:
      return Cat(name(sessions_[a].to_decode), " is sent twice");
    case E::kPrefillDies:
      return "P dies";
    case E::kDecodeDies:
      return "D dies, and another incarnation takes its requests";
    case E::kKilled:
      return "the supervisor kills P, whom D reported lost";
    case E::kReaped:
      return Cat("the supervisor reaps incarnation ", static_cast<int>(p_incarnation_), " of P");
    case E::kRestarted:
      return "the supervisor starts P again";
  }
  return "";
}

// ---- equality ----

void World::AppendKey(std::string& key) const {
  const auto put = [&](auto... values) { (key.push_back(static_cast<char>(values)), ...); };
  const auto put_epoch = [&](uint64_t epoch) { put(epoch >> 16, epoch); };
  const auto put_messages = [&](const std::vector<Message>& messages) {
    put(messages.size());
    for (const Message& m : messages) {
      put(m.kind, m.session, m.request, m.refused, m.first_missing, m.blocks.size());
      put_epoch(m.number);
      for (const BlockId block : m.blocks) put(block);
    }
  };
  put(p_deaths_, d_deaths_, breaks_, cancels_, duplicates_, preemptions_, copy_failures_, corruptions_);
  put(p_incarnation_, p_alive_, p_reaped_, p_reported_, d_incarnation_, refused_incarnation_, measuring_);
  put(sessions_.size());
  for (const Session& s : sessions_) {
    put(s.id, s.d_incarnation, s.p_incarnation, s.connection, s.broken, s.decode_knows, s.decode_closed,
        s.prefill_closed);
    put_messages(s.to_prefill);
    put_messages(s.to_decode);
  }
  put(news_.size());
  for (const DecodeSide::Member& member : news_) put(member.incarnation, member.dead);
  put(connecting_.size());
  for (const uint64_t connection : connecting_) put(connection);
  for (const Block& b : pool_) put(b.owners, b.lent, b.fenced, b.published, b.marks[0], b.marks[1]);
  for (const Request& r : requests_) {
    put(r.phase, r.cancelled, r.token, r.session, r.first_missing, r.blocks.size());
    for (const BlockId block : r.blocks) put(block);
  }
  put(decode_.requests().size());
  for (const auto& [sequence, r] : decode_.requests()) {
    put(sequence.value, r.incarnation, r.connection, r.state);
    put_epoch(r.epoch);
  }
  for (const auto& [worker, peer] : decode_.peers()) {
    put(peer.incarnation, peer.connection, peer.link, peer.lent.size());
    for (const BlockId block : peer.lent) put(block);
  }
  for (const auto& [worker, member] : decode_.members()) put(member.incarnation, member.dead);
  put(decode_.fenced().size());
  for (const auto& [owner, blocks] : decode_.fenced()) {
    put(owner.second, blocks.size());
    for (const BlockId block : blocks) put(block);
  }
  put_messages(inbox_);
  put(prompts_.size());
  for (const Prompt& p : prompts_) {
    put(p.tag, p.session, p.request, p.sequence.value, p.refused_for_good);
    put_epoch(p.epoch);
  }
  put(prefill_.peers().size());
  for (const auto& [session, peer] : prefill_.peers()) {
    put(session, peer.accepted);
    put_epoch(peer.last_epoch);
  }
  put(prefill_.prompts().size());
  for (const auto& [tag, p] : prefill_.prompts()) {
    put(tag, p.state, p.in_flight, p.progress.first_missing(), p.progress.complete_blocks(), p.progress.chunk_end(),
        p.progress.chunk_layers(), p.progress.target().size(), p.progress.pushed_layers().size());
    for (const BlockId block : p.progress.target()) put(block);
    for (const int32_t layers : p.progress.pushed_layers()) put(layers);
  }
  put(sequences_.size());
  for (const Sequence& s : sequences_) put(s.id.value, s.request, s.generation, s.position, s.admitted, s.held);
  put(copies_.size());
  for (const Copy& c : copies_) {
    put(c.tag, c.session, c.request, c.generation, c.d_incarnation, c.next, c.cancelled, c.late, c.pieces.size());
    for (const PushPiece& piece : c.pieces) put(piece.source, piece.target, piece.layer_begin, piece.layer_end);
  }
}

}  // namespace baton
