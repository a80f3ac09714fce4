#include "app/child_link.h"

#include <fcntl.h>
#include <unistd.h>

#include <thread>

#include "base/log.h"

namespace baton {
namespace {

constexpr int64_t kConnectTimeoutMs = 10000;

// Ends this process when the supervisor's end of the pipe closes, however it died.
void WatchLifeline(int fd) {
  fcntl(fd, F_SETFD, FD_CLOEXEC);
  std::thread([fd] {
    char byte;
    while (read(fd, &byte, 1) < 0 && errno == EINTR) {
    }
    _exit(1);
  }).detach();
}

}  // namespace

absl::StatusOr<std::unique_ptr<ChildLink>> ChildLink::Create(Network& network, const ChildFlags& flags, uint64_t worker,
                                                             ChildLinkEvents events) {
  auto link = std::make_unique<ChildLink>();
  if (flags.lifeline_fd >= 0) WatchLifeline(flags.lifeline_fd);
  if (flags.supervisor.empty()) return link;
  SessionEvents session_events{.on_frame =
                                   [events = std::move(events)](std::string_view frame, UniqueFd) {
                                     proto::Envelope envelope;
                                     if (!ParseEnvelope(frame, envelope).ok()) return;
                                     if (envelope.has_members() && events.on_members)
                                       events.on_members(envelope.members());
                                     if (envelope.has_drain() && events.on_drain) events.on_drain();
                                   },
                               .on_closed = [](absl::Status) {}};  // the lifeline says the same
  BATON_ASSIGN_OR_RETURN(link->session_,
                         network.Connect(flags.supervisor, std::move(session_events), kConnectTimeoutMs));
  proto::Envelope hello;
  hello.mutable_hello()->set_worker(worker);
  hello.mutable_hello()->set_incarnation(flags.incarnation);
  hello.mutable_hello()->set_process(flags.process);
  SendEnvelope(*link->session_, hello);
  return link;
}

void ChildLink::Report(const std::string& stage, double fraction, const std::string& device) {
  if (session_ == nullptr) return;
  proto::Envelope envelope;
  envelope.mutable_progress()->set_stage(stage);
  envelope.mutable_progress()->set_fraction(fraction);
  envelope.mutable_progress()->set_device(device);
  SendEnvelope(*session_, envelope);
}

void ChildLink::ReportLost(const proto::WorkerLost& lost) {
  if (session_ == nullptr) return;
  proto::Envelope envelope;
  *envelope.mutable_worker_lost() = lost;
  SendEnvelope(*session_, envelope);
}

}  // namespace baton
