"""Serves while a seeded killer strikes, and checks that no client notices.

    python3 tests/chaos.py --requests 10000                      simulated engines, 4 prefill and 2 decode workers
    python3 tests/chaos.py --requests 500 --model models/….gguf --prefill 2 --decode 2

Every answer is compared, token for token, with that of an undisturbed server. Meanwhile a random worker gets `kill -9`
every few seconds, now and then one is stopped for three seconds, and some clients leave in the middle. At the end every
block of every worker must have come home. Exit code 0 if all of that holds; the JSON line at the end has the figures.
"""
import argparse
import asyncio
import dataclasses
import json
import os
import pathlib
import random
import signal
import sys
import tempfile
import time

from serving import Server

WORDS = "the worker hands its cache over to another one and goes on with what is next in the queue of prompts".split()
SIM_PROFILE = "step_us=2000,prefill_us=15,decode_us=20,blocks=4096,ahead=1"  # late results, as a GPU's


@dataclasses.dataclass
class Load:
    requests: int = 10000
    concurrency: int = 32
    prompts: int = 200          # different ones; the requests take them in turns
    words: tuple = (10, 300)    # of a prompt
    tokens: tuple = (1, 80)     # of an answer
    disconnect: float = 0.05    # share of the clients that leave in the middle
    request_timeout_s: float = 60
    seed: int = 1


@dataclasses.dataclass
class Strikes:
    kill_every_s: tuple = (2.0, 5.0)
    freeze_every_s: tuple = (12.0, 20.0)
    freeze_s: float = 3.0


@dataclasses.dataclass
class Outcome:
    finished: int = 0
    left: int = 0
    failed: list = dataclasses.field(default_factory=list)
    wrong: list = dataclasses.field(default_factory=list)
    longest_gaps_s: list = dataclasses.field(default_factory=list)
    kills: int = 0
    freezes: int = 0
    seconds: float = 0


def make_bodies(load):
    """The different requests: short and long, greedy and sampled, a third of them with a shared beginning."""
    rng = random.Random(load.seed)
    shared = " ".join(rng.choices(WORDS, k=60))
    bodies = []
    for index in range(load.prompts):
        text = " ".join(rng.choices(WORDS, k=rng.randint(*load.words)))
        bodies.append({"prompt": f"{shared} {text}" if index % 3 == 0 else f"{index} {text}", "seed": index,
                       "max_tokens": rng.randint(*load.tokens), "temperature": 0 if index % 2 else 0.8,
                       "ignore_eos": True, "stream": True, "return_token_ids": True})
    return bodies


