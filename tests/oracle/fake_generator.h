// A Generator for tests of the front end: no model, answers that tests can predict, and misbehaviour on request.
//
// A request's `user` field may hold settings, "fake:key=value,key=value":
//   delay_ms   between two tokens                        first_ms  before the first token
//   burst      tokens in one event                       resend    tokens that each event repeats from before it
//   eos_at     the end token comes as this token (unless ignore_eos)
//   fail_at    finish with the error `fail` instead of this token: unavailable, full, internal, deadline, …
//   skip_at    leave this token out, as a broken generator might
//   cached     prompt tokens that count as cached
// Greedy requests get their prompt's tokens again and again; others a hash of (seed, choice, position).
//
// Threading: as Generator; one thread of its own calls the sinks. Ownership: the tokenizer must outlive it.
#pragma once

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "core/generator.h"
#include "core/random.h"
#include "text/tokenizer.h"

namespace baton {

class FakeGenerator : public Generator {
 public:
  using Clock = std::chrono::steady_clock;

  explicit FakeGenerator(const Tokenizer& tokenizer) : tokenizer_(tokenizer), thread_([this] { Run(); }) {}
  ~FakeGenerator() override {
    {
      MutexLock lock(mutex_);
      stopping_ = true;
    }
    changed_.Signal();
    thread_.join();
  }

  SequenceId Generate(Request request, TokenSink sink) override {
    auto sequence = std::make_unique<Sequence>();
    sequence->settings = Settings(request.user);
    sequence->request = std::move(request);
    sequence->sink = std::move(sink);
    sequence->due = Clock::now() + std::chrono::milliseconds(sequence->Setting("first_ms", 0));
    MutexLock lock(mutex_);
    const SequenceId id{++last_id_};
    ++started;
    sequences_.emplace(id.value, std::move(sequence));
    changed_.Signal();
    return id;
  }
  void Cancel(SequenceId id) override {
    MutexLock lock(mutex_);
    const auto found = sequences_.find(id.value);
    if (found == sequences_.end()) return;
    found->second->cancelled = true;
    found->second->due = Clock::now();
    changed_.Signal();
  }
  absl::Status Health() const override {
    return healthy ? absl::OkStatus() : Unavailable("the fake model is being loaded");
  }
  size_t active() {
    MutexLock lock(mutex_);
    return sequences_.size();
  }

  std::atomic<bool> healthy{true};
  std::atomic<int64_t> started{0}, cancelled{0}, tokens{0};

 private:
  struct Sequence {
    Request request;
    TokenSink sink;
    std::map<std::string, std::string> settings;
    Clock::time_point due;
    int32_t position = 0;
    bool cancelled = false;
    int64_t Setting(const char* name, int64_t fallback) const {
      const auto found = settings.find(name);
      return found == settings.end() ? fallback : std::atoll(found->second.c_str());
    }
  };

  static std::map<std::string, std::string> Settings(std::string_view user) {
    std::map<std::string, std::string> out;
    if (!user.starts_with("fake:")) return out;
    user.remove_prefix(5);
    while (!user.empty()) {
      const std::string_view item = user.substr(0, user.find(','));
      const size_t equals = std::min(item.find('='), item.size() - 1);
      out.emplace(item.substr(0, equals), item.substr(equals + 1));
      user.remove_prefix(std::min(user.size(), item.size() + 1));
    }
    return out;
  }

  TokenId TokenAt(const Sequence& sequence, int32_t position) const {
    const Request& request = sequence.request;
    if (position == sequence.Setting("eos_at", -1) && !tokenizer_.eos().empty()) return tokenizer_.eos().front();
    const auto& sampling = request.sampling;
    if (sampling.temperature == 0) return request.prompt[static_cast<size_t>(position) % request.prompt.size()];
    const uint64_t at = request.prompt.size() + static_cast<size_t>(position);
    return static_cast<TokenId>(KeyedBits(sampling.seed, static_cast<uint64_t>(sampling.choice), at) %
                                static_cast<uint64_t>(tokenizer_.vocabulary_size()));
  }

  SampledToken Sample(const Sequence& sequence, TokenId token) const {
    SampledToken sampled{.token = token};
    const int32_t top = sequence.request.sampling.top_logprobs;
    if (top < 0) return sampled;
    sampled.logprob = -0.5f;
    for (int32_t i = 0; i < top; ++i) {
      sampled.top_logprobs.push_back(
          {(token + i) % tokenizer_.vocabulary_size(), -0.5f - 0.25f * static_cast<float>(i)});
    }
    return sampled;
  }

