"""Measures the demo model on this machine: writes benchmarks/results/demo_model_<cpu>_<date>.json and prints a table.

Every speed stands beside its floor, measured in the same run. README.md in this folder says what each figure means.
"""
import argparse
import datetime
import pathlib
import statistics
import sys
import time

import machine
import processes

SHARE_MIN = 0.9         # of the processor time that server and client were ready to use
LOADS = [  # input tokens, output tokens, concurrency, requests
    (512, 64, 1, 4), (512, 64, 8, 16), (128, 128, 1, 4), (128, 128, 8, 16)]
TOPOLOGIES = {"hybrid": ["--hybrid", "1x1"], "1P1D": ["--prefill", "1x1", "--decode", "1x1"]}


def say(text):
    print(text, file=sys.stderr, flush=True)


def repeat(measure, count, limit_s):
    """Runs `measure` until `count` repetitions were not disturbed, at most twice as often and, once there is a first one,
    no longer than `limit_s`. Returns (kept, all, whether enough were undisturbed)."""
    runs, started = [], time.monotonic()
    while len(runs) < 2 * count and sum(run["cpu_share"] >= SHARE_MIN for run in runs) < count:
        if runs and time.monotonic() - started > limit_s:
            break
        runs.append(measure())
    quiet = [run for run in runs if run["cpu_share"] >= SHARE_MIN]
    enough = len(quiet) >= count
    kept = quiet if enough else sorted(runs, key=lambda run: -run["cpu_share"])[:count]
    return kept, runs, enough


def share(before, after, result):
    """Of the time that the server's threads and the client were ready to run, the part in which they did."""
    run = sum(after[name][0] - before[name][0] for name in after) + result["client_cpu_s"]
    wait = sum(after[name][1] - before[name][1] for name in after) + result["client_wait_s"]
    return run / (run + wait) if run + wait > 0 else 1.0


def medians(runs):
    """The median of every number; runs are dicts of the same shape."""
    return {key: medians([run[key] for run in runs]) if isinstance(value, dict) else statistics.median(run[key] for run in runs)
            for key, value in runs[0].items()}


def measure_load(server, floor_tokens_per_second, load, effort):
    input_tokens, output_tokens, concurrency, requests = load
    requests, warmup = (concurrency, 1) if effort.quick else (requests, concurrency)

    def once():
        before = server.cpu()
        result = processes.load(server, concurrency=concurrency, requests=requests, warmup=warmup,
                                input_tokens=input_tokens, output_tokens=output_tokens)
        after = server.cpu()
        pick = ("mean", "p50", "p99")
        streamed = result["output_tokens"] + warmup * output_tokens  # the warm-up's tokens cost CPU as well
        return {"cpu_share": share(before, after, result),
                "ttft_ms": {key: result["ttft_ms"][key] for key in pick},
                "itl_ms": {key: result["itl_ms"][key] for key in pick},
                "tpot_mean_ms": result["tpot_ms"]["mean"],
                "output_tokens_per_second": result["output_tokens_per_second"],
                "frontend_cpu_s_per_1000_tokens": (after["frontend"][0] - before["frontend"][0]) / streamed * 1000}

    kept, runs, enough = repeat(once, effort.repetitions, effort.limit_s)
    out = {"input_tokens": input_tokens, "output_tokens": output_tokens, "concurrency": concurrency, "requests": requests,
           "repetitions": len(kept), "dropped": len(runs) - len(kept), "undisturbed": enough, **medians(kept)}
    if concurrency == 1:
        out["decode_tokens_per_second"] = 1000 / out["tpot_mean_ms"]
        out["share_of_read_floor"] = out["decode_tokens_per_second"] / floor_tokens_per_second
    return out


def measure_handoff(server, prompts=9, prompt_tokens=512):
    """Single requests: from the end of prefill to when the decode worker can step, and the path."""
    model = server.get("/v1/models")["data"][0]["id"]
    rows = []
    for i in range(prompts):
        prompt = [1000 + (i * prompt_tokens + j) % 40000 for j in range(prompt_tokens)]
        body = {"model": model, "prompt": prompt, "max_tokens": 4, "min_tokens": 4, "ignore_eos": True, "temperature": 0}
        answer = server.exchange("POST", "/v1/completions", body, {"x-baton-explain": "1"})
        handoff = answer["baton"]["choices"][0]["handoff"] if answer else None
        if handoff:
            rows.append(handoff)
    if not rows:
        raise SystemExit(f"none of {prompts} prompts of {prompt_tokens} tokens was handed over")
    paths = server.get("/cluster")["paths"]
    return {"prompt_tokens": prompt_tokens, "count": len(rows), "bytes": rows[-1]["bytes"], "path": rows[-1]["path"],
            "after_prefill_ms_p50": statistics.median(row["after_prefill_ms"] for row in rows),
            "path_gb_per_s": paths[0]["gb_per_s"] if paths else None}


