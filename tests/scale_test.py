"""Many simulated workers on one machine: they share processes, start quickly, answer right and end cleanly."""
import os
import time

from liveness_test import body, run_streams
from serving import Server


def test_ninety_workers_start_answer_and_end(build_dir, tmp_path):
    requests = [body(i, prompt_tokens=100 + 40 * (i % 7), max_tokens=30) for i in range(48)]
    engine = ["--sim", "step_us=1000,prefill_us=10,blocks=256"]
    alone = Server(build_dir, [*engine, "--hybrid", "1x1"], tmp_path / "alone.log")
    expected, _ = run_streams(alone, requests)
    assert alone.stop() == 0
    shared_before = set(os.listdir("/dev/shm"))
    started = time.monotonic()
    server = Server(build_dir, [*engine, "--prefill", "50x1", "--decode", "40x4", "--max-local-prefill", "0"], tmp_path / "many.log")
    try:
        took = time.monotonic() - started
        children = server.child_pids()
        assert took < 10, f"started in {took:.1f} s"
        assert len(children) == 7  # ninety workers, sixteen to a process, and the front end
        assert len(server.workers()) == 90
        for _ in range(3):
            assert run_streams(server, requests)[0] == expected
            server.request("POST", "/reset_prefix_cache")
        assert sum(worker["steps"] > 0 for worker in server.workers()) > 20  # the load was spread
        asked = time.monotonic()
        assert server.request("GET", "/health")[0] == 200 and time.monotonic() - asked < 1
        server.wait_nothing_left(10)
        # A process of sixteen dies; its workers come back, and nobody's answer changes.
        pid = next(pid for pid in children if "prefill-0+15 others" in open(f"/proc/{pid}/cmdline", encoding="ascii").read())
        tokens, _ = run_streams(server, requests, lambda: os.kill(pid, 9))
        assert tokens == expected
        server.wait_until(lambda: all(worker["state"] == "ready" for worker in server.workers()))
        server.wait_nothing_left(10)
    finally:
        ended = time.monotonic()
        code = server.stop()
    assert code == 0 and time.monotonic() - ended < 5, server.output()
    assert set(os.listdir("/dev/shm")) == shared_before
