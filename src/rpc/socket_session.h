// A session over one connected socket, driven by the event loop.
//
// A frame that finds the queue empty is written by the thread that sends it, so that it leaves at once and costs no
// wake-up. From the loop's own thread, and while the socket takes no more, frames gather and leave together.
//
// Heart-beats: the watching side asks with each beat unless frames came anyway, and has one question under way at most;
// the other side answers from its loop.
//
// Threading, ownership, errors: as rpc/session.h says. `mutex_` guards what senders touch; the rest is the loop's.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/mutex.h"
#include "rpc/address.h"
#include "rpc/event_loop.h"
#include "rpc/frame_decoder.h"
#include "rpc/send_queue.h"
#include "rpc/session.h"

namespace baton {

class SocketSession : public Session, public Watched, public std::enable_shared_from_this<SocketSession> {
 public:
  // `local` says of which kind the socket is.
  SocketSession(std::shared_ptr<EventLoop> loop, UniqueFd fd, const SocketAddress& local,
                const NetworkOptions& options);

  // For a connection whose handshake is done.
  void StartOpen(SessionEvents events);
  // For one that was just accepted: `accept` is called after the peer's handshake.
  void StartHandshake(std::function<SessionEvents(std::shared_ptr<Session>)> accept);

  void Send(std::string frame, UniqueFd fd) override BATON_EXCLUDES(mutex_);
  void Close() override BATON_EXCLUDES(mutex_);
  std::string peer() const override { return peer_; }
  int32_t peer_pid() const override { return peer_pid_; }

  void OnReady(uint32_t epoll_events) override;
  void OnStop() override;

 private:
  // No more frames are taken; the loop will close the socket and say why.
  void FailLocked(absl::Status why) BATON_REQUIRES(mutex_);
  void WriteLocked() BATON_REQUIRES(mutex_);
  // What the caller must do, without the mutex.
  enum class Next { kNothing, kPostFlush, kWriteBatch };
  Next PushLocked(std::string frame, UniqueFd fd) BATON_REQUIRES(mutex_);
  void PostFlush();
  // Frames that a thread sends within a WakeBatch leave together, and wake the peer once.
  void WriteBatch() BATON_EXCLUDES(mutex_);

  void Flush() BATON_EXCLUDES(mutex_);
  void ReadAll(int max_reads) BATON_EXCLUDES(mutex_);
  enum class Received { kNothing, kShort, kFull };  // kShort: less than there was room for
  // One read into the decoder; an error at the end of the stream.
  absl::StatusOr<Received> Receive();
  absl::Status Deliver();
  absl::Status Open(std::string_view handshake);
  bool closing() BATON_EXCLUDES(mutex_);
  void Finish(absl::Status why) BATON_EXCLUDES(mutex_);
  void StartWatch();
  void Beat();
  void SendBeat(uint32_t header) BATON_EXCLUDES(mutex_);

  const std::shared_ptr<EventLoop> loop_;
  const bool passes_fds_;
  const NetworkOptions options_;
  const int socket_;  // fd_'s number, for reading on the loop's thread
  std::string peer_;
  int32_t peer_pid_ = 0;

  FrameDecoder decoder_;
  SessionEvents events_;
  std::function<SessionEvents(std::shared_ptr<Session>)> accept_;  // until the handshake
  uint64_t watch_ = 0;
  bool waits_for_room_ = false;  // EPOLLOUT is on
  bool finished_ = false;
  std::unique_ptr<PeerWatch> peer_watch_;  // null: not watched
  std::unique_ptr<ProcessWatch> process_;
  bool heard_frames_ = false;    // since the last beat
  bool heard_anything_ = false;  // likewise
  bool question_sent_ = false;   // and nothing was heard since

  Mutex mutex_;
  UniqueFd fd_ BATON_GUARDED_BY(mutex_);
  SendQueue queue_ BATON_GUARDED_BY(mutex_);
  bool closing_ BATON_GUARDED_BY(mutex_) = false;
  absl::Status write_error_ BATON_GUARDED_BY(mutex_);
  absl::Status why_ BATON_GUARDED_BY(mutex_);        // when closing
  bool full_ BATON_GUARDED_BY(mutex_) = false;       // the socket took less than there was: it says when it has room
  bool flush_due_ BATON_GUARDED_BY(mutex_) = false;  // Flush or WriteBatch will be called, or the loop waits for room
};

}  // namespace baton