def measure_topology(name, arguments, bandwidth, effort):
    say(f"{name}: {' '.join(arguments)}")
    with processes.Server([processes.MODEL, *arguments]) as server:
        out = {"name": name, "arguments": arguments, "start_up": server.start_up, "loads": []}
        for load in LOADS:
            row = measure_load(server, bandwidth["median_gb_s"] * 1e9 / processes.WEIGHT_BYTES, load, effort)
            say(f"  {load[0]} in, {load[1]} out, {load[2]} at a time: {row['output_tokens_per_second']:.1f} tokens/s "
                f"(CPU share {row['cpu_share']:.2f})")
            out["loads"].append(row)
        if "--prefill" in arguments:
            out["handoff"] = measure_handoff(server)
        out["memory"] = server.memory()
    return out


def print_tables(result):
    print(f"\n{result['machine']['cpu']}, {result['machine']['cores']} cores, {result['date']}, commit {result['commit']}")
    bandwidth = result["read_bandwidth"]
    print(f"reading memory: {bandwidth['median_gb_s']:.1f} GB/s, so at most {result['floor_tokens_per_second']:.0f} tokens/s at batch 1\n")
    print("topology   in/out   at once   TTFT p50   ITL p50    ITL p99   tokens/s   of the floor   CPU share")
    for topology in result["topologies"]:
        for row in topology["loads"]:
            floor = f"{100 * row['share_of_read_floor']:.0f} %" if "share_of_read_floor" in row else "-"
            lengths = f"{row['input_tokens']}/{row['output_tokens']}"
            print(f"{topology['name']:9} {lengths:>8} {row['concurrency']:8} {row['ttft_ms']['p50']:8.1f} ms {row['itl_ms']['p50']:6.2f} ms "
                  f"{row['itl_ms']['p99']:7.2f} ms {row['output_tokens_per_second']:8.1f} {floor:>13} {row['cpu_share']:10.2f}")
    for topology in result["topologies"]:
        memory = ", ".join(f"{name} {size['rss_mb']:.0f} ({size['pss_mb']:.0f})" for name, size in topology["memory"].items())
        print(f"\n{topology['name']}: healthy {topology['start_up']['health_s']:.2f} s after its start, all workers ready "
              f"{topology['start_up']['all_workers_ready_s']:.2f} s\n  resident MB (shared pages divided): {memory}")
        if "handoff" in topology:
            row = topology["handoff"]
            print(f"  hand-off of {row['prompt_tokens']} tokens: {row['after_prefill_ms_p50']:.2f} ms (p50) after prefill, "
                  f"{row['bytes'] / 1e6:.1f} MB; {row['path']}")
    for note in result["notes"]:
        print(f"\nnote: {note}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=3, help="of each load that count [3]")
    parser.add_argument("--limit-s", type=float, default=60, help="seconds after which no further repetition begins [60]")
    parser.add_argument("--quick", action="store_true", help="as many requests as run at once, and no more")
    parser.add_argument("--out", type=pathlib.Path, help="file [benchmarks/results/demo_model_<cpu>_<date>.json]")
    arguments = parser.parse_args()
    bandwidth = processes.ceiling("read_bandwidth")
    say(f"reading memory: {bandwidth['median_gb_s']:.1f} GB/s")
    now = datetime.datetime.now(datetime.timezone.utc)
    about = machine.describe()
    result = {"benchmark": "demo_model", "schema": 1, "date": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
              "commit": machine.git_commit(processes.ROOT), "quick": arguments.quick, "model": processes.MODEL.name, "machine": about,
              "read_bandwidth": bandwidth, "weight_bytes_per_step": processes.WEIGHT_BYTES,
              "floor_tokens_per_second": bandwidth["median_gb_s"] * 1e9 / processes.WEIGHT_BYTES,
              "topologies": [measure_topology(name, flags, bandwidth, arguments) for name, flags in TOPOLOGIES.items()],
              "notes": []}
    rows = [row for topology in result["topologies"] for row in topology["loads"]]
    disturbed = [row for row in rows if not row["undisturbed"]]
    if disturbed:
        result["notes"].append(f"the machine was shared: in {len(disturbed)} of {len(rows)} measurements too few repetitions got "
                               f"{SHARE_MIN:.0%} of the processor time they were ready to use (as little as "
                               f"{min(row['cpu_share'] for row in disturbed):.0%}); their times are upper bounds")
    path = machine.write_result(result, processes.ROOT, arguments.out)
    print_tables(result)
    print(f"\nwritten: {path}")


if __name__ == "__main__":
    main()
