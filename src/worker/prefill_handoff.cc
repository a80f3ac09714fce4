#include "worker/prefill_handoff.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "rpc/convert.h"
#include "rpc/envelope.h"

namespace baton {
namespace {

int64_t MicrosecondsSince(PrefillHandoff::Clock::time_point then) {
  return std::chrono::duration_cast<std::chrono::microseconds>(PrefillHandoff::Clock::now() - then).count();
}

void SendQuiesced(Session& session, uint64_t epoch, const absl::Status& reason) {
  proto::Envelope envelope;
  envelope.mutable_quiesced()->set_epoch(epoch);
  if (!reason.ok()) ToProto(reason, envelope.mutable_quiesced()->mutable_reason());
  SendEnvelope(session, envelope);
}

}  // namespace

PrefillHandoff::PrefillHandoff(Transport& transport, PrefillHandoffOptions options, PrefillHandoffActions actions)
    : transport_(transport), options_(std::move(options)), actions_(std::move(actions)) {}

PrefillHandoff::~PrefillHandoff() {
  // Copies in flight call back: let them end while everything that they touch is still here.
  std::vector<std::shared_ptr<RemoteMemory>> pools;
  {
    MutexLock lock(mutex_);
    for (const auto& [session, peer] : peers_) pools.push_back(peer.pool);
    for (auto& [tag, prompt] : prompts_) {
      pools.push_back(prompt.pool);
      prompt.ending = true;
      if (prompt.pool != nullptr) prompt.pool->Cancel({tag}, [] {});
    }
  }
  for (const std::shared_ptr<RemoteMemory>& pool : pools) {
    if (pool != nullptr) pool->Flush();
  }
}

// ---- decode workers ----

absl::StatusOr<PathReport> PrefillHandoff::Accept(const proto::PoolOffer& offer, UniqueFd fd,
                                                  std::shared_ptr<RemoteMemory>& pool) {
  if (offer.owner().fingerprint() != options_.fingerprint) {
    return FailedPrecondition("the KV caches differ: ", options_.fingerprint, " here, ", offer.owner().fingerprint(),
                              " on ", offer.owner().process(),
                              "; both workers must run the same model, KV type and block size");
  }
  if (offer.block_bytes() != options_.layout.block_bytes()) {
    return FailedPrecondition("blocks of ", options_.layout.block_bytes(), " bytes here, of ", offer.block_bytes(),
                              " there");
  }
  BATON_ASSIGN_OR_RETURN(pool, transport_.Import(offer.pool(), std::move(fd)));
  std::vector<CopyRange> ranges;
  for (int32_t i = 0; i < offer.probe_blocks_size(); ++i) {
    const int64_t bytes = options_.layout.block_bytes();
    const uint8_t* from = options_.memory.base + i * bytes % (options_.memory.bytes - bytes + 1);
    ranges.push_back({.from = from, .to_offset = offer.probe_blocks(i) * bytes, .bytes = bytes});
  }
  if (ranges.empty()) return PathReport{.transport = transport_.name()};  // no room to measure just now
  BATON_ASSIGN_OR_RETURN(PathReport report, ProbePath(transport_, *pool, ranges, {0}));
  if (report.gigabytes_per_second > 0 && report.gigabytes_per_second < options_.min_path_gbps) {
    return FailedPrecondition("the path is too slow: ", report.Text(), ", and --min-path-gbps asks for ",
                              options_.min_path_gbps);
  }
  return report;
}

void PrefillHandoff::OnPoolOffer(const std::shared_ptr<Session>& session, const proto::PoolOffer& offer, UniqueFd fd) {
  Peer peer{.shared_pool = session->within_process()};
  const absl::StatusOr<PathReport> report =
      peer.shared_pool ? PathReport{.transport = "ids"} : Accept(offer, std::move(fd), peer.pool);
  peer.refused = report.status();
  if (!report.ok())
    peer.pool.reset();  // waits until no byte of the probe moves any more: the blocks are free after the answer
  proto::Envelope envelope;
  proto::PathMeasured* measured = envelope.mutable_path_measured();
  measured->mutable_path()->set_prefill_worker(options_.worker);
  if (report.ok()) {
    measured->mutable_path()->set_transport(peer.shared_pool ? report->transport : report->Text());
    measured->mutable_path()->set_shared_pool(peer.shared_pool);
    measured->mutable_path()->set_gigabytes_per_second(report->gigabytes_per_second);
    if (report->below_floor) measured->mutable_path()->set_warning(report->advice);
  } else {
    ToProto(report.status(), measured->mutable_refused());
  }
  {
    MutexLock lock(mutex_);
    peers_[session.get()] = std::move(peer);
  }
  SendEnvelope(*session, envelope);
}

void PrefillHandoff::OnSessionClosed(const std::shared_ptr<Session>& session) {
  MutexLock lock(mutex_);
  peers_.erase(session.get());
  std::vector<uint64_t> lost;
  for (const auto& [tag, prompt] : prompts_) {
    if (prompt.session == session) lost.push_back(tag);
  }
  for (const uint64_t tag : lost) End(prompts_.at(tag), Cancelled("the decode worker is gone"));
}

// ---- one prompt ----

PrefillHandoff::Prompt* PrefillHandoff::FindLocked(const Session* session, uint64_t epoch) {
  const auto tag = by_epoch_.find({session, epoch});
  return tag == by_epoch_.end() ? nullptr : &prompts_.at(tag->second);
}

absl::Status PrefillHandoff::OnPrefill(const std::shared_ptr<Session>& session, uint64_t epoch, SequenceId sequence) {
  MutexLock lock(mutex_);
  const auto peer = peers_.find(session.get());
  absl::Status refused =
      peer == peers_.end() ? FailedPrecondition("a prompt before the pool was offered") : peer->second.refused;
  if (refused.ok() && by_epoch_.contains({session.get(), epoch}))
    refused = FailedPrecondition("epoch ", epoch, " was used twice");
  if (!refused.ok()) {
    SendQuiesced(*session, epoch, refused);
    return refused;
  }
  const uint64_t tag = next_tag_++;
  Prompt& prompt = prompts_[tag];
  prompt.session = session;
  prompt.pool = peer->second.pool;
  prompt.shared_pool = peer->second.shared_pool;
  prompt.epoch = epoch;
  prompt.tag = tag;
  prompt.sequence = sequence;
  prompt.received = Clock::now();
  by_epoch_[{session.get(), epoch}] = tag;
  by_sequence_[sequence] = tag;
  return absl::OkStatus();
}

void PrefillHandoff::OnRefused(SequenceId sequence, const absl::Status& why) {
  MutexLock lock(mutex_);
  const auto tag = by_sequence_.find(sequence);
  if (tag == by_sequence_.end()) return;
  Prompt& prompt = prompts_.at(tag->second);
  SendQuiesced(*prompt.session, prompt.epoch, why);
  Forget(prompt);
}

void PrefillHandoff::OnReservation(const std::shared_ptr<Session>& session, const proto::Reservation& reservation) {
  MutexLock lock(mutex_);
  Prompt* prompt = FindLocked(session.get(), reservation.epoch());
  // One that was cancelled or given up meanwhile: its Quiesced is on the way.
  if (prompt == nullptr || prompt->ending || !prompt->target.empty()) return;
  if (reservation.blocks().empty() || reservation.first_missing() < 0 ||
      reservation.first_missing() > reservation.blocks_size()) {
    return End(*prompt, InvalidArgument("a reservation of ", reservation.blocks_size(), " blocks, missing from ",
                                        reservation.first_missing()));
  }
  prompt->target.assign(reservation.blocks().begin(), reservation.blocks().end());
  prompt->first_missing = reservation.first_missing();
  if (const absl::Status pushed = Push(*prompt); !pushed.ok()) return End(*prompt, pushed);
  MaybeFinish(*prompt);
}

void PrefillHandoff::OnCancel(const std::shared_ptr<Session>& session, uint64_t epoch) {
  MutexLock lock(mutex_);
  // Unknown: it has ended already, and the other side has been told.
  if (Prompt* prompt = FindLocked(session.get(), epoch)) End(*prompt, Cancelled("cancelled"));
}

void PrefillHandoff::OnPlan(const StepPlan& plan) {
  MutexLock lock(mutex_);
  for (size_t i = 0; i < plan.items.size(); ++i) {
    const BatchItem& item = plan.batch.items[i];
    const auto tag = by_sequence_.find(item.sequence);
    if (tag == by_sequence_.end()) continue;
    Prompt& prompt = prompts_.at(tag->second);
    const int32_t block_size = options_.layout.block_size;
    if (plan.items[i].complete_begin == 0) prompt.pushed_layers.clear();  // admitted, perhaps again
    if (plan.items[i].complete_begin == 0 && prompt.scheduled && prompt.shared_pool) {
      End(prompt, Unavailable("preempted: it is computed into other blocks than those that were shared"));
      continue;
    }
    prompt.ready = nullptr;  // the step before has ended
    prompt.source.assign(item.block_table.begin(), item.block_table.end());
    prompt.complete_blocks = item.start / block_size;
    prompt.chunk_end = options_.layout.BlocksFor(item.start + item.count);
    prompt.chunk_layers = 0;
    prompt.pushed_layers.resize(prompt.source.size(), 0);
    if (!prompt.scheduled) {
      prompt.scheduled = true;
      prompt.started = Clock::now();
      proto::Envelope envelope;
      proto::Started* started = envelope.mutable_started();
      started->set_epoch(prompt.epoch);
      started->set_cached_tokens(item.start);
      started->set_queue_us(MicrosecondsSince(prompt.received));
      if (prompt.shared_pool) {
        const std::vector<BlockId> blocks = actions_.share(prompt.sequence);
        started->mutable_blocks()->Assign(blocks.begin(), blocks.end());
      }
      SendEnvelope(*prompt.session, envelope);
    }
    if (const absl::Status pushed = Push(prompt); !pushed.ok()) End(prompt, pushed);  // what the cache already has
  }
}

void PrefillHandoff::OnLayersDone(const Batch& batch, int32_t, int32_t layer_end, void* event) {
  MutexLock lock(mutex_);
  for (const BatchItem& item : batch.items) {
    const auto tag = by_sequence_.find(item.sequence);
    if (tag == by_sequence_.end()) continue;
    Prompt& prompt = prompts_.at(tag->second);
    prompt.chunk_layers = layer_end;
    prompt.ready = event;
    if (layer_end == options_.layout.num_layers) prompt.complete_blocks = prompt.chunk_end;
    if (const absl::Status pushed = Push(prompt); !pushed.ok()) End(prompt, pushed);
  }
}

void PrefillHandoff::OnFirstToken(const SequenceEvent& event) {
  MutexLock lock(mutex_);
  const auto tag = by_sequence_.find(event.sequence);
  if (tag == by_sequence_.end()) return actions_.release(event.sequence);  // cancelled during its last step
  Prompt& prompt = prompts_.at(tag->second);
  prompt.first_token_sent = true;
  prompt.first_token_at = Clock::now();
  prompt.ready = nullptr;
  proto::Envelope envelope;
  proto::FirstToken* first = envelope.mutable_first_token();
  first->set_epoch(prompt.epoch);
  ToProto(event.sampled, first->mutable_token());
  for (const SampledToken& token : event.prompt_logprobs) ToProto(token, first->add_prompt_logprobs());
  first->set_finish(static_cast<int32_t>(event.finish));
  first->set_prefill_us(MicrosecondsSince(prompt.started));
  SendEnvelope(*prompt.session, envelope);
  if (event.finish != FinishReason::kNone) return End(prompt, absl::OkStatus());
  MaybeFinish(prompt);
}

void PrefillHandoff::OnStepFailed(SequenceId sequence, const absl::Status& why) {
  MutexLock lock(mutex_);
  if (const auto tag = by_sequence_.find(sequence); tag != by_sequence_.end()) End(prompts_.at(tag->second), why);
}

void PrefillHandoff::ExpireHolds(Clock::time_point now) {
  MutexLock lock(mutex_);
  std::vector<uint64_t> expired;
  for (const auto& [tag, prompt] : prompts_) {
    const bool held = prompt.first_token_sent && prompt.target.empty() && !prompt.ending;
    if (held && now - prompt.first_token_at > std::chrono::milliseconds(options_.hold_lease_ms)) expired.push_back(tag);
  }
  for (const uint64_t tag : expired) {
    End(prompts_.at(tag), Unavailable("no reservation came within ", options_.hold_lease_ms, " ms"));
  }
}

int32_t PrefillHandoff::size() const {
  MutexLock lock(mutex_);
  return static_cast<int32_t>(prompts_.size());
}

// ---- pushing ----

// What has been computed, is missing there, and was not pushed; marks it as pushed. A whole block is one range.
std::vector<CopyRange> PrefillHandoff::MissingRanges(Prompt& prompt) const {
  const KvLayout& layout = options_.layout;
  std::vector<CopyRange> ranges;
  const size_t blocks = std::min(prompt.source.size(), prompt.target.size());
  for (size_t i = prompt.first_missing; i < blocks; ++i) {
    const auto index = static_cast<int32_t>(i);
    const int32_t computed = index < prompt.complete_blocks ? layout.num_layers
                             : index < prompt.chunk_end     ? prompt.chunk_layers
                                                            : 0;
    const int32_t begin = std::exchange(prompt.pushed_layers[i], std::max(prompt.pushed_layers[i], computed));
    if (computed <= begin) continue;
    const uint8_t* from = options_.memory.base + prompt.source[i] * layout.block_bytes();
    const int64_t to = prompt.target[i] * layout.block_bytes();
    if (computed - begin == layout.num_layers) {
      ranges.push_back({.from = from, .to_offset = to, .bytes = layout.block_bytes()});
      continue;
    }
    for (int32_t head = 0; head < layout.num_kv_heads; ++head) {
      const int64_t offset = layout.PlaneOffset(head, begin, 0);
      ranges.push_back(
          {.from = from + offset, .to_offset = to + offset, .bytes = (computed - begin) * layout.layer_bytes()});
    }
  }
  return ranges;
}

absl::Status PrefillHandoff::Push(Prompt& prompt) {
  if (prompt.target.empty() || prompt.ending) return absl::OkStatus();
  std::vector<CopyRange> ranges = MissingRanges(prompt);
  if (ranges.empty()) return absl::OkStatus();
  prompt.in_flight += 1;
  const absl::Status posted = prompt.pool->Post(
      std::move(ranges), {prompt.tag},
      [this, tag = prompt.tag](const TransferResult& result) { OnPushed(tag, result); }, prompt.ready);
  if (!posted.ok()) prompt.in_flight -= 1;
  return posted;
}

void PrefillHandoff::OnPushed(uint64_t tag, const TransferResult& result) {
  MutexLock lock(mutex_);
  const auto found = prompts_.find(tag);
  if (found == prompts_.end()) return;
  Prompt& prompt = found->second;
  prompt.bytes += result.bytes;
  prompt.copy_us += result.copy_us;
  prompt.in_flight -= 1;
  if (!result.status.ok() && !prompt.ending) return End(prompt, result.status);
  MaybeFinish(prompt);
}

bool PrefillHandoff::FullyPushed(const Prompt& prompt) const {
  if (prompt.target.empty()) return false;
  for (size_t i = prompt.first_missing; i < prompt.source.size(); ++i) {
    if (prompt.pushed_layers[i] < options_.layout.num_layers) return false;
  }
  return true;
}

// Says Complete when every copy has ended, or Quiesced for one that was given up; then forgets it.
void PrefillHandoff::MaybeFinish(Prompt& prompt) {
  if (prompt.in_flight > 0) return;
  if (prompt.ending) {
    SendQuiesced(*prompt.session, prompt.epoch, prompt.end_reason);
    return Forget(prompt);
  }
  if (!prompt.first_token_sent || !FullyPushed(prompt)) return;
  proto::Envelope envelope;
  proto::Complete* complete = envelope.mutable_complete();
  complete->set_epoch(prompt.epoch);
  complete->set_bytes(prompt.bytes);
  complete->set_copy_us(prompt.copy_us);
  SendEnvelope(*prompt.session, envelope);
  actions_.release(prompt.sequence);
  Forget(prompt);
}

// Stops computing and pushing at the next possible point.
void PrefillHandoff::End(Prompt& prompt, absl::Status reason) {
  if (prompt.ending) return;
  prompt.ending = true;
  prompt.end_reason = std::move(reason);
  if (prompt.first_token_sent) {
    actions_.release(prompt.sequence);
  } else {
    actions_.abort(prompt.sequence);
  }
  if (prompt.in_flight > 0) prompt.pool->Cancel({prompt.tag}, [] {});  // each copy's own callback follows
  MaybeFinish(prompt);
}

void PrefillHandoff::Forget(Prompt& prompt) {
  by_epoch_.erase({prompt.session.get(), prompt.epoch});
  by_sequence_.erase(prompt.sequence);
  prompts_.erase(prompt.tag);
}

}  // namespace baton
