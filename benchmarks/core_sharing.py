"""What prefill beside it does to a decode worker's latency, where both share a machine's cores: writes JSON to stdout.

One prefill and one decode worker. A client streams tokens, first alone, then while another sends long prompts that all
go to the prefill worker. The goal: the 99th percentile between tokens at most doubles.
"""
import argparse
import http.client
import json
import random
import statistics
import sys
import threading
import time

import machine
import processes

SERVE = ["--prefill", "1x1", "--decode", "1x1", "--device", "cpu", "--max-local-prefill", "0", "--prefill-budget", "0"]
WORDS = "river stone light paper green house water early train music seven carry floor".split()
GOAL = 2.0


def between_tokens(server, count):
    """Milliseconds from one chunk of a streamed answer to the next."""
    body = {"model": server.get("/v1/models")["data"][0]["id"], "prompt": "Once upon a time", "max_tokens": count, "temperature": 0, "ignore_eos": True,
            "stream": True}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        raise SystemExit(f"expected an answer, found {response.status}: {response.read().decode(errors='replace')}")
    times = []
    for line in response:
        if line.startswith(b"data: {"):
            times.append(time.monotonic())
    connection.close()
    return [1e3 * (b - a) for a, b in zip(times[1:], times[2:])]  # the first gap is the hand-off


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def summary(gaps):
    return {"tokens": len(gaps), "p50_ms": round(statistics.median(gaps), 2), "p99_ms": round(percentile(gaps, 0.99), 2),
            "max_ms": round(max(gaps), 2)}


def prefill_until(stop, server, tokens, done):
    """Prompts that share nothing, one after the other."""
    source = random.Random(1)
    model = server.get("/v1/models")["data"][0]["id"]
    while not stop.is_set():
        prompt = " ".join(source.choice(WORDS) for _ in range(tokens))
        if server.exchange("POST", "/v1/completions", {"model": model, "prompt": prompt, "max_tokens": 1}) is None:
            raise SystemExit("a prompt beside the stream failed")
        done.append(tokens)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=400, help="streamed, in each phase and repetition")
    parser.add_argument("--prompt", type=int, default=700, help="words of the prompts beside them")
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    alone, beside, prefilled = [], [], 0
    with processes.Server([processes.MODEL, *SERVE]) as server:
        between_tokens(server, 50)
        for _ in range(options.repetitions):
            alone += between_tokens(server, options.tokens)
            stop, done = threading.Event(), []
            helper = threading.Thread(target=prefill_until, args=(stop, server, options.prompt, done))
            helper.start()
            time.sleep(0.2)
            beside += between_tokens(server, options.tokens)
            stop.set()
            helper.join()
            prefilled += sum(done)
    result = {"machine": machine.describe(), "commit": machine.git_commit(processes.ROOT), "alone": summary(alone),
              "beside_prefill": summary(beside), "words_prefilled": prefilled}
    result["p99_ratio"] = round(result["beside_prefill"]["p99_ms"] / result["alone"]["p99_ms"], 2)
    print(json.dumps(result, indent=1))
    print(f"ITL p99 {result['alone']['p99_ms']} ms alone, {result['beside_prefill']['p99_ms']} ms with prefill beside it: "
          f"{result['p99_ratio']}× (goal ≤ {GOAL}×)", file=sys.stderr)
    return 0 if prefilled > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
