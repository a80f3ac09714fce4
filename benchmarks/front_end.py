"""What the front end costs over simulated workers: writes benchmarks/results/front_end_<cpu>_<date>.json, prints a table.

Processor seconds of the front-end process for 1,000 streamed tokens, beside bare send() calls of the same bytes to as many
streams in the same run; the time to the first token that the server adds; its memory. README.md says how.
"""
import argparse
import datetime
import json
import pathlib
import re
import statistics
import subprocess
import time

import machine
import processes

CASES = [  # name, workers, streams, prompt tokens, step ms
    ("hybrid", 32, 100, 20), ("hybrid", 100, 100, 20), ("hybrid", 1000, 100, 50),
    ("hybrid", 32, 3000, 20), ("1P1D", 32, 100, 20), ("hybrid", 1000, 3000, 50)]
TOPOLOGIES = {"hybrid": ["--hybrid", "1x1"], "1P1D": ["--prefill", "1x1", "--decode", "1x1"]}
TOKENS = 150
GOAL_S = 0.004  # beyond the bare sends
TTFT_STEP_MS, TTFT_GOAL_MS, IDLE_GOAL_MB, STREAMS_GOAL_MB = 2, 0.5, 40, 120


def start(workers, step_ms):
    """The demo model's tokenizer, and engines that only wait."""
    profile = f"step_us={1000 * step_ms},prefill_us=1,blocks=110000,vocabulary=49152"
    # The targets are of no concern here: with steps beyond them prompts would wait for the dial.
    return processes.Server([processes.MODEL, "--sim", profile, "--max-num-seqs", 1024, *TOPOLOGIES[workers],
                             "--max-requests", 4096, "--itl-target-ms", 1000])


