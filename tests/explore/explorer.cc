#include "explorer.h"

#include <xxhash.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <optional>
#include <unordered_map>

#include "base/status.h"
#include "core/block_hash.h"
#include "core/random.h"

namespace baton {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Applies the choices that are possible, and tells them. Stops at the first broken rule.
template <typename World>
World Replay(const typename World::Options& options, const std::vector<typename World::Choice>& choices,
             std::string* trace, std::vector<typename World::Choice>* applied) {
  using Choice = typename World::Choice;
  World world(options);
  int32_t line = 0;
  for (const Choice& choice : choices) {
    const std::vector<Choice> possible = world.Choices();
    if (std::ranges::find(possible, choice) == possible.end()) continue;
    if (trace != nullptr) *trace += Cat("  ", ++line, ". ", world.Describe(choice), "\n");
    if (applied != nullptr) applied->push_back(choice);
    world.Apply(choice);
    if (!world.error().empty()) break;
  }
  return world;
}

template <typename World>
class Search {
 public:
  using Choice = typename World::Choice;
  using Options = typename World::Options;

  Search(const Options& options, int64_t states_max) : options_(options), states_max_(states_max) {}

  Exploration Run() {
    const Clock::time_point start = Clock::now();
    World first(options_);
    Add(first, {0, {}});
    frontier_.push_back(std::move(first));
    for (uint32_t state = 0; !frontier_.empty() && !failed_; ++state) {
      const World world = std::move(frontier_.front());
      frontier_.pop_front();
      Expand(state, world);
      fair_begin_.push_back(fair_.size());
    }
    result_.complete = !full_ && !failed_;
    if (result_.complete) CheckEndsReachable();
    result_.states = std::ssize(nodes_);
    result_.seconds = SecondsSince(start);
    return std::move(result_);
  }

 private:
  struct Node {
    uint32_t parent;
    Choice choice;
  };

  // The number of a state, and whether it is new.
  std::pair<uint32_t, bool> Add(const World& world, const Node& node) {
    key_.clear();
    world.AppendKey(key_);
    const XXH128_hash_t hash = XXH3_128bits(key_.data(), key_.size());
    const auto [entry, is_new] = seen_.try_emplace({hash.high64, hash.low64}, static_cast<uint32_t>(nodes_.size()));
    if (is_new) {
      nodes_.push_back(node);
      depths_.push_back(nodes_.size() == 1 ? 0 : depths_[node.parent] + 1);
      result_.depth = std::max<int32_t>(result_.depth, depths_.back());
    }
    return {entry->second, is_new};
  }

  void Expand(uint32_t state, const World& world) {
    bool any_fair = false;
    for (const Choice& choice : world.Choices()) {
      World next = world;
      next.Apply(choice);
      result_.transitions += 1;
      if (!next.error().empty()) return Failed(next.error(), state, choice);
      const bool fair = World::IsFair(choice);
      any_fair |= fair;
      if (std::ssize(nodes_) >= states_max_) {
        full_ = true;
        continue;
      }
      const auto [number, is_new] = Add(next, {state, choice});
      if (fair) fair_.push_back(number);
      if (is_new) frontier_.push_back(std::move(next));
    }
    if (any_fair) return;
    if (const std::string error = world.CheckEnd(); !error.empty()) return Failed(error, state, std::nullopt);
    ends_.push_back(state);
  }

  // Backwards from the good ends along fair events.
  void CheckEndsReachable() {
    std::vector<std::vector<uint32_t>> before(nodes_.size());
    for (uint32_t state = 0; state < nodes_.size(); ++state) {
      for (size_t i = state == 0 ? 0 : fair_begin_[state - 1]; i < fair_begin_[state]; ++i)
        before[fair_[i]].push_back(state);
    }
    std::vector<bool> good(nodes_.size(), false);
    std::vector<uint32_t> queue = ends_;
    for (const uint32_t end : ends_) good[end] = true;
    while (!queue.empty()) {
      const uint32_t state = queue.back();
      queue.pop_back();
      for (const uint32_t earlier : before[state]) {
        if (good[earlier]) continue;
        good[earlier] = true;
        queue.push_back(earlier);
      }
    }
    const auto bad = std::ranges::find(good, false);
    if (bad == good.end()) return;
    Failed("from here no end can be reached: somebody waits for ever", static_cast<uint32_t>(bad - good.begin()),
           std::nullopt);
  }

  void Failed(std::string error, uint32_t state, std::optional<Choice> last) {
    failed_ = true;
    result_.error = std::move(error);
    std::vector<Choice> choices;
    if (last) choices.push_back(*last);
    for (uint32_t at = state; at != 0; at = nodes_[at].parent) choices.push_back(nodes_[at].choice);
    std::ranges::reverse(choices);
    Replay<World>(options_, choices, &result_.trace, nullptr);
  }

