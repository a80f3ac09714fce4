// Random loads on random configurations: whatever happens around it, every sequence gets the tokens that it gets alone,
// every sequence ends, and nothing leaks.
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <random>

#include "scheduler/fake_engine_for_test.h"
#include "scheduler/scheduler.h"

namespace baton {
namespace {

constexpr TokenId kEos[] = {0, 1};

// What all simulations have met.
struct Counts {
  int64_t steps = 0, finished = 0, preemptions = 0, hit_tokens = 0, parked = 0, over_budget = 0, remote = 0, held = 0,
          aborted_mid_plan = 0, failed = 0, fences = 0, ahead = 0, wasted = 0, resumed = 0;
};

class Simulation {
 public:
  Simulation(int seed, bool run_ahead, Counts& counts)
      : counts_(counts),
        random_(seed),
        block_size_(1 << Random(5)),
        pool_((kMaxLength + Random(300)) / block_size_ + 1, block_size_, 64),
        engine_(pool_) {
    SchedulerOptions options;
    options.max_sequences = 1 + Random(12);
    options.prefill_chunk_tokens = block_size_ * (1 + Random(6));
    options.max_batch_tokens = options.max_sequences + options.prefill_chunk_tokens + Random(40);
    options.prefill_patience_steps = 1 + Random(8);
    options.max_model_len = kMaxLength;
    options.prefix_caching = Random(4) != 0;
    options.run_ahead = run_ahead;
    options.eos.assign(std::begin(kEos), std::end(kEos));
    scheduler_ = *Scheduler::Create(options, pool_);
  }

  void Run(int ticks) {
    for (int tick = 0; tick < ticks && !testing::Test::HasFailure(); ++tick) Tick(true);
    for (int tick = 0; tick < 5000 && !clients_.empty() && !testing::Test::HasFailure(); ++tick) Tick(false);
    for (const auto& [id, client] : clients_) {
      ADD_FAILURE() << "sequence " << id.value << " never ended: kind " << static_cast<int>(client.kind)
                    << ", received " << client.received.size() << " of " << client.expected.tokens.size();
    }
    while (!plans_.empty() && !testing::Test::HasFailure()) CollectOne(false);
    while (!fenced_.empty()) UnfenceOne();
    counts_.preemptions += scheduler_->Counts().preemptions;
    counts_.hit_tokens += pool_.Stats().hit_tokens;
    EXPECT_FALSE(scheduler_->HasWork());
    EXPECT_EQ(pool_.Stats().used, 0);
    EXPECT_EQ(pool_.Available(), pool_.num_blocks());
    CheckIntegrity();
  }

 private:
  static constexpr int kMaxLength = 112;

  struct Client {
    Request request;  // as the client sent it, without generated tokens
    SequenceKind kind = SequenceKind::kLocal;
    FakeAnswer expected;
    std::vector<TokenId> received;
    size_t replayed = 0;  // of `received`, before this sequence
    bool remote = false;  // reserved, being written
    int32_t written = 0;  // tokens
    bool held = false;
    int32_t complete = 0;  // blocks that plans reported complete
  };

  int Random(int bound) { return static_cast<int>(random_() % bound); }

  // Prompts of a few families, so that prefixes, and whole prompts, repeat.
  Request RandomRequest() {
    Request request;
    const int family = Random(3);
    const int common = Random(3) == 0 ? block_size_ * Random(1 + 64 / block_size_) : Random(64);
    for (int i = 0; i < common; ++i) request.prompt.push_back((family * 17 + i * i) % kFakeVocabulary);
    const int own = request.prompt.empty() ? 1 + Random(8) : Random(2) * Random(8);
    for (int i = 0; i < own; ++i) request.prompt.push_back(Random(kFakeVocabulary));
    SamplingParams& sampling = request.sampling;
    sampling.seed = Random(4);
    sampling.max_tokens = 1 + Random(Random(4) == 0 ? 40 : 12);
    sampling.min_tokens = Random(sampling.max_tokens + 1);
    sampling.ignore_eos = Random(2) == 0;
    if (Random(2) == 0) sampling.stop_token_ids = {Random(kFakeVocabulary), Random(kFakeVocabulary)};
    sampling.prompt_logprobs = Random(12) == 0;
    if (Random(20) == 0) sampling.presence_penalty = 1;
    request.cache_salt = Random(6) == 0 ? "salt" : "";
    request.user = std::string(1, static_cast<char>('a' + Random(3)));
    request.priority = Random(5) == 0 ? Random(3) : 1;
    return request;
  }

