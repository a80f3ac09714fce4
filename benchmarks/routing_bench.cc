// What a routing decision costs and finds.
//
//   routing_bench decisions [--workers 100] [--blocks 1000000] [--decisions 20000]
//   routing_bench trace FILE… [--workers 16] [--requests N] [--speed 1] [--repetitions 5]
//
// decisions: p50, p99 and worst of one decision (names of the prompt's blocks, ranking, counting) in a deployment of
// half prefill and half decode workers whose caches hold `blocks` blocks together.
// trace: requests of a file in the format of Mooncake's traces (a JSON object a line: timestamp in ms, input_length,
// output_length, hash_ids of 512-token blocks), in virtual time over hybrid workers with the product's scheduler, pool
// and router; beside an oracle that knows at every moment what each worker's cache holds, and beside what one cache
// without end would find. --speed 2: twice as fast. What is found depends on chance (who was evicted when), so each
// repetition is a hundredth faster than the one before; means, the least and the most are shown.
#include <absl/container/flat_hash_set.h>

#include <algorithm>
#include <boost/json.hpp>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <string>

#include "core/random.h"
#include "planner/cluster_simulation.h"
#include "router/routing_state.h"

namespace baton {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int32_t kBlockSize = 128;
constexpr int32_t kTraceBlock = 512;

struct Flags {
  std::string mode;
  std::vector<std::string> files;
  std::map<std::string, double> numbers;
  double Number(const std::string& name, double otherwise) const {
    const auto found = numbers.find(name);
    return found == numbers.end() ? otherwise : found->second;
  }
};

// Prompts share prefixes as conversations do: of 200 families, each with a long common part.
std::vector<TokenId> Prompt(uint64_t index) {
  const uint64_t family = KeyedBits(1, 0, static_cast<int64_t>(index)) % 200;
  const size_t shared = 512 + KeyedBits(2, 0, static_cast<int64_t>(family)) % 4096;
  const size_t own = 256 + KeyedBits(3, 0, static_cast<int64_t>(index)) % 4096;
  std::vector<TokenId> tokens;
  for (size_t i = 0; i < shared; ++i) tokens.push_back(static_cast<TokenId>(KeyedBits(4, family, i) % 100000));
  for (size_t i = 0; i < own; ++i) tokens.push_back(static_cast<TokenId>(KeyedBits(5, index, i) % 100000));
  return tokens;
}

// Until so many different blocks are known.
void FillIndex(RoutingState& state, int64_t workers, int64_t blocks) {
  const BlockHash root = RootHash(1, "bench", "");
  std::vector<uint64_t> sequence(workers);
  for (uint64_t index = 0; state.index().size() < blocks; ++index) {
    const size_t worker = index % workers;
    std::vector<CacheChange> changes;
    for (const BlockHash& hash : HashBlocks(root, Prompt(index), kBlockSize)) {
      changes.push_back({CacheChange::Kind::kStored, hash});
    }
    state.index().Apply({worker + 1}, sequence[worker] + 1, changes);
    sequence[worker] += changes.size();
  }
}

void AddWorkers(RoutingState& state, int64_t workers) {
  const StepTimeTable table{.products = {{1, 19000},
                                         {128, 22000},
                                         {129, 30000},
                                         {256, 33000},
                                         {257, 45000},
                                         {512, 62000},
                                         {1024, 120000},
                                         {2048, 230000}},
                            .decode_row_us = 5,
                            .decode_context_us = 0.05,
                            .prefill_context_us = 0.005};
  for (int64_t i = 0; i < workers; ++i) {
    WorkerView& view =
        state.Add({static_cast<uint64_t>(i + 1)}, i % 2 == 0 ? WorkerRole::kPrefill : WorkerRole::kDecode);
    view.step_times = table;
    view.free_kv_tokens = 1000000;
    view.kv_bytes_per_token = 163840;
    view.context_tokens = 100000;
    for (int64_t p = 0; i % 2 == 1 && p < workers; p += 2) {
      view.paths.push_back({.prefill = {static_cast<uint64_t>(p + 1)}, .gigabytes_per_second = 100});
    }
  }
}

int Decisions(const Flags& flags) {
  const auto workers = static_cast<int64_t>(flags.Number("--workers", 100));
  const auto decisions = static_cast<size_t>(flags.Number("--decisions", 20000));
  RoutingState state({});
  AddWorkers(state, workers);
  FillIndex(state, workers, static_cast<int64_t>(flags.Number("--blocks", 1000000)));
  const BlockHash root = RootHash(1, "bench", "");
  std::vector<double> microseconds;
  std::vector<std::pair<Placement, std::vector<BlockHash>>> under_way;
  int64_t cached = 0, total = 0;
  for (size_t i = 0; i < decisions; ++i) {
    const std::vector<TokenId> prompt = Prompt(1000000 + i);
    const Clock::time_point begin = Clock::now();
    std::vector<BlockHash> blocks = HashBlocks(root, prompt, kBlockSize);
    const RouteRequest request{.prompt_tokens = static_cast<int64_t>(prompt.size()),
                               .max_tokens = 256,
                               .blocks = blocks,
                               .block_size = kBlockSize};
    const std::vector<Selection> ranked = state.Rank(request, 4);
    const Placement placement = state.Dispatched(ranked.front(), request);
    microseconds.push_back(std::chrono::duration<double, std::micro>(Clock::now() - begin).count());
    cached += request.prompt_tokens - placement.queued_tokens;
    total += request.prompt_tokens;
    under_way.emplace_back(placement, std::move(blocks));
    if (under_way.size() < 1000) continue;  // so many requests are under way at a time
    RouteRequest ended = request;
    ended.blocks = under_way.front().second;
    state.Ended(under_way.front().first, ended);
    under_way.erase(under_way.begin());
  }
  std::sort(microseconds.begin(), microseconds.end());
  const auto at = [&](double share) { return microseconds[static_cast<size_t>(share * (microseconds.size() - 1))]; };
  std::printf(
      "{\"workers\": %lld, \"indexed_blocks\": %lld, \"decisions\": %zu, \"p50_us\": %.1f, \"p90_us\": %.1f, "
      "\"p99_us\": %.1f, \"worst_us\": %.1f, \"cached_share\": %.3f}\n",
      static_cast<long long>(workers), static_cast<long long>(state.index().size()), decisions, at(0.5), at(0.9),
      at(0.99), microseconds.back(), static_cast<double>(cached) / static_cast<double>(total));
  return 0;
}

std::vector<SimulatedRequest> ReadTrace(const std::string& file, size_t most) {
  std::ifstream lines(file);
  if (!lines) {
    std::fprintf(stderr, "cannot read %s\n", file.c_str());
    std::exit(2);
  }
  std::vector<SimulatedRequest> requests;
  for (std::string line; requests.size() < most && std::getline(lines, line);) {
    boost::system::error_code error;
    const boost::json::value value = boost::json::parse(line, error);
    const auto* object = error ? nullptr : value.if_object();
    const auto number = [&](const char* key) { return object->at(key).to_number<double>(); };
    if (object == nullptr || !object->contains("hash_ids") || !object->at("hash_ids").is_array()) {
      std::fprintf(stderr, "%s: line %zu is no request\n", file.c_str(), requests.size() + 1);
      std::exit(2);
    }
    SimulatedRequest& request = requests.emplace_back();
    request.arrival_ms = number("timestamp");
    request.output_tokens = std::max(1, static_cast<int32_t>(number("output_length")));
    const auto length = static_cast<size_t>(number("input_length"));
    for (const boost::json::value& id : object->at("hash_ids").as_array()) {
      for (int32_t i = 0; i < kTraceBlock && request.prompt.size() < length; ++i) {
        request.prompt.push_back(static_cast<TokenId>(KeyedBits(6, id.to_number<uint64_t>(), i) % 100000));
      }
    }
    if (request.prompt.empty()) request.prompt.push_back(0);
  }
  std::ranges::sort(requests, {}, &SimulatedRequest::arrival_ms);
  return requests;
}

struct Found {
  std::vector<double> shares;  // of the prompt tokens, [repetitions]
  double ttft_ms = 0;          // mean of all
  double share() const {
    double sum = 0;
    for (const double share : shares) sum += share;
    return sum / static_cast<double>(shares.size());
  }
};

// Share of the prompt tokens that came before, at the beginning of an earlier prompt.
double SeenBefore(const std::vector<SimulatedRequest>& requests) {
  absl::flat_hash_set<std::pair<uint64_t, uint64_t>> seen;
  const BlockHash root = RootHash(1, "bench", "");
  double found = 0, tokens = 0;
  for (const SimulatedRequest& request : requests) {
    bool prefix = true;
    for (const BlockHash& hash : HashBlocks(root, request.prompt, kBlockSize)) {
      const bool known = !seen.emplace(hash.high, hash.low).second;
      prefix = prefix && known;
      found += prefix ? kBlockSize : 0;
    }
    tokens += static_cast<double>(request.prompt.size());
  }
  return found / tokens;
}

Found RunTrace(const Flags& flags, const std::vector<SimulatedRequest>& requests, RoutingPolicy policy) {
  ClusterSimulationOptions options{.routing = policy, .block_size = kBlockSize};
  for (int i = 0; i < static_cast<int>(flags.Number("--workers", 16)); ++i) {
    options.workers.push_back({.gpu = H200Llama70B(1)});
  }
  const int repetitions = std::max(1, static_cast<int>(flags.Number("--repetitions", 5)));
  Found found;
  for (int i = 0; i < repetitions; ++i) {
    std::vector<SimulatedRequest> faster = requests;
    for (SimulatedRequest& request : faster) request.arrival_ms /= flags.Number("--speed", 1) * (1 + 0.01 * i);
    double cached = 0, tokens = 0;
    for (const RequestResult& result : ClusterSimulation(options).Run(std::move(faster))) {
      cached += result.cached_tokens;
      tokens += result.prompt_tokens;
      found.ttft_ms += result.ttft_ms / static_cast<double>(requests.size()) / repetitions;
    }
    found.shares.push_back(cached / tokens);
  }
  return found;
}

int Trace(const Flags& flags) {
  for (const std::string& file : flags.files) {
    const std::vector<SimulatedRequest> requests =
        ReadTrace(file, static_cast<size_t>(flags.Number("--requests", 1e9)));
    const Found product = RunTrace(flags, requests, RoutingPolicy::kProduct);
    const Found oracle = RunTrace(flags, requests, RoutingPolicy::kOracle);
    const std::string name = file.substr(file.find_last_of('/') + 1);
    const auto [product_least, product_most] = std::ranges::minmax(product.shares);
    const auto [oracle_least, oracle_most] = std::ranges::minmax(oracle.shares);
    std::printf(
        "{\"trace\": \"%s\", \"requests\": %zu, \"repetitions\": %zu, \"found\": %.4f, \"found_min\": %.4f, "
        "\"found_max\": %.4f, \"oracle_found\": %.4f, \"oracle_found_min\": %.4f, \"oracle_found_max\": %.4f, "
        "\"share_of_oracle\": %.4f, \"seen_before\": %.4f, \"ttft_ms_mean\": %.0f, \"oracle_ttft_ms_mean\": %.0f}\n",
        name.c_str(), requests.size(), product.shares.size(), product.share(), product_least, product_most,
        oracle.share(), oracle_least, oracle_most, product.share() / oracle.share(), SeenBefore(requests),
        product.ttft_ms, oracle.ttft_ms);
  }
  return 0;
}

int Main(int argc, char** argv) {
  Flags flags;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word.starts_with("--") && i + 1 < argc)
      flags.numbers[word] = std::atof(argv[++i]);
    else if (flags.mode.empty())
      flags.mode = word;
    else
      flags.files.push_back(word);
  }
  if (flags.mode == "decisions") return Decisions(flags);
  if (flags.mode == "trace" && !flags.files.empty()) return Trace(flags);
  std::fprintf(stderr,
               "usage: routing_bench decisions [--workers N] [--blocks N] [--decisions N]\n"
               "       routing_bench trace FILE… [--workers N] [--requests N] [--speed X] "
               "[--repetitions N]\n");
  return 2;
}

}  // namespace
}  // namespace baton

int main(int argc, char** argv) { return baton::Main(argc, argv); }