  static absl::Status FailureOf(const std::string& name) {
    if (name == "unavailable") return Unavailable("the worker is gone");
    if (name == "full") return ResourceExhausted("the worker's queue is full");
    if (name == "deadline") return DeadlineExceeded("too late");
    if (name == "invalid") return InvalidArgument("the worker refuses this");
    return Internal("the worker failed");
  }

  // The next event of a sequence; true when it was its last.
  bool Step(Sequence& sequence) {
    TokenEvent event;
    const Request& request = sequence.request;
    if (sequence.cancelled) {
      ++cancelled;
      event.finish = FinishReason::kCancelled;
      event.status = Cancelled("cancelled");
      sequence.sink(std::move(event));
      return true;
    }
    const int64_t fail_at = sequence.Setting("fail_at", -1);
    const int32_t resend = std::min<int32_t>(static_cast<int32_t>(sequence.Setting("resend", 0)), sequence.position);
    event.position = sequence.position - resend;
    for (int32_t i = event.position; i < sequence.position; ++i) {
      event.tokens.push_back(Sample(sequence, TokenAt(sequence, i)));
    }
    if (sequence.position == 0 && request.sampling.prompt_logprobs) {
      for (size_t i = 1; i < request.prompt.size(); ++i) {
        event.prompt_logprobs.push_back(Sample(sequence, request.prompt[i]));
      }
    }
    for (int64_t burst = sequence.Setting("burst", 1); burst > 0 && event.finish == FinishReason::kNone; --burst) {
      if (sequence.position == fail_at) {
        event.finish = FinishReason::kError;
        event.status = FailureOf(sequence.settings["fail"]);
        break;
      }
      if (sequence.position == sequence.Setting("skip_at", -1)) event.position = ++sequence.position;
      const TokenId token = TokenAt(sequence, sequence.position);
      event.tokens.push_back(Sample(sequence, token));
      ++tokens;
      ++sequence.position;
      event.finish = FinishAfter(sequence, token);
    }
    event.waterfall.queue_us = 1000;
    event.waterfall.prefill_us = 2000;
    event.waterfall.handoff_us = 300;
    event.waterfall.handoff_bytes = 4096;
    event.waterfall.handoff_path = "fake 1.0 GB/s";
    event.waterfall.cached_tokens = static_cast<int32_t>(sequence.Setting("cached", 0));
    event.waterfall.decode_worker = 1;
    const bool last = event.finish != FinishReason::kNone;
    sequence.sink(std::move(event));
    return last;
  }

  FinishReason FinishAfter(const Sequence& sequence, TokenId token) const {
    const SamplingParams& sampling = sequence.request.sampling;
    const auto in = [token](const std::vector<TokenId>& list) {
      return std::find(list.begin(), list.end(), token) != list.end();
    };
    if (sequence.position > sampling.min_tokens) {
      if (in(sampling.stop_token_ids) ||
          (!sampling.ignore_eos && sequence.Setting("eos_at", -1) >= 0 && in(tokenizer_.eos()))) {
        return FinishReason::kStop;
      }
    }
    return sequence.position >= sampling.max_tokens ? FinishReason::kLength : FinishReason::kNone;
  }

  void Run() {
    std::vector<std::pair<uint64_t, Sequence*>> due;
    for (;;) {
      due.clear();
      {
        MutexLock lock(mutex_);
        if (stopping_) return;
        const auto now = Clock::now();
        auto next = now + std::chrono::seconds(1);
        for (auto& [id, sequence] : sequences_) {
          if (sequence->due <= now) due.emplace_back(id, sequence.get());
          next = std::min(next, sequence->due);
        }
        if (due.empty()) {
          changed_.WaitFor(mutex_, std::chrono::ceil<std::chrono::microseconds>(next - now));
          continue;
        }
      }
      for (auto& [id, sequence] : due) {
        const bool last = Step(*sequence);
        MutexLock lock(mutex_);
        sequence->due = std::max(sequence->due, Clock::now() - std::chrono::milliseconds(50)) +
                        std::chrono::milliseconds(sequence->Setting("delay_ms", 0));
        if (last) sequences_.erase(id);
      }
    }
  }

  const Tokenizer& tokenizer_;
  Mutex mutex_;
  CondVar changed_;
  std::map<uint64_t, std::unique_ptr<Sequence>> sequences_ BATON_GUARDED_BY(mutex_);
  uint64_t last_id_ BATON_GUARDED_BY(mutex_) = 0;
  bool stopping_ BATON_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace baton