  // Starts a client, or a replay of one.
  void Start(Client client) {
    const SequenceId id{++next_id_};
    client.replayed = client.received.size();
    client.complete = client.written = 0;
    client.remote = client.held = false;
    Request request = client.request;
    request.generated = client.received;
    if (client.kind != SequenceKind::kRemote) {
      const absl::Status status = scheduler_->Add(id, std::move(request), client.kind);
      ASSERT_TRUE(status.ok()) << status;
    } else {
      const auto reservation = scheduler_->ReserveRemote(id, std::move(request));
      if (!reservation.ok()) {
        ASSERT_EQ(reservation.status().code(), absl::StatusCode::kResourceExhausted) << reservation.status();
        client.kind = SequenceKind::kLocal;
        return Start(std::move(client));
      }
      client.remote = true;
      client.written = reservation->cached_tokens;
    }
    clients_[id] = std::move(client);
  }

  void StartSome() {
    Client client;
    client.request = RandomRequest();
    client.expected = RunAlone(client.request, {kEos, kMaxLength});
    const int kind = Random(10);
    client.kind = kind < 6 ? SequenceKind::kLocal : kind < 8 ? SequenceKind::kPrefillOnly : SequenceKind::kRemote;
    if (Random(6) == 0) {  // a replay from elsewhere
      const size_t length = Random(static_cast<int>(client.expected.tokens.size()));
      client.received.assign(client.expected.tokens.begin(), client.expected.tokens.begin() + length);
    }
    const int choices = Random(8) == 0 ? 1 + Random(5) : 1;
    for (int choice = 0; choice < choices; ++choice) {
      client.request.sampling.choice = choice;
      if (choice > 0) {
        client.received.clear();
        client.expected = RunAlone(client.request, {kEos, kMaxLength});
      }
      Start(client);
    }
  }

  std::map<SequenceId, Client>::iterator RandomClient() {
    return std::next(clients_.begin(), Random(static_cast<int>(clients_.size())));
  }

  // Something happens around the step loop; also between Schedule and Commit.
  void Disturb(bool load, bool mid_plan) {
    if (load && clients_.size() < 30 && Random(4) == 0) StartSome();
    if (load && !clients_.empty() && Random(40) == 0) {
      const auto client = RandomClient();
      counts_.aborted_mid_plan += mid_plan;
      if (client->second.remote) {
        EXPECT_EQ(scheduler_->Abort(client->first).code(), absl::StatusCode::kFailedPrecondition);
        EXPECT_TRUE(scheduler_->AbandonRemote(client->first, ReservedBlocks::kFree).ok());
      } else {
        EXPECT_TRUE(scheduler_->Abort(client->first).ok());
      }
      EXPECT_EQ(scheduler_->Find(client->first), nullptr);
      EXPECT_FALSE(scheduler_->Abort(client->first).ok()) << "it is gone";
      clients_.erase(client);
    }
    if (load && Random(2000) == 0) pool_.ClearCache();
    if (load && Random(50) == 0) scheduler_->SetPrefillBudget(Random(3) == 0 ? -1 : Random(2) * Random(24));
    if (!fenced_.empty() && Random(10) == 0) UnfenceOne();
    for (int i = 0; i < 3 && !clients_.empty(); ++i) {
      const auto client = RandomClient();
      if (client->second.held && (!load || Random(4) == 0)) ReleaseHeld(client);
      if (clients_.empty()) break;
      const auto other = RandomClient();
      if (other->second.remote) AdvanceRemote(other);
    }
  }

  void UnfenceOne() {
    pool_.Unfence(fenced_.back());
    fenced_.pop_back();
  }

