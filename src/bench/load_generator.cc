#include "bench/load_generator.h"

#include <sys/epoll.h>
#include <sys/timerfd.h>

#include <algorithm>
#include <cerrno>

#include "base/descriptor_limit.h"
#include "base/steady_clock.h"
#include "bench/completion_stream.h"
#include "bench/event_stream_parser.h"

namespace baton {
namespace {

constexpr int64_t kSecond = 1'000'000'000;
constexpr int64_t kProgressInterval = kSecond / 5;
constexpr int64_t kSilenceCheckInterval = kSecond;
constexpr int kEventsMax = 256;
constexpr size_t kOtherBodyMax = 1 << 20;  // of answers that are no event streams

}  // namespace

// One connection, and the request on it.
struct LoadGenerator::Slot {
  explicit Slot(const HttpTarget& target) : client(target) {}

  HttpStreamClient client;
  EventStreamParser events;
  std::string body;                 // not yet read on
  RequestRecord* record = nullptr;  // null: idle
  int64_t heard_ns = 0;
  int64_t finish_ns = 0;     // of a last piece without text, which may stand for a token
  bool stream_done = false;  // [DONE]
  int registered_fd = -1;
  bool registered_write = false;
};

// One Run.
class LoadGenerator::Loop {
 public:
  Loop(LoadGenerator& load, const LoadPlan& plan) : load_(load), plan_(plan) {
    result_.records.resize(static_cast<size_t>(plan.count));
  }

  LoadResult Run() {
    result_.start_ns = SteadyNanoseconds();
    next_progress_ns_ = result_.start_ns + kProgressInterval;
    next_check_ns_ = result_.start_ns + kSilenceCheckInterval;
    for (auto& slot : load_.slots_) idle_.push_back(slot.get());
    while (progress_.finished < plan_.count) {
      StartDueRequests();
      if (progress_.finished == plan_.count) break;
      WaitAndServe();
    }
    result_.end_ns = SteadyNanoseconds();
    Report(result_.end_ns);
    return std::move(result_);
  }

 private:
  bool open_loop() const { return !plan_.arrival_seconds.empty(); }
  int64_t DueTime(int64_t index) const {
    return result_.start_ns +
           static_cast<int64_t>(plan_.arrival_seconds[static_cast<size_t>(index)] * static_cast<double>(kSecond));
  }

  void StartDueRequests() {
    while (started_ < plan_.count) {
      if (open_loop() ? DueTime(started_) > SteadyNanoseconds() : started_ - progress_.finished >= plan_.concurrency) {
        return;
      }
      StartNext();
    }
  }

  void StartNext() {
    if (idle_.empty()) {
      load_.slots_.push_back(std::make_unique<Slot>(load_.target_));
      idle_.push_back(load_.slots_.back().get());
    }
    Slot& slot = *idle_.back();  // the one used last: its connection is the least likely to have gone
    idle_.pop_back();
    const int64_t index = started_++;
    slot.record = &result_.records[static_cast<size_t>(index)];
    slot.record->token_ns.reserve(static_cast<size_t>(plan_.output_tokens));
    slot.events.Reset();
    slot.body.clear();
    slot.finish_ns = 0;
    slot.stream_done = false;
    std::string request = plan_.request(index);
    slot.record->sent_ns = slot.heard_ns = SteadyNanoseconds();
    slot.record->due_ns = open_loop() ? DueTime(index) : slot.record->sent_ns;
    const absl::Status status = slot.client.Start(std::move(request));
    status.ok() ? Register(slot) : Recover(slot, status);
  }

  // Keeps epoll's view of a slot's socket up to date.
  void Register(Slot& slot) {
    const int fd = slot.client.fd();
    const bool write = slot.client.wants_write();
    if (slot.registered_fd == fd && slot.registered_write == write) return;
    epoll_event event{.events = EPOLLIN | (write ? uint32_t{EPOLLOUT} : 0u), .data = {.ptr = &slot}};
    epoll_ctl(load_.epoll_.get(), slot.registered_fd == fd ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event);
    slot.registered_fd = fd;
    slot.registered_write = write;
  }

  void WaitAndServe() {
    ArmTimer();
    epoll_event events[kEventsMax];
    const int count = epoll_wait(load_.epoll_.get(), events, kEventsMax, -1);
    for (int i = 0; i < count; ++i) {
      if (events[i].data.ptr != nullptr) Serve(*static_cast<Slot*>(events[i].data.ptr), events[i].events);
    }
    const int64_t now = SteadyNanoseconds();
    if (now >= next_check_ns_) EndSilentRequests(now);
    if (now >= next_progress_ns_) Report(now);
  }

  // epoll's own timeout knows milliseconds only, too coarse for arrivals.
  void ArmTimer() {
    int64_t wake = std::min(next_check_ns_, next_progress_ns_);
    if (open_loop() && started_ < plan_.count) wake = std::min(wake, DueTime(started_));
    if (wake == armed_ns_ && wake > SteadyNanoseconds()) return;
    armed_ns_ = wake;
    const itimerspec when{.it_interval = {}, .it_value = {.tv_sec = wake / kSecond, .tv_nsec = wake % kSecond}};
    timerfd_settime(load_.timer_.get(), TFD_TIMER_ABSTIME, &when, nullptr);  // also takes back an expiry
  }

