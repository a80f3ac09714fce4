// The table for people.
#include <cstdarg>
#include <cstdio>

#include "bench/report.h"

namespace baton {
namespace {

constexpr double kWaitShareMax = 0.02;  // of the run; more of it blurs every figure

[[gnu::format(printf, 2, 3)]] void Print(std::string& out, const char* format, ...) {
  char line[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(line, sizeof(line), format, arguments);
  va_end(arguments);
  out += line;
}

void AddRow(std::string& out, const char* name, const Distribution& row) {
  if (row.count == 0) return Print(out, "  %-14s %9s\n", name, "-");
  Print(out, "  %-14s %9.2f %9.2f %9.2f %9.2f %9.2f %9.2f\n", name, row.mean, row.p50(), row.p90(), row.p99(), row.min,
        row.max);
}

void AddLoad(std::string& out, const Workload& load) {
  if (load.requests_per_second > 0) {
    Print(out, "  open loop, %g requests/s", load.requests_per_second);
  } else {
    Print(out, "  closed loop, %d at a time", load.concurrency);
  }
  Print(out, ": %d requests of %d tokens in, %d out", load.requests, load.input_tokens, load.output_tokens);
  if (load.shared_prefix_tokens > 0) Print(out, ", %d shared", load.shared_prefix_tokens);
  Print(out, " (%d to warm up, seed %llu)\n", load.warmup, static_cast<unsigned long long>(load.seed));
}

void AddRates(std::string& out, const ReportContext& context, const Figures& figures) {
  Print(out, "  output         %10.1f tokens/s, %.1f for each user\n", figures.output_tokens_per_second,
        figures.tokens_per_second_per_user);
  Print(out, "  prompts        %10.1f tokens/s, %.1f %% of them cached\n", figures.prompt_tokens_per_second,
        figures.prompt_tokens > 0
            ? 100.0 * static_cast<double>(figures.cached_tokens) / static_cast<double>(figures.prompt_tokens)
            : 0.0);
  Print(out, "  requests       %10.2f a second\n", figures.requests_per_second);
  Print(out, "  goodput        %10.2f a second (%lld of %lld) with TTFT <= %g ms and TPOT <= %g ms\n",
        figures.goodput_per_second, static_cast<long long>(figures.good_requests),
        static_cast<long long>(figures.succeeded + figures.failed), context.targets.ttft_ms, context.targets.itl_ms);
}

void AddNotes(std::string& out, const ReportContext& context, const Figures& figures) {
  if (figures.pieces < figures.output_tokens) {
    Print(out, "  note: %lld of %lld tokens came together with another; ITL counts what came apart\n",
          static_cast<long long>(figures.output_tokens - figures.pieces),
          static_cast<long long>(figures.output_tokens));
  }
  if (context.client_wait_seconds > kWaitShareMax * figures.seconds) {
    Print(out, "  note: this client waited %.2f s for a processor; times of arrival are late by as much\n",
          context.client_wait_seconds);
  }
  if (!context.prefix_cache_reset) out += "  note: the server's prefix cache could not be emptied before the run\n";
  if (context.workload.requests_per_second > 0 && figures.send_lag_ms.p99() > 5) {
    Print(out, "  note: this client was late by %.1f ms (p99); the arrivals were not quite those asked for\n",
          figures.send_lag_ms.p99());
  }
}

}  // namespace

std::string FormatTable(const ReportContext& context, const Figures& figures) {
  std::string out = Cat("\n  ", context.model, " at ", context.url, "\n");
  AddLoad(out, context.workload);
  Print(out, "  %lld done, %lld failed, in %.2f s (%.2f s of CPU here)\n\n", static_cast<long long>(figures.succeeded),
        static_cast<long long>(figures.failed), figures.seconds, context.client_cpu_seconds);
  for (const auto& [kind, count] : figures.errors) {
    out += Cat("  failed: ", count, " × ", kind, "\n");
  }
  if (!figures.errors.empty()) out += "\n";
  Print(out, "  %-14s %9s %9s %9s %9s %9s %9s\n", "milliseconds", "mean", "p50", "p90", "p99", "min", "max");
  AddRow(out, "TTFT", figures.ttft_ms);
  AddRow(out, "ITL", figures.itl_ms);
  AddRow(out, "TPOT", figures.tpot_ms);
  AddRow(out, "end to end", figures.e2e_ms);
  out += "\n";
  AddRates(out, context, figures);
  AddNotes(out, context, figures);
  return out;
}

}  // namespace baton
