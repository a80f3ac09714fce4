// One thread that writes posted ranges piece by piece, first in, first out, and can be told to stop between pieces.
// What all transports share whose copies are made by a core.
//
// Threading: any thread; callbacks and WritePiece come from the queue's thread, which starts with the first post (a
//   process that only exports has none). Ownership: a lane's writer is borrowed; Close(lane) before it dies. The last
//   owner may let go of the queue anywhere, also in a callback.
// Errors: an error of WritePiece ends its job and no other. Limits: none of its own; callers bound what they post.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "transfer/transport.h"

namespace baton {

class PieceWriter {
 public:
  virtual ~PieceWriter() = default;
  // Writes one piece and returns when the other side can see it.
  virtual absl::Status WritePiece(const CopyRange& piece, Epoch tag) = 0;
};

class TransferQueue {
 public:
  // The jobs of one writer.
  struct Lane {
    PieceWriter* writer = nullptr;
    // Both guarded by the queue's mutex.
    std::set<uint64_t> outstanding;  // numbers of jobs whose callback has not returned
    TransferStats stats;
  };
  using LanePointer = std::shared_ptr<Lane>;

  static std::shared_ptr<TransferQueue> Create(std::string thread_name, int64_t piece_bytes);

  LanePointer Open(PieceWriter* writer) { return std::make_shared<Lane>(Lane{.writer = writer}); }
  // Cancels what the lane has left, and waits for it; when called in a callback, that one alone may still be running.
  void Close(const LanePointer& lane) BATON_EXCLUDES(mutex_);
  // Ranges have been checked. Nothing is written before `delay_us` has passed.
  void Post(const LanePointer& lane, std::vector<CopyRange> ranges, Epoch tag, TransferDone done, int64_t delay_us)
      BATON_EXCLUDES(mutex_);
  void Cancel(const LanePointer& lane, Epoch tag, std::function<void()> done) BATON_EXCLUDES(mutex_);
  void Flush(const LanePointer& lane) BATON_EXCLUDES(mutex_);
  TransferStats stats(const LanePointer& lane) BATON_EXCLUDES(mutex_);
  TransferProgress progress() BATON_EXCLUDES(mutex_);

 private:
  struct Job {
    LanePointer lane;
    Epoch tag;
    uint64_t number = 0;
    int64_t due_us = 0;
    std::vector<CopyRange> ranges;
    TransferDone done;
    std::function<void()> cancel_done;  // of a job without ranges that is the end of a Cancel
    size_t next_range = 0;
    int64_t range_written = 0;  // bytes of the next range
    int64_t copy_ns = 0;
    TransferResult result;
  };

  TransferQueue(std::string thread_name, int64_t piece_bytes)
      : thread_name_(std::move(thread_name)), piece_bytes_(piece_bytes) {}
  static void Destroy(TransferQueue* queue);

  bool OnOwnThread() const BATON_REQUIRES(mutex_) { return std::this_thread::get_id() == thread_.get_id(); }
  void Add(Job job, std::list<Job>& list) BATON_REQUIRES(mutex_);
  // The lane's jobs, all or those of one tag, go to cancelled_.
  void CancelJobs(const Lane* lane, std::optional<Epoch> tag) BATON_REQUIRES(mutex_);
  void WaitUntilEnded(const Lane& lane, uint64_t before) BATON_REQUIRES(mutex_);

  void Run();
  // Waits for work; false at the queue's end. Sets `ended` to a job whose callback is due, or else current_.
  bool TakeWork(std::optional<Job>& ended) BATON_EXCLUDES(mutex_);
  // Writes up to one piece; true when the job has ended.
  bool WriteSome(Job& job);
  void EndJob(Job job) BATON_EXCLUDES(mutex_);

  const std::string thread_name_;
  const int64_t piece_bytes_;

  Mutex mutex_;
  CondVar changed_;
  std::atomic<uint64_t> moved_ = 0;  // pieces written and jobs ended
  std::thread thread_ BATON_GUARDED_BY(mutex_);
  bool stopping_ BATON_GUARDED_BY(mutex_) = false;
  bool orphaned_ BATON_GUARDED_BY(mutex_) = false;  // the thread deletes the queue
  uint64_t next_number_ BATON_GUARDED_BY(mutex_) = 0;
  int64_t open_jobs_ BATON_GUARDED_BY(mutex_) = 0;  // of all lanes: their callbacks have not returned
  std::list<Job> waiting_ BATON_GUARDED_BY(mutex_);
  std::list<Job> cancelled_ BATON_GUARDED_BY(mutex_);  // their callbacks are due
  bool current_cancelled_ BATON_GUARDED_BY(mutex_) = false;
  // The job that is being written. Only the queue's thread sets it, and under the mutex: it may look without.
  std::optional<Job> current_;
};

}  // namespace baton
