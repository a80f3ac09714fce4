"""Routing: what a decision costs and what it finds on traces. Writes benchmarks/results/routing_<cpu>_<date>.json.

    routing.py [TRACE.jsonl …]          traces in Mooncake's format; without one only decisions are timed
"""
import argparse
import datetime
import json
import pathlib
import subprocess

import machine
import processes

P99_GOAL_US = 100


def routing_bench(*arguments):
    done = subprocess.run([processes.BUILD / "benchmarks" / "routing_bench", *map(str, arguments)], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", nargs="*", type=pathlib.Path)
    parser.add_argument("--repetitions", type=int, default=5, help="of each trace, each a hundredth faster [5]")
    parser.add_argument("--out", type=pathlib.Path, help="file [benchmarks/results/routing_<cpu>_<date>.json]")
    arguments = parser.parse_args()
    now = datetime.datetime.now(datetime.timezone.utc)
    about = machine.describe()
    runs = sorted((routing_bench("decisions")[0] for _ in range(3)), key=lambda run: run["p99_us"])
    result = {"benchmark": "routing", "schema": 1, "date": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
              "commit": machine.git_commit(processes.ROOT), "machine": about, "p99_goal_us": P99_GOAL_US, "decisions": runs[0],
              "decisions_p99_us_of_each_run": [run["p99_us"] for run in runs],
              "traces": [row for trace in arguments.traces for row in routing_bench("trace", trace, "--repetitions", arguments.repetitions)]}
    decision = result["decisions"]
    print(f"a decision among {decision['workers']} workers and {decision['indexed_blocks']} blocks: p50 {decision['p50_us']:.0f}, "
          f"p99 {decision['p99_us']:.0f} us (goal {P99_GOAL_US}), worst {decision['worst_us']:.0f} us")
    for row in result["traces"]:
        print(f"{row['trace']}: found {row['found']:.1%} of the prompt tokens ({row['found_min']:.1%} to {row['found_max']:.1%}), an oracle "
              f"{row['oracle_found']:.1%} ({row['oracle_found_min']:.1%} to {row['oracle_found_max']:.1%}), seen before {row['seen_before']:.1%}; "
              f"mean TTFT {row['ttft_ms_mean']:.0f} ms, oracle {row['oracle_ttft_ms_mean']:.0f} ms")
    path = machine.write_result(result, processes.ROOT, arguments.out)
    print(f"written: {path}")


if __name__ == "__main__":
    main()