  std::vector<TokenId> TokensOf(const Client& client) const {
    std::vector<TokenId> tokens = client.request.prompt;
    tokens.insert(tokens.end(), client.received.begin(), client.received.end());
    return tokens;
  }

  // The KV cache of a held sequence is still what it must be.
  void ReleaseHeld(std::map<SequenceId, Client>::iterator client) {
    const Sequence* sequence = scheduler_->Find(client->first);
    ASSERT_NE(sequence, nullptr);
    uint64_t last = kFakeKvStart;
    for (int32_t position = 0; position + 1 < sequence->length(); ++position) {
      last = FakeKv(last, sequence->tokens[position]);
      ASSERT_EQ(engine_.At(sequence->blocks, position), last) << "held sequence " << client->first.value;
    }
    ASSERT_TRUE(scheduler_->Release(client->first).ok());
    clients_.erase(client);
    ++counts_.held;
  }

  // A remote prefill writes a little more, ends, or goes wrong.
  void AdvanceRemote(std::map<SequenceId, Client>::iterator entry) {
    const SequenceId id = entry->first;
    Client& client = entry->second;
    const std::vector<TokenId> tokens = TokensOf(client);
    const int32_t length = static_cast<int32_t>(tokens.size());
    if (Random(20) == 0) return LoseRemote(entry);
    const std::vector<BlockId> table = scheduler_->Find(id)->blocks;
    uint64_t last = kFakeKvStart;
    const int32_t end = std::min(length, client.written + 1 + Random(30));
    for (int32_t position = 0; position < end; ++position) {
      last = FakeKv(last, tokens[position]);
      if (position >= client.written) engine_.At(table, position) = last;
    }
    client.written = end;
    if (end < length) return;
    const size_t left = client.expected.tokens.size() - client.received.size();
    const size_t count = Random(8) == 0 ? std::min<size_t>(left, 1 + Random(3)) : 1;
    const auto from = client.expected.tokens.begin() + client.received.size();
    const std::vector<TokenId> first(from, from + count);
    const auto finish = Random(5) == 0 ? Resume(id, first) : scheduler_->AddPrefilled(id, first);
    ASSERT_TRUE(finish.ok()) << finish.status();
    client.received.insert(client.received.end(), first.begin(), first.end());
    client.remote = false;
    client.request.sampling.prompt_logprobs = false;  // the other worker has sent them
    ++counts_.remote;
    if (*finish == FinishReason::kNone) return;
    EXPECT_EQ(*finish, client.expected.finish);
    EXPECT_EQ(client.received, client.expected.tokens);
    clients_.erase(entry);
    ++counts_.finished;
  }

  // What has arrived in some block, and perhaps after it, is not what was sent.
  absl::StatusOr<FinishReason> Resume(SequenceId id, const std::vector<TokenId>& first) {
    const Sequence& sequence = *scheduler_->Find(id);
    const int32_t bad =
        sequence.named_blocks + Random(std::max(1, pool_.BlocksFor(sequence.length()) - sequence.named_blocks));
    if (bad * block_size_ >= sequence.length()) return scheduler_->AddPrefilled(id, first);  // all of it was here
    for (int32_t i = bad * block_size_; i < sequence.length(); ++i) engine_.At(sequence.blocks, i) = Random(1000);
    clients_.at(id).complete = bad;
    ++counts_.resumed;
    return scheduler_->ResumeRemote(id, first, bad);
  }

  void LoseRemote(std::map<SequenceId, Client>::iterator entry) {
    const auto disposition = Random(2) == 0 ? ReservedBlocks::kFree : ReservedBlocks::kFence;
    const bool recompute = Random(2) == 0;
    const auto fenced = recompute ? scheduler_->RecomputeRemote(entry->first, disposition)
                                  : scheduler_->AbandonRemote(entry->first, disposition);
    ASSERT_TRUE(fenced.ok()) << fenced.status();
    if (disposition == ReservedBlocks::kFree) EXPECT_TRUE(fenced->empty());
    fenced_.insert(fenced_.end(), fenced->begin(), fenced->end());
    counts_.fences += static_cast<int64_t>(fenced->size());
    entry->second.remote = false;
    if (recompute) {
      entry->second.kind = SequenceKind::kLocal;
    } else {
      clients_.erase(entry);
    }
  }

