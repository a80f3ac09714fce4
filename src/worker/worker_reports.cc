// What routers know of a worker: its profile, its load, and the changes of its prefix cache.
#include <algorithm>
#include <future>
#include <span>

#include "rpc/cache_messages.h"
#include "worker/worker.h"

namespace baton {
namespace {

constexpr auto kStatusInterval = std::chrono::milliseconds(100);
constexpr size_t kSnapshotPiece = 1 << 18;  // blocks of one message: 4 MiB

}  // namespace

proto::WorkerStatus Worker::Status() const {
  const SchedulerCounts counts = scheduler_->Counts();
  const BlockPoolStats blocks = pool_.Stats();
  const DecodeHandoffStats& handoffs = decode_->stats();
  proto::WorkerStatus status;
  status.set_waiting(counts.waiting);
  status.set_running(counts.running);
  status.set_held(counts.held);
  status.set_waiting_tokens(static_cast<int32_t>(counts.tokens_waiting));
  status.set_blocks_total(blocks.total);
  status.set_blocks_free(blocks.free);
  status.set_blocks_cached(blocks.cached);
  status.set_blocks_fenced(blocks.fenced);
  status.set_preemptions(counts.preemptions);
  status.set_prefix_queries(blocks.queried_tokens);
  status.set_prefix_hits(blocks.hit_tokens);
  status.set_prefill_tokens_per_second(rates_.prefill_tokens_per_second());
  status.set_decode_step_us(rates_.decode_step_us());
  for (const proto::Path& path : decode_->paths()) *status.add_paths() = path;
  status.set_handoffs(handoffs.handoffs);
  status.set_handoff_bytes(handoffs.bytes);
  status.set_handoff_seconds(handoffs.seconds);
  status.set_stale_epochs(handoffs.stale_epochs);
  status.set_recomputed_handoffs(handoffs.recomputed);
  status.set_blocks_verified(handoffs.blocks_verified);
  status.set_blocks_corrupt(handoffs.blocks_corrupt);
  status.set_reservations_held(decode_->reservations());
  status.set_block_size(engine_.info().kv.block_size);
  status.set_max_model_len(scheduler_->options().max_model_len);
  status.set_kv_bytes_per_token(engine_.info().kv.token_bytes());
  status.set_steps(steps_);
  status.set_step_gaps(step_gaps_);
  status.set_step_gap_seconds(step_gap_seconds_);
  if (const auto gpu = options_.gpu_gauges ? options_.gpu_gauges() : std::nullopt) *status.mutable_gpu() = *gpu;
  status.set_integrity_error(integrity_error_);
  status.set_cache_sequence(cache_sequence_);
  status.set_context_tokens(int64_t{blocks.used} * pool_.block_size());
  if (!scheduler_->options().step_times.empty()) status.set_step_time_factor(scheduler_->step_times().factor);
  return status;
}

// ---- what routers know of this worker ----

void Worker::OnHello(const std::shared_ptr<Session>& session) {
  const SchedulerOptions& scheduler = scheduler_->options();
  proto::Envelope envelope;
  proto::WorkerProfile* profile = envelope.mutable_profile();
  profile->set_fingerprint(scheduler.fingerprint);
  profile->set_block_size(pool_.block_size());
  profile->set_prefix_caching(scheduler.prefix_caching);
  profile->set_prefill_chunk_tokens(scheduler.prefill_chunk_tokens);
  profile->set_prefill_budget(scheduler.prefill_budget);
  if (!scheduler.step_times.empty()) ToProto(scheduler.step_times, profile->mutable_step_times());
  profile->set_engine(loop_.SharedEngine());
  SendEnvelope(*session, envelope);
  loop_.PublishCacheChanges();  // to those who were there before
  SendCacheSnapshot({session});
  front_ends_.push_back(session);
  ReportStatus(true);
}

void Worker::OnCacheChanges(const CacheEventBatch& batch) {
  if (front_ends_.empty()) return;  // who comes later gets everything
  if (batch.snapshot_needed) return SendCacheSnapshot(front_ends_);
  if (batch.changes.empty()) return;
  cache_messages_ += 1;
  cache_sequence_ = batch.first + batch.changes.size() - 1;
  if (options_.lose_cache_changes_every > 0 && cache_messages_ % options_.lose_cache_changes_every == 0) return;
  proto::Envelope envelope;
  ToProto(batch.first, batch.changes, envelope.mutable_cache_changes());
  const std::string frame = envelope.SerializeAsString();
  for (const std::shared_ptr<Session>& session : front_ends_) session->Send(frame);
}

void Worker::SendCacheSnapshot(const std::vector<std::shared_ptr<Session>>& sessions) {
  const CacheSnapshot snapshot = pool_.Snapshot();
  cache_sequence_ = snapshot.sequence;
  const std::span<const BlockHash> blocks(snapshot.blocks);
  size_t begin = 0;
  do {
    const size_t count = std::min(kSnapshotPiece, blocks.size() - begin);
    proto::Envelope envelope;
    proto::CacheSnapshot* piece = envelope.mutable_cache_snapshot();
    piece->set_sequence(snapshot.sequence);
    piece->set_hashes(EncodeHashes(blocks.subspan(begin, count)));
    piece->set_begin(begin == 0);
    begin += count;
    piece->set_end(begin == blocks.size());
    const std::string frame = envelope.SerializeAsString();
    for (const std::shared_ptr<Session>& session : sessions) session->Send(frame);
  } while (begin < blocks.size());
}

std::vector<BlockHash> Worker::PublishedBlocks() {
  std::promise<std::vector<BlockHash>> names;
  inbox_.Post([&] { names.set_value(pool_.PublishedBlocks()); });
  std::vector<BlockHash> sorted = names.get_future().get();
  std::ranges::sort(sorted);
  return sorted;
}

void Worker::ReportStatus(bool force) {
  const Clock::time_point now = Clock::now();
  if (front_ends_.empty() || (!force && now - last_status_at_ < kStatusInterval)) return;
  proto::Envelope envelope;
  *envelope.mutable_status() = Status();
  std::string frame = envelope.SerializeAsString();
  last_status_at_ = now;
  if (!force && frame == last_status_) return;
  for (const std::shared_ptr<Session>& session : front_ends_) session->Send(frame);
  last_status_ = std::move(frame);
}

}  // namespace baton