def front_end_memory_mb(server, field):
    for line in pathlib.Path(f"/proc/{server.pids()['frontend']}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1e3
    raise SystemExit(f"no {field} in the front end's status")


def bare_sends(streams, step_ms, bytes_each):
    done = subprocess.run([processes.BUILD / "benchmarks" / "bare_sends", str(streams), str(TOKENS), str(step_ms), str(bytes_each)],
                          capture_output=True, text=True, check=True)
    return float(re.search(r"cpu_s_per_1000=([0-9.]+)", done.stdout)[1])


def event_bytes(server):
    """Bytes on the wire of one streamed token, with its chunk's frame."""
    import http.client
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    model = server.get("/v1/models")["data"][0]["id"]
    connection.request("POST", "/v1/completions", json.dumps(
        {"model": model, "prompt": "a", "max_tokens": 64, "min_tokens": 64, "ignore_eos": True, "stream": True,
         "skip_special_tokens": False}), {"Content-Type": "application/json"})
    body = connection.getresponse().read()
    events = body.count(b"data: {")
    connection.close()
    frame = 7  # two sizes' ends and three hexadecimal digits: "11f\r\n" … "\r\n"
    return round(len(body) / events) + frame


def measure(workers, streams, prompt_tokens, step_ms, repetitions):
    with start(workers, step_ms) as server:
        idle_mb = front_end_memory_mb(server, "VmRSS:")
        pathlib.Path(f"/proc/{server.pids()['frontend']}/clear_refs").write_text("5")  # the peak of what follows, not of its start
        size = event_bytes(server)
        settings = {"concurrency": streams, "requests": streams, "warmup": 0, "input_tokens": prompt_tokens, "output_tokens": TOKENS}
        processes.load(server, text_prompts=True, **settings)  # connections, first allocations
        runs = []
        for seed in range(repetitions):
            before = server.cpu()["frontend"][0]
            result = processes.load(server, text_prompts=True, seed=1000 + seed, **settings)
            spent = server.cpu()["frontend"][0] - before
            bare = bare_sends(streams, step_ms, size)
            tokens = result["output_tokens"]
            if result["failed"]:
                raise SystemExit(f"{streams} streams: {result['failed']} requests failed")
            runs.append({"front_end_s": 1000 * spent / tokens, "bare_s": bare, "client_s": 1000 * result["client_cpu_s"] / tokens,
                         "itl_ms_mean": result["itl_ms"]["mean"], "itl_ms_p99": result["itl_ms"]["p99"]})
        row = {"workers": workers, "streams": streams, "prompt_tokens": prompt_tokens, "output_tokens": TOKENS, "step_ms": step_ms,
               "event_bytes": size, "repetitions": repetitions,
               **{key: statistics.median(run[key] for run in runs) for key in runs[0]},
               "beyond_bare_s": statistics.median(run["front_end_s"] - run["bare_s"] for run in runs),
               "front_end_idle_mb": idle_mb, "front_end_peak_mb": front_end_memory_mb(server, "VmHWM:")}
        print(f"{workers:7} {streams:5} {prompt_tokens:7} {row['front_end_s']:11.4f} {row['bare_s']:8.4f} {row['beyond_bare_s']:8.4f} "
              f"{row['client_s']:8.4f} {row['itl_ms_mean']:7.1f} {idle_mb:8.0f} {row['front_end_peak_mb']:7.0f}", flush=True)
        return row


def measure_ttft(prompt_tokens):
    """What one client at a time waits beyond the engine's one step."""
    with start("hybrid", TTFT_STEP_MS) as server:
        result = processes.load(server, concurrency=1, requests=100, warmup=10, input_tokens=prompt_tokens, output_tokens=2, text_prompts=True)
        engine_ms = TTFT_STEP_MS + 1e-3 * prompt_tokens
        return {"prompt_tokens": prompt_tokens, "engine_ms": engine_ms, "ttft_ms_p50": result["ttft_ms"]["p50"],
                "added_ms_p50": result["ttft_ms"]["p50"] - engine_ms}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=3, help="of each load [3]")
    parser.add_argument("--limit-s", type=float, default=600, help="seconds after which no further load begins [600]")
    parser.add_argument("--quick", action="store_true", help="only 32 and 100 streams with short prompts")
    parser.add_argument("--out", type=pathlib.Path, help="file [benchmarks/results/front_end_<cpu>_<date>.json]")
    arguments = parser.parse_args()
    now = datetime.datetime.now(datetime.timezone.utc)
    about = machine.describe()
    print("workers streams  prompt   front end     bare   beyond   client     ITL  idle MB peak MB     (CPU s for 1,000 tokens)")
    cases = [case for case in CASES if not arguments.quick or (case[0] == "hybrid" and case[1] <= 100 and case[2] <= 100)]
    started = time.monotonic()
    result = {"benchmark": "front_end", "schema": 1, "date": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
              "commit": machine.git_commit(processes.ROOT), "machine": about, "goal_beyond_bare_s": GOAL_S,
              "ttft": [measure_ttft(tokens) for tokens in (100, 3000)], "loads": []}
    for case in cases:
        if time.monotonic() - started < arguments.limit_s:
            result["loads"].append(measure(*case, arguments.repetitions))
    for row in result["ttft"]:
        print(f"one at a time, {row['prompt_tokens']} tokens: first token {row['added_ms_p50']:.2f} ms (p50) beyond the engine's "
              f"{row['engine_ms']:.2f} ms")
    missed = [f"{row['streams']} streams, {row['prompt_tokens']} tokens, {row['workers']}: {row['beyond_bare_s']:.4f} s beyond bare sends"
              for row in result["loads"] if row["prompt_tokens"] <= 100 and row["beyond_bare_s"] > GOAL_S]
    missed += [f"{row['added_ms_p50']:.2f} ms added to the first token" for row in result["ttft"][:1] if row["added_ms_p50"] > TTFT_GOAL_MS]
    missed += [f"{row['front_end_idle_mb']:.0f} MB idle" for row in result["loads"][:1] if row["front_end_idle_mb"] > IDLE_GOAL_MB]
    missed += [f"{row['front_end_peak_mb']:.0f} MB with {row['streams']} streams of {row['prompt_tokens']} tokens"
               for row in result["loads"] if row["streams"] >= 1000 and row["front_end_peak_mb"] > STREAMS_GOAL_MB]
    result["missed"] = missed
    for line in missed:
        print(f"goal missed: {line}")
    path = machine.write_result(result, processes.ROOT, arguments.out)
    print(f"written: {path}")


if __name__ == "__main__":
    main()
