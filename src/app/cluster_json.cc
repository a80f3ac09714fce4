#include "app/cluster_json.h"

#include <algorithm>
#include <boost/json.hpp>
#include <map>

namespace baton {
namespace {

namespace json = boost::json;

const char* RoleName(WorkerRole role) {
  switch (role) {
    case WorkerRole::kPrefill:
      return "prefill";
    case WorkerRole::kDecode:
      return "decode";
    case WorkerRole::kHybrid:
      break;
  }
  return "hybrid";
}

const char* IndexStateName(KvIndex::State state) {
  switch (state) {
    case KvIndex::State::kExact:
      return "exact";
    case KvIndex::State::kStale:
      return "waiting for a snapshot";
    case KvIndex::State::kUnknown:
      break;
  }
  return "nothing reported";
}

json::object IndexObject(const KvIndex::WorkerStats& index) {
  return {{"state", IndexStateName(index.state)}, {"blocks", index.blocks}, {"dispatched_blocks", index.dispatched},
          {"last_change", index.sequence},        {"gaps", index.gaps},     {"snapshots", index.snapshots}};
}

json::object StepTimesObject(const proto::StepTimes& times) {
  json::array points;
  for (int i = 0; i < std::min(times.tokens_size(), times.us_size()); ++i) {
    points.push_back(json::array{times.tokens(i), times.us(i)});
  }
  return {{"tokens_us", std::move(points)},
          {"decode_row_us", times.decode_row_us()},
          {"decode_only_us", times.decode_only_us()},
          {"decode_context_us", times.decode_context_us()},
          {"prefill_context_us", times.prefill_context_us()}};
}

json::object WorkerObject(const WorkerSnapshot& worker) {
  const proto::WorkerStatus& status = worker.status;
  const double total = std::max(1, status.blocks_total());
  return {{"id", worker.id.value},
          {"name", worker.process},
          {"role", RoleName(worker.role)},
          {"state", worker.state},
          {"reason", worker.reason},
          {"device", worker.device},
          {"incarnation", worker.incarnation},
          {"running", status.running()},
          {"waiting", status.waiting()},
          {"held", status.held()},
          {"reservations", status.reservations_held()},
          {"waiting_tokens", status.waiting_tokens()},
          {"blocks",
           {{"total", status.blocks_total()},
            {"free", status.blocks_free()},
            {"cached", status.blocks_cached()},
            {"fenced", status.blocks_fenced()},
            {"size", status.block_size()}}},
          {"kv_usage", 1 - (status.blocks_free() + status.blocks_cached()) / total},
          {"prefill_tokens_per_second", status.prefill_tokens_per_second()},
          {"decode_step_ms", status.decode_step_us() / 1000},
          {"prefix_queries", status.prefix_queries()},
          {"prefix_hits", status.prefix_hits()},
          {"preemptions", status.preemptions()},
          {"handoffs", status.handoffs()},
          {"handoff_bytes", status.handoff_bytes()},
          {"handoff_seconds", status.handoff_seconds()},
          {"handoffs_recomputed", status.recomputed_handoffs()},
          {"blocks_verified", status.blocks_verified()},
          {"blocks_corrupt", status.blocks_corrupt()},
          {"stale_epochs", status.stale_epochs()},
          {"steps", status.steps()},
          {"prefix_index", IndexObject(worker.index)},
          {"prefill_budget",
           worker.profile.prefill_budget() < 0 ? json::value("dial") : json::value(worker.profile.prefill_budget())},
          {"step_times", StepTimesObject(worker.profile.step_times())},
          {"step_time_factor", worker.status.step_time_factor()},
          {"shared_engine", worker.profile.engine()},
          {"dispatched_prefill_tokens", worker.dispatched_prefill_tokens},
          {"dispatched_sequences", worker.dispatched_sequences},
          {"integrity_error", status.integrity_error()}};
}

json::object SelectionObject(const Selection& selection) {
  json::object out{{"decode", selection.decode.value},     {"cost_ms", selection.cost_ms},
                   {"queue_ms", selection.queue_ms},       {"prefill_ms", selection.prefill_ms},
                   {"transfer_ms", selection.transfer_ms}, {"decode_load_ms", selection.decode_load_ms},
                   {"harm_ms", selection.harm_ms},         {"pressure_ms", selection.pressure_ms},
                   {"late_ms", selection.late_ms},         {"itl_ms", selection.itl_ms}};
  out["prefill"] = selection.prefill ? json::value(selection.prefill->value) : json::value(nullptr);
  return out;
}

json::object DecisionObject(const RouteDecision& decision) {
  json::array alternatives;
  for (const Selection& other : decision.alternatives) alternatives.push_back(SelectionObject(other));
  return {{"request", decision.request},
          {"prompt_tokens", decision.prompt_tokens},
          {"attempt", decision.attempt},
          {"reason", decision.reason},
          {"chosen", SelectionObject(decision.chosen)},
          {"alternatives", std::move(alternatives)}};
}

}  // namespace

std::string ClusterJson(const std::vector<WorkerSnapshot>& workers) {
  std::map<uint64_t, std::string> names;
  for (const WorkerSnapshot& worker : workers) names[worker.id.value] = worker.process;
  json::array worker_list, path_list;
  for (const WorkerSnapshot& worker : workers) {
    worker_list.push_back(WorkerObject(worker));
    for (const proto::Path& path : worker.status.paths()) {
      path_list.push_back(json::object{{"from", names[path.prefill_worker()]},
                                       {"to", worker.process},
                                       {"transport", path.transport()},
                                       {"gb_per_s", path.gigabytes_per_second()},
                                       {"warning", path.warning()},
                                       {"bytes", worker.status.handoff_bytes()}});
    }
  }
  return json::serialize(json::object{{"workers", std::move(worker_list)}, {"paths", std::move(path_list)}});
}

std::string DecisionsJson(const std::vector<RouteDecision>& decisions) {
  json::array list;
  for (const RouteDecision& decision : decisions) list.push_back(DecisionObject(decision));
  return json::serialize(json::object{{"decisions", std::move(list)}});
}

std::string DecisionJson(const std::vector<RouteDecision>& decisions, const std::string& request) {
  const auto found =
      std::find_if(decisions.rbegin(), decisions.rend(), [&](const RouteDecision& d) { return d.request == request; });
  return found == decisions.rend() ? "" : json::serialize(DecisionObject(*found));
}

}  // namespace baton