  void Tick(bool load) {
    Disturb(load, false);
    StepPlan plan = scheduler_->Schedule();
    counts_.parked += scheduler_->Counts().parked;
    CheckPlan(plan);
    const bool planned = !plan.items.empty();
    if (planned) {
      ++counts_.steps;
      counts_.ahead += !plans_.empty();
      engine_.Submit(plan.batch);
      plans_.push_back(std::move(plan));
    }
    Disturb(load, !plans_.empty());
    if (!plans_.empty() && (!planned || !scheduler_->options().run_ahead || plans_.size() > 1)) CollectOne(load);
    if (Random(16) == 0) CheckIntegrity();
  }

  void CollectOne(bool load) {
    const StepPlan plan = std::move(plans_.front());
    plans_.pop_front();
    engine_.Scribble();
    StepOutput output = engine_.Collect();
    ASSERT_EQ(engine_.error, "");
    for (const BatchItem& item : plan.batch.items) counts_.wasted += scheduler_->Find(item.sequence) == nullptr;
    const bool fail = load && Random(400) == 0;
    counts_.failed += fail;
    const auto events = fail ? scheduler_->Fail(plan) : scheduler_->Commit(plan, std::move(output));
    for (const SequenceEvent& event : events) Receive(event);
  }

  void CheckIntegrity() {
    const absl::Status status = scheduler_->CheckIntegrity();
    ASSERT_TRUE(status.ok()) << status;
  }

  void CheckPlan(const StepPlan& plan) {
    const SchedulerOptions& options = scheduler_->options();
    ASSERT_EQ(plan.items.size(), plan.batch.items.size());
    ASSERT_LE(plan.batch.num_tokens(), options.max_batch_tokens);
    ASSERT_LE(static_cast<int>(plan.items.size()), options.max_sequences);
    ASSERT_EQ(plan.batch.num_tokens(), plan.decode_rows + plan.prefill_tokens);
    const int ride = options.prefill_budget < 0 ? options.prefill_chunk_tokens : options.prefill_budget;
    if (plan.decode_rows > 0 && plan.prefill_tokens > ride) {
      ++counts_.over_budget;
      ASSERT_LE(plan.prefill_tokens, options.prefill_chunk_tokens);
      ASSERT_GT(plan.step, last_over_budget_ + options.prefill_patience_steps);
      last_over_budget_ = plan.step;
    }
    for (size_t i = 0; i < plan.items.size(); ++i) {
      CheckItem(plan.batch.items[i], plan.items[i], static_cast<int>(i) < plan.decode_rows);
    }
  }

  void CheckItem(const BatchItem& item, const PlannedItem& planned, bool decode) {
    const auto client = clients_.find(item.sequence);
    ASSERT_NE(client, clients_.end());
    ASSERT_EQ(TokensOf(client->second), std::vector<TokenId>(item.tokens.begin(), item.tokens.end()));
    const int32_t end = item.start + item.count;
    const int32_t known = static_cast<int32_t>(item.tokens.size());
    const int32_t unknown = item.sampled_by >= 0 ? 1 : 0;
    ASSERT_EQ(item.sample, end == known + unknown);
    if (unknown > 0) ASSERT_FALSE(plans_.empty());
    if (!plans_.empty()) ASSERT_TRUE(decode) << "a prompt is not computed ahead";
    // Limits are foreseen, whatever the token is.
    const SamplingParams& sampling = client->second.request.sampling;
    ASSERT_LT(client->second.received.size() + unknown, static_cast<size_t>(sampling.max_tokens));
    ASSERT_EQ(static_cast<int32_t>(item.block_table.size()), pool_.BlocksFor(end));
    ASSERT_LE(item.count, decode ? 1 : scheduler_->options().prefill_chunk_tokens);
    if (planned.kind == SequenceKind::kPrefillOnly && !item.sample) ASSERT_EQ(end % block_size_, 0);
    if (!decode && planned.kind != SequenceKind::kRemote) {
      if (planned.complete_begin != 0) ASSERT_EQ(planned.complete_begin, client->second.complete);
      ASSERT_EQ(planned.complete_end, item.sample ? pool_.BlocksFor(end) : end / block_size_);
      client->second.complete = planned.complete_end;
    }
  }

