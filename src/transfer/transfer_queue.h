// One thread that writes posted ranges a few pieces at a time, first in, first out, and can be told to stop in between.
// What all transports share. A job whose event has not passed holds up its own lane's tag, and lets others pass.
//
// Threading: any thread; callbacks and the writer's methods come from the queue's thread, which starts with the first
//   post (a process that only exports has none). Ownership: a lane's writer is borrowed; Close(lane) before it dies.
//   The last owner may let go of the queue anywhere, also in a callback.
// Errors: an error of WritePieces ends its job and no other. Limits: none of its own; callers bound what they post.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <set>
#include <span>
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
  // Writes pieces that do not overlap, and returns when the other side can see them; after an error none of them is
  // being written any more.
  virtual absl::Status WritePieces(std::span<const CopyRange> pieces, Epoch tag, void* after) = 0;
  // False: the event has not passed, ask again soon. True also where WritePieces waits for it.
  virtual bool HasPassed(void* after) {
    static_cast<void>(after);
    return true;
  }
};

// What RemoteMemory::Post takes.
struct TransferPost {
  std::vector<CopyRange> ranges;  // checked
  Epoch tag;
  TransferDone done;
  void* after = nullptr;
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
  // Nothing is written before `delay_us` has passed.
  void Post(const LanePointer& lane, TransferPost post, int64_t delay_us) BATON_EXCLUDES(mutex_);
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
    void* after = nullptr;
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
  // Moves the first waiting job that may begin to current_. False: none; `wait_us`: when to look again, 0: when told.
  bool StartWaiting(int64_t& wait_us) BATON_REQUIRES(mutex_);
  // Waits for work; false at the queue's end. Sets `ended` to a job whose callback is due, or else current_.
  bool TakeWork(std::optional<Job>& ended) BATON_EXCLUDES(mutex_);
  // Writes up to piece_bytes_; true when the job has ended.
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
  std::vector<CopyRange> pieces_;  // of WriteSome: the queue's thread only
};

}  // namespace baton
