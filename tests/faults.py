"""Faults and overload with a clock beside them, on simulated engines. Each command prints what it found and says by its exit
code whether it was within its limits; --json keeps it.

    python3 tests/faults.py overload    ten times as many requests as the server can answer, for a minute
    python3 tests/faults.py cancel      clients that leave, and deadlines that pass, in the middle of a long prefill
    python3 tests/faults.py peers       a prefill worker that never answers the hand-off, and one whose path crawls
"""
import argparse
import asyncio
import datetime
import json
import os
import pathlib
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time

from chaos import percentile
from serving import serving

ROOT = pathlib.Path(__file__).resolve().parent.parent


def prompt(index, tokens):
    return [(index * 7919 + i * 104729) % 30000 + 2 for i in range(tokens)]


# ---- overload ----

OVERLOAD = ["--sim", "step_us=20000,prefill_us=20,blocks=2048", "--prefill", "1x1", "--decode", "1x1", "--max-num-seqs", "8",
            "--max-requests", "32"]
TOKENS_IN, TOKENS_OUT = 100, 16


def resident_mib(pids):
    pages = 0
    for pid in pids:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            pages += int(file.read().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 2**20


def bench(build_dir, server, folder, *arguments):
    path = folder / "bench.json"
    command = [build_dir / "baton", "bench", "serve", f"http://127.0.0.1:{server.port}", "--input-tokens", TOKENS_IN,
               "--output-tokens", TOKENS_OUT, "--json", path, *arguments]
    subprocess.run(list(map(str, command)), check=False, capture_output=True)  # it fails when requests do, as they shall
    return json.loads(path.read_text())


def overload(build_dir, folder, seconds=60.0, factor=10):
    """Goodput under a load that is `factor` times the capacity, which a closed loop measures first on the same server."""
    samples, advice, stop = [], [], threading.Event()
    with serving(build_dir, OVERLOAD, folder, "overload") as server:
        closed = bench(build_dir, server, folder, "--concurrency", 24, "--requests", max(150, int(seconds * 10)))
        capacity = closed["requests_per_second"]

        def watch():
            while not stop.wait(0.25):
                samples.append(resident_mib(server.child_pids()))
                try:  # what one that is turned away is told
                    status, headers = head(server.port, {"prompt": prompt(len(samples), TOKENS_IN), "max_tokens": 1})
                    if status == 429:
                        advice.append(float(headers["retry-after"]))
                except OSError:
                    pass
        watcher = threading.Thread(target=watch)
        watcher.start()
        load = bench(build_dir, server, folder, "--request-rate", factor * capacity, "--requests", int(factor * capacity * seconds),
                     "--warmup", 0)
        stop.set()
        watcher.join()
        server.wait_nothing_left(10)
        quarter = max(1, len(samples) // 4)
        errors = {}
        for kind, count in load["errors"].items():  # the message says when to come again
            kind = "HTTP 429" if kind.startswith("HTTP 429") else kind
            errors[kind] = errors.get(kind, 0) + count
        return {"capacity_per_second": round(capacity, 2), "offered_per_second": round(factor * capacity, 1),
                "answered": load["succeeded"], "refused": load["failed"], "errors": errors,
                "answered_per_second": round(load["requests_per_second"], 2),
                "goodput_share": round(load["requests_per_second"] / capacity, 3), "seconds": round(load["duration_s"], 1),
                "ttft_ms_p50": load["ttft_ms"]["p50"], "ttft_ms_p99": load["ttft_ms"]["p99"],
                "retry_after_s": {"count": len(advice), "min": min(advice, default=None), "max": max(advice, default=None)},
                "memory_mib": {"first_quarter": round(max(samples[:quarter]), 1), "last_quarter": round(max(samples[-quarter:]), 1)}}


def head(port, body, timeout_s=30):
    """Status and headers of an answer, which is read to its end."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
        data = json.dumps(body).encode()
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
                           b"Content-Length: %d\r\n\r\n" % len(data) + data)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    lines = answer.split(b"\r\n\r\n")[0].decode().split("\r\n")
    return int(lines[0].split()[1]), {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}


def check_overload(found):
    problems = []
    if found["goodput_share"] < 0.9:
        problems.append(f"goodput is {found['goodput_share']:.2f} of the capacity")
    others = {kind: count for kind, count in found["errors"].items() if "429" not in kind}
    if others:
        problems.append(f"refused otherwise than by 429: {others}")
    if not found["retry_after_s"]["count"] or found["retry_after_s"]["min"] < 1:
        problems.append("no 429 said when to come again")
    memory = found["memory_mib"]
    if memory["last_quarter"] > 1.1 * memory["first_quarter"] + 8:
        problems.append(f"memory grows: {memory}")
    return problems


# ---- cancel in the middle of a long prefill ----

CHUNK_TOKENS, CHUNK_MS = 256, 256
LONG_PREFILL = ["--sim", "prefill_us=1000,blocks=1024", "--prefill", "1x1", "--decode", "1x1", "--max-num-seqs", "32",
                "--max-num-batched-tokens", CHUNK_TOKENS, "--max-local-prefill", "0"]
LONG_PROMPT = 4000  # tokens: four seconds


def seconds_until_free(server, timeout_s=10):
    """Until neither worker has a sequence, a reservation or a block of it. Workers report ten times a second at most."""
    started = time.monotonic()
    server.wait_nothing_left(timeout_s)
    return time.monotonic() - started


def cancel(build_dir, folder, rounds=30, seed=1):
    """How long both workers stay busy after a client has left, and after a deadline has passed."""
    rng = random.Random(seed)
    times = {"disconnect": [], "deadline": []}
    with serving(build_dir, LONG_PREFILL, folder, "cancel") as server:
        for number in range(rounds):
            body = {"prompt": prompt(number, LONG_PROMPT), "max_tokens": 20}
            steps = server.worker("prefill-0")["steps"]
            with socket.create_connection(("127.0.0.1", server.port)) as connection:
                data = json.dumps(body).encode()
                connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                                   b"Content-Length: %d\r\n\r\n" % len(data) + data)
                server.wait_until(lambda steps=steps: server.worker("prefill-0")["steps"] > steps)
                time.sleep(rng.uniform(0, 1))
            times["disconnect"].append(seconds_until_free(server))
            deadline_ms = rng.randint(600, 1600)
            body["prompt"] = prompt(1000 + number, LONG_PROMPT)
            started = time.monotonic()
            status, _ = server.request("POST", "/v1/completions", body, {"x-request-timeout-ms": str(deadline_ms)})
            assert status == 504, status
            seconds_until_free(server)
            times["deadline"].append(time.monotonic() - started - deadline_ms / 1000)
    return {"chunk_ms": CHUNK_MS, "report_interval_ms": 100,
            **{kind: {"count": len(taken), "ms": {name: round(1e3 * percentile(taken, share), 1)
                                                  for name, share in [("p50", .5), ("p90", .9), ("max", 1.0)]},
                      "histogram_ms": histogram(taken)} for kind, taken in times.items()}}


def histogram(seconds, width_ms=50):
    counts = {}
    for value in seconds:
        begin = int(1e3 * value // width_ms * width_ms)
        counts[begin] = counts.get(begin, 0) + 1
    return {f"{begin}-{begin + width_ms}": counts[begin] for begin in sorted(counts)}


def check_cancel(found):
    limit = found["chunk_ms"] + found["report_interval_ms"] + 100  # the last for the polling of both
    return [f"after a {kind} a worker was busy for {found[kind]['ms']['max']} ms, and a chunk takes {found['chunk_ms']}"
            for kind in ("disconnect", "deadline") if found[kind]["ms"]["max"] > limit]


# ---- peers that do not answer, or crawl ----

# One prefill worker alone has the capacity for the load.
PEERS = ["--sim", "step_us=5000,prefill_us=100,blocks=4096", "--prefill", "2x1", "--decode", "2x1", "--max-local-prefill", "0"]
FAULTS = {"none": [], "never answers": ["--mute-handoff", "--faults-on", "prefill-1"],
          "crawls": ["--transfer-throttle-gbps", "0.00002", "--faults-on", "prefill-1"]}
GOOD_PEER = 1  # prefill-0
DEADLINE_MS = 2000


async def timed(port, body):
    """(status, seconds, id of the worker that prefilled it or None)."""
    started = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        data = json.dumps(body).encode()
        writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
                     b"x-baton-explain: 1\r\nx-request-timeout-ms: %d\r\nContent-Length: %d\r\n\r\n" % (DEADLINE_MS, len(data)) + data)
        answer = await asyncio.wait_for(reader.read(), 3 * DEADLINE_MS / 1000)
    finally:
        writer.close()
    top, _, rest = answer.partition(b"\r\n\r\n")
    worker = re.search(rb'"prefill_worker":(\d+)', rest)
    return int(top.split()[1]), time.monotonic() - started, int(worker[1]) if worker else None


async def closed_loop(port, requests, concurrency):
    results, queue = [], iter(range(requests))

    async def client():
        for number in queue:
            results.append(await timed(port, {"prompt": prompt(number, 300), "max_tokens": 20, "ignore_eos": True}))
    await asyncio.gather(*(client() for _ in range(concurrency)))
    return results


def peers(build_dir, folder, requests=400, concurrency=4):
    found = {"deadline_ms": DEADLINE_MS}
    for name, fault in FAULTS.items():
        with serving(build_dir, [*PEERS, *fault, "--wedged-restart-ms", "4000"], folder, name.replace(" ", "-")) as server:
            asyncio.run(closed_loop(server.port, 4 * concurrency, concurrency))  # rates are known
            results = asyncio.run(closed_loop(server.port, requests, concurrency))
            answered = [seconds for status, seconds, _ in results if status == 200]
            # Those that the bad peer had nothing to do with. Of the others some were rescued when it was started again.
            others = [seconds for status, seconds, worker in results if status == 200 and worker == GOOD_PEER]
            found[name] = {"requests": len(results), "answered": len(answered), "by_the_good_peer": len(others),
                           "timed_out": sum(status == 504 for status, _, _ in results),
                           "longest_ms": round(1e3 * max(seconds for _, seconds, _ in results), 1),
                           "others_ms": {key: round(1e3 * percentile(others, share), 1) for key, share in [("p50", .5), ("p99", .99)]}}
            if name == "never answers":  # it lives, and says no last word: it is started again
                server.wait_until(lambda: server.worker("prefill-1")["incarnation"] > 1, 20)
            server.wait_until(lambda: all(worker["state"] == "ready" for worker in server.workers()))
            server.wait_nothing_left(10)
    return found


def check_peers(found):
    problems = []
    for name in FAULTS:
        one = found[name]
        if one["answered"] + one["timed_out"] != one["requests"]:
            problems.append(f"{name}: answers that are neither whole nor a time-out")
        if one["longest_ms"] > DEADLINE_MS + 250:
            problems.append(f"{name}: a client waited for {one['longest_ms']} ms with a deadline of {DEADLINE_MS}")
        if one["others_ms"]["p99"] > 2 * found["none"]["others_ms"]["p99"] + 20:
            problems.append(f"{name}: p99 of the others went from {found['none']['others_ms']['p99']} to {one['others_ms']['p99']} ms")
    if found["never answers"]["timed_out"] > 16:  # those that were sent to it before anybody could know
        problems.append(f"{found['never answers']['timed_out']} requests waited for a peer that was known not to answer")
    if found["none"]["timed_out"] or found["crawls"]["timed_out"]:
        problems.append("requests timed out that had another way")
    return problems


CHECKS = {"overload": (overload, check_overload), "cancel": (cancel, check_cancel), "peers": (peers, check_peers)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=CHECKS)
    parser.add_argument("--build", default=os.environ.get("BATON_BUILD", "build"))
    parser.add_argument("--json", help="file for the result")
    parser.add_argument("--keep", help="folder for the servers' logs")
    flags = parser.parse_args()
    folder = pathlib.Path(flags.keep or tempfile.mkdtemp(prefix="baton-faults-"))
    folder.mkdir(parents=True, exist_ok=True)
    measure, check = CHECKS[flags.what]
    found = measure(pathlib.Path(flags.build).resolve(), folder)
    problems = check(found)
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import machine
    result = {"what": flags.what, "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
              "machine": machine.describe(), "commit": machine.git_commit(ROOT), "problems": problems, **found}
    print(json.dumps(result, indent=1))
    if flags.json:
        pathlib.Path(flags.json).write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
