"""Servers under one load: `baton bench serve` with eight clients, 500 tokens in and 64 out, all prompts different.

A repetition's CPU share is what was left of the cores after other programs and the hypervisor took theirs (/proc/stat). The
server's own time over wall time would not do here: a server also waits, for its clients and for itself.
"""
import os
import pathlib
import resource
import time

import processes
from peer_engines import PEERS, Q4_0, THREADS
from peer_results import BATON, LLAMA, LLAMA_Q4_0

LOAD = {"concurrency": 8, "requests": 16, "warmup": 2, "input_tokens": 500, "output_tokens": 64}
QUESTION = "What is the capital of France?"
# A slot of 768 tokens for each client; nothing is kept of finished prompts, because none comes twice.
LLAMA_FLAGS = ["-t", THREADS, "-tb", THREADS, "-np", 8, "-c", 8 * 768, "-b", 2048, "-ub", 512, "-fa", "on", "--cache-ram", 0]
SERVERS = (BATON, LLAMA, LLAMA_Q4_0)


def start(name):
    if name == BATON:
        return processes.Server([processes.MODEL, "--threads", THREADS])
    model = Q4_0 if name == LLAMA_Q4_0 else processes.MODEL
    return processes.HttpServer(PEERS / "llama.cpp" / "bin" / "llama-server", ["-m", model, *LLAMA_FLAGS])


def busy_seconds():
    """Of all cores since boot, stolen time included."""
    fields = list(map(int, pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]))
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def own_seconds(server):
    """Of the server, of the clients that have ended, and of this program."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(run for run, _ in server.cpu().values()) + children.ru_utime + children.ru_stime + time.process_time()


def ask(server):
    """A short greedy answer: that the server writes text at all."""
    body = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 24, "temperature": 0}
    answer = server.exchange("POST", "/v1/chat/completions", body)
    text = answer["choices"][0]["message"]["content"].strip() if answer else ""
    if not text:
        raise SystemExit(f"{' '.join(server.command)} does not answer: {server.log_text()[-2000:]}")
    return text


def measure(name):
    """One repetition: a fresh server, the load, its memory, its end."""
    with start(name) as server:
        began, busy, own = time.monotonic(), busy_seconds(), own_seconds(server)
        result = processes.load(server, **LOAD)
        wall, busy, own = time.monotonic() - began, busy_seconds() - busy, own_seconds(server) - own
        memory = server.memory().values()
        return {"tokens_per_second": result["output_tokens_per_second"], "ttft_p50_ms": result["ttft_ms"]["p50"],
                "itl_p50_ms": result["itl_ms"]["p50"], "health_s": server.start_up["health_s"],
                "cpu_share": 1 - max(0.0, busy - own) / (wall * os.cpu_count()), "own_cpu_share": own / (wall * os.cpu_count()),
                "rss_mb": sum(entry["rss_mb"] for entry in memory), "pss_mb": sum(entry["pss_mb"] for entry in memory),
                "answer": ask(server), "command": [os.path.basename(part) for part in server.command]}
