// A small world of two workers of one process, P and D, on one pool (docs/handoff.md, "Workers of one process"): the
// product's DecodeSide and PrefillSide, and a model of what stands around them. A value, as World.
//
// What is modelled, and how:
//   * One inbox, in order. A message to the other side is a message in it; reservations and cancels take effect at once
//     as well, in the middle of whatever the sender does. Steps, the clients' cancels, leases and deadlines come
//     between any two messages, which is more than the step loop allows.
//   * A block has a count of references and a mark: whose bytes it has. Whoever holds it has one reference: P's
//   sequence,
//     a Started that is under way, a request of D before and after its reservation, a sequence that D computes itself.
//   * The workers die together, so nothing dies here, and nothing is fenced.
//
// In each state the count of each block is the number of its holders; at the end all are free and each request ended.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "worker/decode_side.h"
#include "worker/prefill_side.h"

namespace baton {

struct SharedPoolOptions {
  int32_t requests = 1;
  int32_t blocks = 2;  // of the pool
  int32_t blocks_per_request = 2;
  int32_t places = 2;       // sequences that D may run or have reserved
  bool early_ends = false;  // a first token may end the answer; P may refuse a prompt
  // How often each of these may happen.
  int32_t cancels = 0;
  int32_t preemptions = 0;
  int32_t leases = 0;
  // Tests plant a bug by changing one.
  bool references_with_started = true;  // Started brings a reference to each block
  bool free_unwanted = true;            // D gives back those of a request that it has given up meanwhile
  bool free_forgotten = true;           // and those that were never reserved, when it forgets the request
  bool preempted_ends = true;  // P ends a prompt that was preempted: it would compute it into other blocks than D has
  DecodeRules decode;
  PrefillRules prefill;
};

class SharedPoolWorld {
 public:
  enum class Event : uint8_t {
    kAsk,
    kCancel,
    kHeadRoom,
    kReserve,
    kLocalAdmit,
    kFinish,
    kInbox,  // one message; Prefill that P's scheduler refuses: 1
    kPlan,   // P's first step with a prompt: it takes its blocks
    kCompute,
    kFirstToken,
    kLastToken,
    kPreempt,
    kLease,
  };
  struct Choice {
    Event event = Event::kAsk;
    uint8_t a = 0;  // a request, or a place among P's sequences
    uint8_t b = 0;
    bool operator==(const Choice&) const = default;
  };
  using Options = SharedPoolOptions;

  explicit SharedPoolWorld(const SharedPoolOptions& options);
  std::vector<Choice> Choices() const;
  static bool IsFair(const Choice& choice);
  void Apply(const Choice& choice);
  std::string Describe(const Choice& choice) const;
  const std::string& error() const { return error_; }
  std::string CheckEnd() const;
  void AppendKey(std::string& key) const;

 private:
  struct Message {
    enum class Kind : uint8_t {
      kPrefill,
      kCancel,
      kStarted,
      kFirstToken,
      kLastToken,
      kComplete,
      kQuiesced,
      kAbort,
      kRelease
    };
    Kind kind = Kind::kPrefill;
    uint8_t request = 0;
    uint64_t number = 0;  // epoch; of the last two, the sequence
    std::vector<BlockId> blocks;
  };
  struct Block {
    int8_t references = 0;
    uint8_t mark = 0;
  };
  enum class Phase : uint8_t { kIdle, kHanded, kLocalWaiting, kRunning, kDone };
  struct Request {
    Phase phase = Phase::kIdle;
    bool cancelled = false;
    bool token = false;
    uint64_t epoch = 0;
    std::vector<BlockId> shared;  // before the reservation
    std::vector<BlockId> blocks;  // after it, or of its own
  };
  struct Sequence {  // of P
    SequenceId id;
    uint8_t request = 0;
    uint8_t computed = 0;  // blocks
    bool held = false;
    std::vector<BlockId> blocks;
  };

  static constexpr uint64_t kConnection = 1;
  static constexpr PrefillSide::Session kSession = 1;

  SequenceId Name(uint8_t request) const { return {1u + request}; }
  uint8_t Mark(uint8_t request, size_t block) const { return static_cast<uint8_t>(10 * (request + 1) + block); }
  int32_t FreeBlocks() const;
  bool HasPlace() const;
  void Fail(std::string error);
  std::vector<BlockId> Take();
  void Free(std::vector<BlockId>& blocks);
  void DropSequence(SequenceId id);
  void Execute(const std::optional<DecodeDecision>& decision);
  void Act(DecodeAction action, const DecodeDecision& decision);
  void Execute(const std::optional<PrefillDecision>& decision, uint8_t request);
  void RunInbox(uint8_t how);
  void ReceiveStarted(Message& message);
  void Ask(const Message& message, uint8_t how);
  void PlanFirst(Sequence& sequence);
  void SampleFirst(uint8_t index, bool last);
  void Run(uint8_t request);
  void CheckReferences();

  SharedPoolOptions options_;
  std::string error_;
  int32_t cancels_ = 0, preemptions_ = 0, leases_ = 0;
  std::vector<Block> pool_;
  std::vector<Request> requests_;
  std::vector<Message> inbox_;
  std::vector<Sequence> sequences_;
  DecodeSide decode_;
  PrefillSide prefill_;
  uint64_t next_sequence_ = 0;
};

}  // namespace baton