async def stream(port, body, timeout_s, leave_after=None):
    """(token ids, longest pause between two events in seconds) of one streamed completion; (None, pause) if it left."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        data = json.dumps(body).encode()
        writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: chaos\r\nConnection: close\r\nContent-Type: application/json\r\n"
                     b"x-request-timeout-ms: %d\r\nContent-Length: %d\r\n\r\n" % (timeout_s * 1000, len(data)) + data)
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head.split(b"\r\n")[0]:
            raise RuntimeError(f"{head.split(chr(13).encode())[0].decode()}: {(await reader.read(500)).decode()}")
        tokens, longest, last, events = [], 0.0, time.monotonic(), 0
        while line := await reader.readline():
            if not line.startswith(b"data: "):
                continue
            if line.startswith(b"data: [DONE]"):
                return tokens, longest
            now = time.monotonic()
            longest, last, events = max(longest, now - last), now, events + 1
            event = json.loads(line[6:])
            if "error" in event:
                raise RuntimeError(event["error"]["message"])
            for choice in event["choices"]:
                tokens += choice.get("token_ids") or []
            if events == leave_after:
                return None, longest
        raise RuntimeError("the stream ended without [DONE]")
    finally:
        writer.close()


async def expected_answers(port, bodies):
    """What an undisturbed server says."""
    answers = [None] * len(bodies)

    async def some(first):
        for index in range(first, len(bodies), 4):
            answers[index], _ = await stream(port, bodies[index], 120)
    await asyncio.gather(*(some(first) for first in range(4)))
    return answers


async def clients(port, bodies, expected, load, outcome):
    """`concurrency` clients take the requests in turns, each with its own next one as soon as it has its answer."""
    queue = iter(range(load.requests))
    rng = random.Random(load.seed + 1)

    async def client():
        for number in queue:
            body, want = bodies[number % len(bodies)], expected[number % len(bodies)]
            leave_after = rng.randint(1, 10) if rng.random() < load.disconnect else None
            try:
                got, gap = await asyncio.wait_for(stream(port, body, load.request_timeout_s, leave_after), load.request_timeout_s + 5)
            except (OSError, RuntimeError, asyncio.TimeoutError, asyncio.IncompleteReadError) as error:
                outcome.failed.append(f"request {number}: {type(error).__name__} {error}")
                continue
            if got is None:
                outcome.left += 1
            elif got != want:
                at = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b), min(len(got), len(want)))
                outcome.wrong.append(f"request {number}: differs from token {at} on ({len(got)} tokens, expected {len(want)})")
            else:
                outcome.finished += 1
                outcome.longest_gaps_s.append(gap)
    await asyncio.gather(*(client() for _ in range(load.concurrency)))


async def killer(server, names, strikes, outcome, seed):
    """Until cancelled. A worker that is being started again has no process to strike: it is passed over."""
    rng = random.Random(seed)
    next_kill, next_freeze = rng.uniform(*strikes.kill_every_s), rng.uniform(*strikes.freeze_every_s)
    started = time.monotonic()
    thaws = []

    def strike(number):
        try:
            pid = server.pid_of(rng.choice(names))
            os.kill(pid, number)
            return pid
        except (AssertionError, ProcessLookupError, FileNotFoundError):
            return None

    async def thaw(pid):
        await asyncio.sleep(strikes.freeze_s)
        if pid in server.child_pids():
            os.kill(pid, signal.SIGCONT)
    try:
        while True:
            await asyncio.sleep(0.05)
            elapsed = time.monotonic() - started
            if elapsed >= next_kill:
                outcome.kills += strike(signal.SIGKILL) is not None
                next_kill = elapsed + rng.uniform(*strikes.kill_every_s)
            if elapsed >= next_freeze:
                pid = strike(signal.SIGSTOP)
                if pid is not None:
                    outcome.freezes += 1
                    thaws.append(asyncio.ensure_future(thaw(pid)))
                next_freeze = elapsed + rng.uniform(*strikes.freeze_every_s)
    finally:
        for task in thaws:
            await task


async def disturbed(server, names, bodies, expected, load, strikes):
    outcome = Outcome()
    started = time.monotonic()
    striking = asyncio.ensure_future(killer(server, names, strikes, outcome, load.seed + 2))
    try:
        await clients(server.port, bodies, expected, load, outcome)
    finally:
        outcome.seconds = time.monotonic() - started
        striking.cancel()
        await asyncio.gather(striking, return_exceptions=True)
    return outcome


def run(build_dir, folder, engine, prefill, decode, load, strikes):
    """The whole: expected answers, strikes, every block home, a clean end. `engine`: arguments of `baton serve`."""
    bodies = make_bodies(load)
    quiet = Server(build_dir, [*engine, "--hybrid", "1x1"], folder / "quiet.log")
    expected = asyncio.run(expected_answers(quiet.port, bodies))
    assert quiet.stop() == 0, quiet.output()
    server = Server(build_dir, [*engine, "--prefill", f"{prefill}x1", "--decode", f"{decode}x1"], folder / "chaos.log")
    names = [f"prefill-{i}" for i in range(prefill)] + [f"decode-{i}" for i in range(decode)]
    try:
        outcome = asyncio.run(disturbed(server, names, bodies, expected, load, strikes))
        server.wait_until(lambda: all(worker["state"] == "ready" for worker in server.workers()), 60)
        server.wait_nothing_left(10)
    finally:
        code = server.stop()
    assert code == 0, server.output()
    return outcome


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=Load.requests)
    parser.add_argument("--concurrency", type=int, default=Load.concurrency)
    parser.add_argument("--prefill", type=int, default=4)
    parser.add_argument("--decode", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", help="a real model in place of simulated engines")
    parser.add_argument("--build", default=os.environ.get("BATON_BUILD", "build"))
    parser.add_argument("--keep", help="folder for the servers' logs")
    flags = parser.parse_args()
    load = Load(requests=flags.requests, concurrency=flags.concurrency, seed=flags.seed)
    engine = ["--sim", SIM_PROFILE]
    if flags.model:
        engine = [flags.model, "--kv-cache-gib", "0.4", "--max-model-len", "2048"]
        load = dataclasses.replace(load, prompts=60, words=(5, 120), tokens=(1, 40))
    folder = pathlib.Path(flags.keep or tempfile.mkdtemp(prefix="baton-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    outcome = run(pathlib.Path(flags.build).resolve(), folder, engine, flags.prefill, flags.decode, load, Strikes())
    for problem in (outcome.failed + outcome.wrong)[:20]:
        print(problem)
    print(json.dumps({
        "requests": load.requests, "finished": outcome.finished, "left": outcome.left, "failed": len(outcome.failed),
        "wrong": len(outcome.wrong), "kills": outcome.kills, "freezes": outcome.freezes, "seconds": round(outcome.seconds, 1),
        "longest_pause_ms": {name: round(1e3 * (percentile(outcome.longest_gaps_s, share) or 0), 1)
                             for name, share in [("p50", .5), ("p99", .99), ("p99.9", .999), ("max", 1.0)]}}))
    print(f"the servers' logs: {folder}")
    sys.exit(1 if outcome.failed or outcome.wrong else 0)


if __name__ == "__main__":
    main()