  void Serve(Slot& slot, uint32_t events) {
    if (slot.record == nullptr) return CloseIdle(slot);
    if ((events & EPOLLOUT) != 0) {
      if (const absl::Status status = slot.client.Write(); !status.ok()) return Recover(slot, status);
    }
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
      const absl::Status status = slot.client.Read(slot.body);
      slot.heard_ns = SteadyNanoseconds();
      if (!status.ok()) return Recover(slot, status);
      OnBytes(slot);
      if (slot.record == nullptr) return;
    }
    Register(slot);
  }

  // Something arrived on an idle connection: the server closed it.
  void CloseIdle(Slot& slot) {
    slot.client.TakeRequestAndClose();
    slot.registered_fd = -1;
  }

  void OnBytes(Slot& slot) {
    const HttpResponseParser& response = slot.client.response();
    if (response.has_head() && response.status() == 200 && response.is_event_stream()) {
      const absl::Status status = slot.events.Feed(slot.body, [&](std::string_view data) { OnEvent(slot, data); });
      slot.body.clear();
      if (!status.ok()) return Finish(slot, std::string(Message(status)));
    }
    if (response.done()) return Finish(slot, EndOf(slot));
    if (slot.body.size() > kOtherBodyMax) Finish(slot, Cat("an answer of more than ", kOtherBodyMax, " bytes"));
  }

  void OnEvent(Slot& slot, std::string_view data) {
    const absl::StatusOr<StreamEvent> event = ParseStreamEvent(data);
    RequestRecord& record = *slot.record;
    if (!event.ok()) {
      if (record.error.empty()) record.error = std::string(Message(event.status()));
      return;
    }
    if (!event->error.empty() && record.error.empty()) record.error = Cat("error in the stream: ", event->error);
    if (event->is_done) slot.stream_done = true;
    if (event->has_content) {
      record.token_ns.push_back(slot.heard_ns);
      ++progress_.tokens;
    } else if (event->is_finish) {
      slot.finish_ns = slot.heard_ns;
    }
    if (event->has_usage) {
      record.prompt_tokens = event->prompt_tokens;
      record.output_tokens = event->completion_tokens;
      record.cached_tokens = event->cached_tokens;
    }
  }

  // What a whole answer's error is; "": none.
  std::string EndOf(Slot& slot) const {
    const HttpResponseParser& response = slot.client.response();
    RequestRecord& record = *slot.record;
    if (response.status() != 200) return Cat("HTTP ", response.status(), ": ", ErrorMessage(slot.body));
    if (!response.is_event_stream()) return "the answer is not an event stream";
    if (!record.error.empty()) return record.error;
    if (!slot.stream_done) return "the stream ended without [DONE]";
    const auto pieces = static_cast<int64_t>(record.token_ns.size());
    if (record.output_tokens == 0) record.output_tokens = pieces;  // a server that counts nothing
    if (slot.finish_ns != 0 && pieces < record.output_tokens) record.token_ns.push_back(slot.finish_ns);
    if (record.token_ns.empty()) return "the answer had no content";
    if (record.output_tokens != plan_.output_tokens) {
      return Cat("expected ", plan_.output_tokens, " output tokens, found ", record.output_tokens);
    }
    return "";
  }

  // A connection failed: once more on a new one where that is safe, else the request has failed.
  void Recover(Slot& slot, const absl::Status& status) {
    slot.registered_fd = -1;
    const bool retry = slot.client.may_retry();
    std::string request = slot.client.TakeRequestAndClose();
    if (!retry) return Finish(slot, std::string(Message(status)));
    const absl::Status again = slot.client.Start(std::move(request));
    again.ok() ? Register(slot) : Finish(slot, std::string(Message(again)));
  }

  void Finish(Slot& slot, std::string error) {
    slot.record->end_ns = SteadyNanoseconds();
    slot.record->error = std::move(error);
    if (!slot.record->error.empty()) ++progress_.failed;
    ++progress_.finished;
    slot.record = nullptr;
    slot.client.EndExchange();
    if (!slot.client.is_open()) slot.registered_fd = -1;
    idle_.push_back(&slot);
  }

  void EndSilentRequests(int64_t now) {
    next_check_ns_ = now + kSilenceCheckInterval;
    for (auto& slot : load_.slots_) {
      if (slot->record == nullptr || now - slot->heard_ns < plan_.silence_limit_ms * 1'000'000) continue;
      Finish(*slot, Cat("no byte for ", plan_.silence_limit_ms / 1000, " s"));
    }
  }

  void Report(int64_t now) {
    next_progress_ns_ = now + kProgressInterval;
    progress_.seconds = static_cast<double>(now - result_.start_ns) / static_cast<double>(kSecond);
    if (plan_.progress) plan_.progress(progress_);
  }

  LoadGenerator& load_;
  const LoadPlan& plan_;
  LoadResult result_;
  LoadProgress progress_;
  std::vector<Slot*> idle_;
  int64_t started_ = 0;
  int64_t next_progress_ns_ = 0;
  int64_t next_check_ns_ = 0;
  int64_t armed_ns_ = 0;
};

LoadGenerator::LoadGenerator(const HttpTarget& target) : target_(target) {}
LoadGenerator::~LoadGenerator() = default;

absl::Status LoadGenerator::Prepare() {
  RaiseDescriptorLimit();
  epoll_ = UniqueFd(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_.valid()) return Errno("epoll_create1");
  timer_ = UniqueFd(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
  if (!timer_.valid()) return Errno("timerfd_create");
  epoll_event event{.events = EPOLLIN, .data = {.ptr = nullptr}};
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, timer_.get(), &event) != 0) return Errno("epoll_ctl");
  return absl::OkStatus();
}

LoadResult LoadGenerator::Run(const LoadPlan& plan) { return Loop(*this, plan).Run(); }

}  // namespace baton
