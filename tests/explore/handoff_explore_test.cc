// Folders: worker
// Searches everything that can happen in a hand-off of small size, with the product's own decisions (DecodeSide,
// PrefillSide), and shows that it would find a bug in each of their rules. BATON_EXPLORE=long (make explore) has larger
// bounds.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "base/status.h"
#include "explorer.h"

namespace baton {
namespace {

bool IsLong() {
  const char* value = std::getenv("BATON_EXPLORE");
  return value != nullptr && std::strcmp(value, "long") == 0;
}

struct NamedWorld {
  const char* name;
  WorldOptions options;
};

std::vector<NamedWorld> SmallWorlds() {
  return {
      {"one request, P dies, cancel", {.p_deaths = 1, .cancels = 1}},
      {"one request of one block, D dies, cancel", {.blocks = 1, .blocks_per_request = 1, .d_deaths = 1, .cancels = 1}},
      {"one request, the session breaks, cancel", {.breaks = 1, .cancels = 1}},
      {"two requests with one prefix", {.requests = 2, .blocks = 3, .shared_prefix = true}},
      {"two requests for one's blocks", {.requests = 2, .blocks = 2}},
      {"one request, duplicates, refusals", {.early_ends = true, .cancels = 1, .duplicates = 1}},
      {"one request, preemption, a copy fails, cancel", {.cancels = 1, .preemptions = 1, .copy_failures = 1}},
      {"one request, other bytes arrive, cancel", {.cancels = 1, .corruptions = 1, .verify = true}},
      {"a path is measured, the session breaks", {.blocks = 3, .probe = true, .early_connect = true, .breaks = 1}},
      {"a path is measured, P dies", {.blocks = 3, .probe = true, .early_connect = true, .p_deaths = 1}},
      {"two requests of one block", {.requests = 2, .blocks = 2, .blocks_per_request = 1}},
  };
}

std::vector<NamedWorld> LargerWorlds() {
  return {
      {"one request, the session breaks, D dies", {.d_deaths = 1, .breaks = 1}},
      {"one request of one block, everything once",
       {.blocks = 1,
        .blocks_per_request = 1,
        .early_ends = true,
        .p_deaths = 1,
        .d_deaths = 1,
        .breaks = 1,
        .cancels = 1,
        .duplicates = 1}},
      {"one request, P dies twice, the session breaks twice", {.p_deaths = 2, .breaks = 2, .cancels = 1}},
      {"two requests for one's blocks", {.requests = 2, .blocks = 2, .cancels = 1}},
      {"two requests, one block each, P dies",
       {.requests = 2, .blocks = 2, .blocks_per_request = 1, .p_deaths = 1, .cancels = 1}},
      {"two requests, one block each, the session breaks",
       {.requests = 2, .blocks = 2, .blocks_per_request = 1, .breaks = 1}},
      {"two requests with one prefix", {.requests = 2, .blocks = 3, .shared_prefix = true, .breaks = 1}},
  };
}

class WorldTest : public testing::TestWithParam<NamedWorld> {};

TEST_P(WorldTest, KeepsEveryRule) {
  const Exploration found = Explore(GetParam().options, 40'000'000);
  std::printf("  %-52s %s\n", GetParam().name, found.Text().c_str());
  EXPECT_EQ(found.error, "") << found.trace;
  EXPECT_TRUE(found.complete);
  EXPECT_GT(found.states, 1000);
}

INSTANTIATE_TEST_SUITE_P(Small, WorldTest, testing::ValuesIn(SmallWorlds()));
INSTANTIATE_TEST_SUITE_P(Larger, WorldTest, testing::ValuesIn(IsLong() ? LargerWorlds() : std::vector<NamedWorld>()));
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(WorldTest);

TEST(WalkTest, LargerWorldsKeepEveryRule) {
  WorldOptions options{.requests = 5,
                       .blocks = 8,
                       .blocks_per_request = 3,
                       .probe = true,
                       .early_connect = true,
                       .early_ends = true,
                       .p_deaths = 3,
                       .d_deaths = 2,
                       .breaks = 3,
                       .cancels = 3,
                       .duplicates = 1,
                       .preemptions = 2,
                       .copy_failures = 2,
                       .corruptions = 1,
                       .verify = true};
  for (const bool shared_prefix : {false, true}) {
    options.shared_prefix = shared_prefix;
    const Exploration found = Wander(options, 20261124, IsLong() ? 500'000 : 4000, 2000);
    std::printf("  %-52s %s\n", shared_prefix ? "random, five requests with one prefix" : "random, five requests",
                found.Text().c_str());
    EXPECT_EQ(found.error, "") << found.trace;
  }
}

// ---- planted bugs ----

using DecodeTable = std::vector<DecodeRow>;
using PrefillTable = std::vector<PrefillRow>;

DecodeTable Changed(DecodeState from, DecodeEvent event, BlocksFate blocks, DecodeState to) {
  DecodeTable table(kDecodeTable.begin(), kDecodeTable.end());
  const auto row = std::ranges::find_if(table, [&](const DecodeRow& r) { return r.from == from && r.event == event; });
  row->blocks = blocks;
  row->to = to;
  return table;
}

struct Bug {
  const char* rule;
  const char* bug;
  WorldOptions options;  // where it shows
  void (*plant)(WorldOptions&);
};

#define BATON_PLANT_ROW(from, event, blocks, to)                                             \
  [](WorldOptions& o) {                                                                      \
    static const DecodeTable table =                                                         \
        Changed(DecodeState::from, DecodeEvent::event, BlocksFate::blocks, DecodeState::to); \
    o.decode.table = table;                                                                  \
  }

const Bug kBugs[] = {
    {"1",
     "D frees its blocks when the client cancels",
     {.cancels = 1},
     BATON_PLANT_ROW(kArriving, kCancelled, kFree, kEnding)},
    {"1",
     "D frees its blocks when the first token is the last",
     {.early_ends = true},
     BATON_PLANT_ROW(kReserved, kLastToken, kFree, kEnding)},
    {"1",
     "D frees its blocks when the session ends",
     {.breaks = 1},
     [](WorldOptions& o) { o.decode.fence_until_reaped = false; }},
    {"1",
     "P says Quiesced before its copies have ended",
     {.cancels = 1},
     [](WorldOptions& o) { o.prefill.quiesce_after_copies = false; }},
    {"1",
     "P says Complete before its copies have ended",
     {},
     [](WorldOptions& o) { o.prefill.complete_after_copies = false; }},
    {"1",
     "P answers a repeated Prefill with Quiesced",
     {.duplicates = 1},
     [](WorldOptions& o) { o.prefill.one_prompt_an_epoch = false; }},
    {"2",
     "any news of P opens its fences",
     {.breaks = 1},
     [](WorldOptions& o) { o.decode.fences_of_reaped_only = false; }},
    {"2",
     "D forgets to free what a cancelled request had",
     {.cancels = 1},
     BATON_PLANT_ROW(kEndingReserved, kQuiesced, kKeep, kForgotten)},
    {"3", "D does not report a lost P", {.breaks = 1}, [](WorldOptions& o) { o.decode.report_lost = false; }},
    {"4",
     "P's lease ends a prompt whose copies are under way",
     {},
     [](WorldOptions& o) {
       static const PrefillTable table = [] {
         PrefillTable rows(kPrefillTable.begin(), kPrefillTable.end());
         rows.push_back({PrefillState::kFinishing,
                         PrefillEvent::kLeaseExpired,
                         {PrefillAction::kRelease, PrefillAction::kSendQuiesced},
                         PrefillState::kForgotten});
         return rows;
       }();
       o.prefill.table = table;
     }},
    {"4",
     "P's lease frees, and says nothing",
     {},
     [](WorldOptions& o) {
       static const PrefillTable table = [] {
         PrefillTable rows(kPrefillTable.begin(), kPrefillTable.end());
         for (PrefillRow& row : rows) {
           if (row.event == PrefillEvent::kLeaseExpired) row.to = PrefillState::kForgotten;
         }
         return rows;
       }();
       o.prefill.table = table;
     }},
    {"5",
     "P writes blocks that D has",
     {.requests = 2, .blocks = 3, .shared_prefix = true},
     [](WorldOptions& o) { o.prefill.push.skip_held_blocks = false; }},
    {"7",
     "D frees lent blocks when the session ends",
     {.blocks = 3, .probe = true, .breaks = 1},
     [](WorldOptions& o) { o.decode.lend_until_answered = false; }},
    {"8",
     "a message with an unknown epoch counts for any request",
     {.requests = 2, .blocks = 2, .blocks_per_request = 1, .duplicates = 1},
     [](WorldOptions& o) { o.decode.own_epoch_only = false; }},
    {"8",
     "P takes an epoch for that of another session",
     {.d_deaths = 1},
     [](WorldOptions& o) {
       o.epochs_repeat = true;
       o.prefill.own_session_only = false;
     }},
    {"9",
     "P serves a decode worker that means an earlier process",
     {.p_deaths = 1},
     [](WorldOptions& o) { o.prefill.own_incarnation_only = false; }},
    {"9",
     "a restarted P makes D forget what the earlier one was doing",
     {.p_deaths = 1},
     [](WorldOptions& o) { o.decode.superseded_is_lost = false; }},
    {"9",
     "D waits on a session that closed before it was told of its opening",
     {.breaks = 1},
     [](WorldOptions& o) { o.decode.closed_is_final = false; }},
    {"10", "P pushes before it has computed", {}, [](WorldOptions& o) { o.prefill.push.computed_layers_only = false; }},
    {"10",
     "P says Complete before everything was pushed",
     {},
     [](WorldOptions& o) {
       // With this guard gone, a group of layers that is not pushed in its turn is enough.
       static const PrefillTable table = [] {
         PrefillTable rows(kPrefillTable.begin(), kPrefillTable.end());
         std::erase_if(rows, [](const PrefillRow& row) {
           return row.from == PrefillState::kPushing && row.event == PrefillEvent::kLayersDone;
         });
         return rows;
       }();
       o.prefill.table = table;
       o.prefill.push.complete_when_all_pushed = false;
     }},
    {"10",
     "P does not push again after a preemption",
     {.preemptions = 1},
     [](WorldOptions& o) { o.prefill.push.again_after_preemption = false; }},
    {"11",
     "D does not compare what arrived",
     {.corruptions = 1, .verify = true},
     [](WorldOptions& o) { o.verify = false; }},
    {"11",
     "D decodes on blocks that it found to be bad",
     {.corruptions = 1, .verify = true},
     [](WorldOptions& o) {
       static const DecodeTable table = [] {
         DecodeTable rows(kDecodeTable.begin(), kDecodeTable.end());
         for (DecodeRow& row : rows) {
           if (row.event == DecodeEvent::kCorrupt) row.actions = {DecodeAction::kDecode, DecodeAction::kNothing};
         }
         return rows;
       }();
       o.decode.table = table;
     }},
    {"10",
     "D decodes at the first token",
     {},
     [](WorldOptions& o) {
       static const DecodeTable table = [] {
         DecodeTable rows =
             Changed(DecodeState::kReserved, DecodeEvent::kFirstToken, BlocksFate::kKeep, DecodeState::kForgotten);
         for (DecodeRow& row : rows) {
           if (row.from == DecodeState::kReserved && row.event == DecodeEvent::kFirstToken) {
             row.actions = {DecodeAction::kDeliverToken, DecodeAction::kDecode};
           }
         }
         return rows;
       }();
       o.decode.table = table;
     }},
};

class PlantedBugTest : public testing::TestWithParam<Bug> {};

TEST_P(PlantedBugTest, IsCaught) {
  const Bug& bug = GetParam();
  WorldOptions options = bug.options;
  if (IsLong()) EXPECT_EQ(Explore(options, 20'000'000).error, "") << "without the bug";
  bug.plant(options);
  const Exploration found = Explore(options, 20'000'000);
  std::printf("  rule %-3s %-62s %7lld states, depth %2d: %s\n", bug.rule, bug.bug,
              static_cast<long long>(found.states), found.depth, found.error.c_str());
  EXPECT_NE(found.error, "");
  EXPECT_NE(found.trace, "");
}

INSTANTIATE_TEST_SUITE_P(All, PlantedBugTest, testing::ValuesIn(kBugs));

// ---- every row of the tables ----

// Worlds in which each row is used.
std::vector<WorldOptions> RowWorlds() {
  return {{.early_ends = true, .cancels = 1}, {.p_deaths = 1, .cancels = 1},
          {.breaks = 1, .cancels = 1},        {.blocks = 1, .blocks_per_request = 1, .d_deaths = 1},
          {.cancels = 1, .copy_failures = 1}, {.corruptions = 1, .verify = true}};
}

bool AnyWorldCatches(const DecodeRules& decode, const PrefillRules& prefill) {
  return std::ranges::any_of(RowWorlds(), [&](WorldOptions options) {
    options.decode = decode;
    options.prefill = prefill;
    return !Explore(options, 20'000'000).error.empty();
  });
}

// Rows that say "nothing happens" where nothing would happen without them, either.
bool IsSilent(const DecodeRow& row) {
  return row.from == row.to && row.blocks == BlocksFate::kKeep && row.actions == std::array<DecodeAction, 2>{};
}
bool IsSilent(const PrefillRow& row) { return row.from == row.to && row.actions == std::array<PrefillAction, 3>{}; }

std::string Name(const DecodeRow& row) {
  return Cat("D's row (state ", static_cast<int>(row.from), ", event ", static_cast<int>(row.event), ")");
}
std::string Name(const PrefillRow& row) {
  return Cat("P's row (state ", static_cast<int>(row.from), ", event ", static_cast<int>(row.event), ")");
}

TEST(TableTest, EachRowOfDIsNeeded) {
  if (!IsLong()) GTEST_SKIP() << "takes minutes: make explore";
  for (size_t i = 0; i < kDecodeTable.size(); ++i) {
    if (IsSilent(kDecodeTable[i])) continue;
    DecodeTable rows(kDecodeTable.begin(), kDecodeTable.end());
    rows.erase(rows.begin() + static_cast<ptrdiff_t>(i));
    DecodeRules rules;
    rules.table = rows;
    EXPECT_TRUE(AnyWorldCatches(rules, {})) << Name(kDecodeTable[i]) << " can be left out, and nobody notices";
  }
}

TEST(TableTest, EachRowOfPIsNeeded) {
  if (!IsLong()) GTEST_SKIP() << "takes minutes: make explore";
  for (size_t i = 0; i < kPrefillTable.size(); ++i) {
    if (IsSilent(kPrefillTable[i])) continue;
    PrefillTable rows(kPrefillTable.begin(), kPrefillTable.end());
    rows.erase(rows.begin() + static_cast<ptrdiff_t>(i));
    PrefillRules rules;
    rules.table = rows;
    EXPECT_TRUE(AnyWorldCatches({}, rules)) << Name(kPrefillTable[i]) << " can be left out, and nobody notices";
  }
}

}  // namespace
}  // namespace baton