  void Receive(const SequenceEvent& event) {
    const auto entry = clients_.find(event.sequence);
    ASSERT_NE(entry, clients_.end()) << "an event of an aborted sequence";
    Client& client = entry->second;
    ASSERT_EQ(event.position, static_cast<int32_t>(client.received.size()));
    if (event.finish == FinishReason::kError) {
      Client again = std::move(client);
      clients_.erase(entry);
      if (!again.received.empty()) again.request.sampling.prompt_logprobs = false;
      return Start(std::move(again));
    }
    ASSERT_EQ(event.first, client.kind != SequenceKind::kRemote && client.received.size() == client.replayed);
    CheckLogprobs(client, event);
    client.received.push_back(event.sampled.token);
    ASSERT_EQ(event.sampled.token, client.expected.tokens[event.position]) << "sequence " << event.sequence.value;
    ASSERT_EQ(event.last, event.held || event.finish != FinishReason::kNone);
    ASSERT_EQ(event.held, event.last && event.finish == FinishReason::kNone);
    client.held = event.held;
    const bool complete = client.received.size() == client.expected.tokens.size();
    ASSERT_EQ(event.finish, complete ? client.expected.finish : FinishReason::kNone);
    if (!complete) return;
    ++counts_.finished;
    clients_.erase(entry);
  }

  void CheckLogprobs(Client& client, const SequenceEvent& event) {
    const bool due = client.request.sampling.prompt_logprobs && event.position == 0;
    ASSERT_EQ(event.prompt_logprobs.size(), due ? client.expected.prompt_logprobs.size() : 0);
    for (size_t i = 0; i < event.prompt_logprobs.size(); ++i) {
      ASSERT_EQ(event.prompt_logprobs[i].token, client.request.prompt[i + 1]);
      ASSERT_EQ(event.prompt_logprobs[i].logprob, client.expected.prompt_logprobs[i]);
    }
    if (due) ASSERT_EQ(event.cached_tokens, 0);
  }

  Counts& counts_;
  std::mt19937 random_;
  int32_t block_size_;
  BlockPool pool_;
  FakeEngine engine_;
  std::unique_ptr<Scheduler> scheduler_;
  std::deque<StepPlan> plans_;  // in flight
  std::map<SequenceId, Client> clients_;
  std::vector<BlockId> fenced_;
  uint64_t next_id_ = 0;
  uint64_t last_over_budget_ = 0;
};

class SchedulerPropertyTest : public testing::TestWithParam<bool> {};

TEST_P(SchedulerPropertyTest, EverySequenceGetsItsTokensWhateverHappens) {
  Counts counts;
  for (int seed = 1; seed <= 150 && !HasFailure(); ++seed) {
    SCOPED_TRACE(Cat("seed ", seed));
    Simulation(seed, GetParam(), counts).Run(2000);
  }
  const auto& [steps, finished, preemptions, hit_tokens, parked, over_budget, remote, held, aborted, failed, fences,
               ahead, wasted, resumed] = counts;
  std::cout << steps << " steps, " << ahead << " planned ahead, " << wasted << " rows of ended sequences, " << finished
            << " finished, " << preemptions << " preemptions\n";
  // The load must have visited what it is meant to test.
  for (int64_t count :
       {finished, preemptions, hit_tokens, parked, over_budget, remote, held, aborted, failed, fences, resumed}) {
    EXPECT_GT(count, 100);
  }
  EXPECT_EQ(ahead > steps / 10 && wasted > 1000, GetParam());
}

INSTANTIATE_TEST_SUITE_P(Engines, SchedulerPropertyTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "one_step_late" : "synchronous"; });

}  // namespace
}  // namespace baton
