#include "transfer/transfer_queue.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>

#include "base/steady_clock.h"

namespace baton {
namespace {

constexpr size_t kPiecesAtOnce = 4096;
constexpr int64_t kEventPollUs = 20;

}  // namespace

std::shared_ptr<TransferQueue> TransferQueue::Create(std::string thread_name, int64_t piece_bytes) {
  return {new TransferQueue(std::move(thread_name), piece_bytes), &TransferQueue::Destroy};
}

void TransferQueue::Destroy(TransferQueue* queue) {
  std::thread thread;
  {
    MutexLock lock(queue->mutex_);
    queue->stopping_ = true;
    queue->changed_.SignalAll();
    if (queue->OnOwnThread()) {
      queue->thread_.detach();
      queue->orphaned_ = true;
      return;
    }
    thread = std::move(queue->thread_);
  }
  if (thread.joinable()) thread.join();
  delete queue;
}

void TransferQueue::Add(Job job, std::list<Job>& list) {
  job.number = next_number_++;
  ++open_jobs_;
  job.lane->outstanding.insert(job.number);
  list.push_back(std::move(job));
  if (!thread_.joinable()) {
    thread_ = std::thread([this] { Run(); });
    pthread_setname_np(thread_.native_handle(), thread_name_.c_str());
  }
  changed_.SignalAll();
}

void TransferQueue::Post(const LanePointer& lane, TransferPost post, int64_t delay_us) {
  Job job = {.lane = lane,
             .tag = post.tag,
             .ranges = std::move(post.ranges),
             .done = std::move(post.done),
             .after = post.after};
  if (delay_us > 0) job.due_us = SteadyMicroseconds() + delay_us;
  MutexLock lock(mutex_);
  Add(std::move(job), waiting_);
}

void TransferQueue::Cancel(const LanePointer& lane, Epoch tag, std::function<void()> done) {
  MutexLock lock(mutex_);
  CancelJobs(lane.get(), tag);
  if (done) Add({.lane = lane, .tag = tag, .cancel_done = std::move(done)}, cancelled_);
  changed_.SignalAll();
}

void TransferQueue::CancelJobs(const Lane* lane, std::optional<Epoch> tag) {
  const auto matches = [lane, tag](const Job& job) { return job.lane.get() == lane && (!tag || job.tag == *tag); };
  if (current_ && matches(*current_)) current_cancelled_ = true;
  for (auto it = waiting_.begin(); it != waiting_.end();) {
    const auto job = it++;
    if (!matches(*job)) continue;
    job->result.status = Cancelled("cancelled before it was written");
    cancelled_.splice(cancelled_.end(), waiting_, job);
  }
}

void TransferQueue::WaitUntilEnded(const Lane& lane, uint64_t before) {
  while (!lane.outstanding.empty() && *lane.outstanding.begin() < before) changed_.Wait(mutex_);
}

void TransferQueue::Flush(const LanePointer& lane) {
  MutexLock lock(mutex_);
  if (!OnOwnThread()) WaitUntilEnded(*lane, next_number_);
}

void TransferQueue::Close(const LanePointer& lane) {
  std::list<Job> ended;
  {
    MutexLock lock(mutex_);
    CancelJobs(lane.get(), std::nullopt);
    changed_.SignalAll();
    if (!OnOwnThread()) return WaitUntilEnded(*lane, next_number_);
    // In a callback nobody else would end them before we return.
    for (auto it = cancelled_.begin(); it != cancelled_.end();) {
      const auto job = it++;
      if (job->lane == lane) ended.splice(ended.end(), cancelled_, job);
    }
  }
  for (Job& job : ended) EndJob(std::move(job));
}

TransferStats TransferQueue::stats(const LanePointer& lane) {
  MutexLock lock(mutex_);
  return lane->stats;
}

TransferProgress TransferQueue::progress() {
  MutexLock lock(mutex_);
  return {.moved = moved_.load(std::memory_order_relaxed), .busy = open_jobs_ > 0};
}

void TransferQueue::Run() {
  std::optional<Job> ended;
  while (TakeWork(ended)) {
    if (!ended && WriteSome(*current_)) {
      MutexLock lock(mutex_);
      ended = std::move(current_);
      current_.reset();
      current_cancelled_ = false;
    }
    if (ended) EndJob(*std::move(ended));
    ended.reset();
  }
  bool orphaned;
  {
    MutexLock lock(mutex_);
    orphaned = orphaned_;
  }
  if (orphaned) delete this;
}

bool TransferQueue::StartWaiting(int64_t& wait_us) {
  std::set<std::pair<const Lane*, uint64_t>> held_up;
  for (auto job = waiting_.begin(); job != waiting_.end(); ++job) {
    const std::pair<const Lane*, uint64_t> order(job->lane.get(), job->tag.value);
    if (held_up.contains(order)) continue;
    const int64_t early_us = job->due_us > 0 ? job->due_us - SteadyMicroseconds() : 0;
    if (early_us <= 0 && (job->after == nullptr || job->lane->writer->HasPassed(job->after))) {
      current_ = std::move(*job);
      waiting_.erase(job);
      return true;
    }
    const int64_t again_us = early_us > 0 ? early_us : kEventPollUs;
    wait_us = wait_us == 0 ? again_us : std::min(wait_us, again_us);
    held_up.insert(order);
  }
  return false;
}

bool TransferQueue::TakeWork(std::optional<Job>& ended) {
  MutexLock lock(mutex_);
  while (true) {
    if (current_ && (current_cancelled_ || stopping_)) {
      ended = std::move(current_);
      current_.reset();
      current_cancelled_ = false;
      ended->result.status = Cancelled("cancelled after ", ended->result.bytes, " bytes");
      return true;
    }
    if (!cancelled_.empty()) {
      ended = std::move(cancelled_.front());
      cancelled_.pop_front();
      return true;
    }
    if (current_) return true;
    if (stopping_ && waiting_.empty()) return false;
    if (stopping_) {
      CancelJobs(waiting_.front().lane.get(), std::nullopt);
      continue;
    }
    int64_t wait_us = 0;
    if (StartWaiting(wait_us)) return true;
    if (wait_us > 0) {
      changed_.WaitFor(mutex_, std::chrono::microseconds(wait_us));
    } else {
      changed_.Wait(mutex_);
    }
  }
}

bool TransferQueue::WriteSome(Job& job) {
  const int64_t start_ns = SteadyNanoseconds();
  int64_t taken = 0;
  pieces_.clear();
  while (job.next_range < job.ranges.size() && taken < piece_bytes_ && pieces_.size() < kPiecesAtOnce) {
    const CopyRange& range = job.ranges[job.next_range];
    const int64_t bytes = std::min(range.bytes - job.range_written, piece_bytes_ - taken);
    if (bytes > 0) {
      pieces_.push_back({range.from + job.range_written, range.to_offset + job.range_written, bytes});
    }
    taken += bytes;
    job.range_written += bytes;
    if (job.range_written == range.bytes) {
      ++job.next_range;
      job.range_written = 0;
    }
  }
  if (!pieces_.empty()) job.result.status = job.lane->writer->WritePieces(pieces_, job.tag, job.after);
  if (job.result.status.ok()) job.result.bytes += taken;
  job.copy_ns += SteadyNanoseconds() - start_ns;
  moved_.fetch_add(1, std::memory_order_relaxed);
  return !job.result.status.ok() || job.next_range == job.ranges.size();
}

void TransferQueue::EndJob(Job job) {
  job.result.copy_us = job.copy_ns / 1000;
  if (!job.cancel_done) {
    MutexLock lock(mutex_);
    TransferStats& stats = job.lane->stats;
    stats.bytes += job.result.bytes;
    stats.copy_us += job.result.copy_us;
    stats.posts += 1;
    stats.cancelled += absl::IsCancelled(job.result.status) ? 1 : 0;
  }
  if (job.done) job.done(job.result);
  if (job.cancel_done) job.cancel_done();
  job.done = nullptr;  // what they hold goes before anybody learns that the job has ended
  job.cancel_done = nullptr;
  moved_.fetch_add(1, std::memory_order_relaxed);
  MutexLock lock(mutex_);
  --open_jobs_;
  job.lane->outstanding.erase(job.number);
  changed_.SignalAll();
}

}  // namespace baton