  const Options options_;
  const int64_t states_max_;
  Exploration result_;
  bool failed_ = false;
  bool full_ = false;
  std::string key_;
  std::unordered_map<BlockHash, uint32_t> seen_;
  std::vector<Node> nodes_;
  std::vector<int32_t> depths_;
  std::deque<World> frontier_;
  std::vector<uint32_t> fair_;      // states that fair events lead to, of one state after the other
  std::vector<size_t> fair_begin_;  // [state]: where the next one's begin
  std::vector<uint32_t> ends_;
};

// The error of a walk: a broken rule, or what is left when nothing more can happen.
template <typename World>
std::string ErrorOf(World world) {
  using Choice = typename World::Choice;
  for (int32_t i = 0; i < 100000 && world.error().empty(); ++i) {
    const std::vector<Choice> choices = world.Choices();
    const auto fair = std::ranges::find_if(choices, &World::IsFair);
    if (fair == choices.end()) return world.CheckEnd();
    world.Apply(*fair);
  }
  return world.error().empty() ? "it goes on for ever" : world.error();
}

// Leaves out events, as long as some rule is still broken.
template <typename World>
std::vector<typename World::Choice> Shorten(const typename World::Options& options,
                                            std::vector<typename World::Choice> choices) {
  using Choice = typename World::Choice;
  for (size_t chunk = choices.size() / 2; chunk > 0; chunk /= 2) {
    for (size_t begin = 0; begin + chunk <= choices.size();) {
      std::vector<Choice> fewer = choices;
      fewer.erase(fewer.begin() + static_cast<ptrdiff_t>(begin), fewer.begin() + static_cast<ptrdiff_t>(begin + chunk));
      std::vector<Choice> applied;
      const World world = Replay<World>(options, fewer, nullptr, &applied);
      if (ErrorOf(world).empty()) {
        begin += chunk;
      } else {
        choices = std::move(applied);
      }
    }
  }
  return choices;
}

template <typename World>
Exploration Walk(const typename World::Options& options, uint64_t seed, int32_t walks, int32_t events_max) {
  using Choice = typename World::Choice;
  const Clock::time_point start = Clock::now();
  Exploration result;
  for (int32_t walk = 0; walk < walks && result.error.empty(); ++walk) {
    World world(options);
    std::vector<Choice> path;
    while (world.error().empty()) {
      std::vector<Choice> choices = world.Choices();
      const uint64_t random = KeyedBits(seed, walk, path.size());
      // Faults are rare, so that they meet hand-offs in every state; none in the end.
      const bool fair = random % 16 != 0 || std::ssize(path) >= events_max;
      if (fair && std::ranges::any_of(choices, &World::IsFair)) {
        std::erase_if(choices, [](const Choice& choice) { return !World::IsFair(choice); });
      }
      if (choices.empty() || (fair && !World::IsFair(choices[0]))) break;
      path.push_back(choices[(random >> 8) % choices.size()]);
      world.Apply(path.back());
    }
    result.transitions += std::ssize(path);
    result.depth = std::max<int32_t>(result.depth, static_cast<int32_t>(path.size()));
    result.error = world.error().empty() ? world.CheckEnd() : world.error();
    if (result.error.empty()) continue;
    path = Shorten<World>(options, std::move(path));
    const World last = Replay<World>(options, path, &result.trace, nullptr);
    result.error = Cat("seed ", seed, ", walk ", walk, ": ", ErrorOf(last));
  }
  result.seconds = SecondsSince(start);
  return result;
}

}  // namespace

std::string Exploration::Text() const {
  const std::string seen = states > 0 ? Cat(states, " states, ") : "";
  const std::string what = Cat(seen, transitions, " events, depth ", depth, ", ",
                               static_cast<int64_t>(seconds * 100) / 100.0, " s", complete ? ", complete" : "");
  return error.empty() ? what : Cat(what, "\n", error, ":\n", trace);
}

Exploration Explore(const WorldOptions& options, int64_t states_max) {
  return Search<World>(options, states_max).Run();
}
Exploration Explore(const SharedPoolOptions& options, int64_t states_max) {
  return Search<SharedPoolWorld>(options, states_max).Run();
}

Exploration Wander(const WorldOptions& options, uint64_t seed, int32_t walks, int32_t events_max) {
  return Walk<World>(options, seed, walks, events_max);
}
Exploration Wander(const SharedPoolOptions& options, uint64_t seed, int32_t walks, int32_t events_max) {
  return Walk<SharedPoolWorld>(options, seed, walks, events_max);
}

}  // namespace baton
