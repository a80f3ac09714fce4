#include "router/router_metrics.h"

#include <algorithm>

namespace baton {

Router::Metrics::Metrics(MetricRegistry& registry, std::string model_name)
    : registry(registry),
      model_name(std::move(model_name)),
      remote_prefills(registry.AddCounter("baton_route_decisions_total", "Routing decisions by kind.",
                                          {{"kind", "remote_prefill"}})),
      local_prefills(registry.AddCounter("baton_route_decisions_total", "Routing decisions by kind.",
                                         {{"kind", "local_prefill"}})),
      replays(registry.AddCounter("baton_replays_total", "Sequences replayed on another worker.")),
      workers_lost(registry.AddCounter("baton_workers_lost_total", "Sessions to workers that ended.")),
      workers_suspected(registry.AddCounter("baton_workers_suspected_total",
                                            "Workers that fell silent; their sequences went elsewhere.")),
      quarantined(registry.AddCounter("baton_sequences_quarantined_total",
                                      "Sequences that ran alone because workers had died of them or beside them.")),
      refused_deadly(registry.AddCounter("baton_sequences_refused_deadly_total",
                                         "Sequences refused because workers died of them, the last time alone.")) {}

void Router::Metrics::SetWedged(const std::string& engine, bool wedged) {
  registry
      .AddGauge("baton_worker_wedged", "1: the step loop or the transfer plane makes no progress.",
                {{"model_name", model_name}, {"engine", engine}})
      .Set(wedged ? 1 : 0);
}

void Router::Metrics::Update(const std::string& engine, const proto::WorkerStatus& before,
                             const proto::WorkerStatus& now) {
  const MetricLabels labels{{"model_name", model_name}, {"engine", engine}};
  const auto gauge = [&](const char* name, const char* help, double value) {
    registry.AddGauge(name, help, labels).Set(value);
  };
  const auto counter = [&](const char* name, const char* help, double last, double value) {
    registry.AddCounter(name, help, labels).Add(std::max(0.0, value - last));
  };
  const double total = std::max(1, now.blocks_total());
  gauge("vllm:num_requests_running", "Sequences that are being computed.", now.running());
  gauge("vllm:num_requests_waiting", "Sequences that wait for their first step.", now.waiting());
  gauge("vllm:kv_cache_usage_perc", "Share of KV blocks in use, 0 to 1.",
        1 - (now.blocks_free() + now.blocks_cached()) / total);
  counter("vllm:num_preemptions_total", "Sequences preempted for want of KV blocks.", before.preemptions(),
          now.preemptions());
  counter("vllm:prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache.", before.prefix_queries(),
          now.prefix_queries());
  counter("vllm:prefix_cache_hits_total", "Prompt tokens found in the prefix cache.", before.prefix_hits(),
          now.prefix_hits());
  gauge("baton_kv_blocks_fenced", "Blocks that a lost peer could still write.", now.blocks_fenced());
  gauge("baton_sequences_held", "Prefilled sequences that wait to be handed over.", now.held());
  gauge("baton_reservations_held", "Hand-offs for which blocks are reserved.", now.reservations_held());
  counter("baton_handoffs_total", "Hand-offs completed.", before.handoffs(), now.handoffs());
  counter("baton_handoff_bytes_total", "Bytes of KV cache received.", before.handoff_bytes(), now.handoff_bytes());
  counter("baton_handoff_seconds_total", "From the end of prefill until the decode worker could step.",
          before.handoff_seconds(), now.handoff_seconds());
  counter("baton_handoffs_recomputed_total", "Hand-offs that failed and were recomputed.", before.recomputed_handoffs(),
          now.recomputed_handoffs());
  counter("baton_kv_blocks_verified_total", "Blocks that were handed over and compared with what was sent.",
          static_cast<double>(before.blocks_verified()), static_cast<double>(now.blocks_verified()));
  counter("baton_kv_verify_failures_total", "Of them, blocks with other bytes: computed again.",
          static_cast<double>(before.blocks_corrupt()), static_cast<double>(now.blocks_corrupt()));
  counter("baton_stale_epochs_total", "Messages of the hand-off with a stale epoch, refused.", before.stale_epochs(),
          now.stale_epochs());
  gauge("baton_step_time_factor", "Recent steps took so many times what was measured at the start (0: not known).",
        now.step_time_factor());
  counter("baton_step_gaps_total", "Steps that followed another at once (GPUs).",
          static_cast<double>(before.step_gaps()), static_cast<double>(now.step_gaps()));
  counter("baton_step_gap_seconds_total", "How long the GPU lay idle before those steps.", before.step_gap_seconds(),
          now.step_gap_seconds());
  if (now.has_gpu()) {
    gauge("baton_gpu_busy", "Share of time in which some kernel ran on the worker's GPU, 0 to 1.", now.gpu().busy());
    gauge("baton_gpu_power_watts", "Power that the worker's GPU draws.", now.gpu().power_watts());
    gauge("baton_gpu_temperature_celsius", "Temperature of the worker's GPU.", now.gpu().temperature_celsius());
    gauge("baton_gpu_memory_used_bytes", "Memory of the worker's GPU that all processes hold.",
          static_cast<double>(now.gpu().memory_used_bytes()));
  }
  for (const proto::Path& path : now.paths()) {
    MetricLabels with_path = labels;
    with_path.emplace_back("prefill_engine", std::to_string(path.prefill_worker()));
    with_path.emplace_back("transport", path.transport());
    registry.AddGauge("baton_path_gigabytes_per_second", "Measured speed of a hand-off path.", with_path)
        .Set(path.gigabytes_per_second());
  }
}

}  // namespace baton
