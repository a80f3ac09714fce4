"""Workers that freeze, hang, crash or are only slow, as real processes: streams go on with the same tokens, blocks come home,
and nobody is killed for being slow."""
import concurrent.futures
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from serving import Server, serving

STREAMS = 6
POISON = 31999  # a token on which a simulated engine crashes, hangs or fails when it is told to


def body(index, prompt_tokens=300, max_tokens=60, **fields):
    """A request of its own kind: the tokens of the answer depend on every byte of its KV cache."""
    prompt = [(index * 7919 + i * 104729) % 30000 + 2 for i in range(prompt_tokens)]
    return {"prompt": prompt, "max_tokens": max_tokens, "ignore_eos": True, "temperature": index % 2, "seed": index,
            "return_token_ids": True, **fields}


def run_stream(server, fields, on_token=None, headers=None):
    """The tokens of one stream, and the longest time without one, after the first."""
    tokens, longest, last = [], 0.0, None
    for at, event in server.stream(fields, headers=headers):
        assert "error" not in event, event
        for choice in event["choices"]:
            if not choice.get("token_ids"):
                continue
            tokens += choice["token_ids"]
            longest = max(longest, at - last) if last is not None else 0.0
            last = at
            if on_token:
                on_token(len(tokens))
    return tokens, longest


def run_streams(server, requests, during=lambda: None):
    """All at once; `during` runs beside them. Returns their tokens and the longest pause of any."""
    with concurrent.futures.ThreadPoolExecutor(len(requests)) as pool:
        futures = [pool.submit(run_stream, server, fields) for fields in requests]
        during()
        results = [future.result() for future in futures]
    return [tokens for tokens, _ in results], max(pause for _, pause in results)


def pid_state(pid):
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rsplit(")", 1)[1].split()[0]
    return "gone"


def incarnation(server, name):
    return server.worker(name)["incarnation"]


TOPOLOGIES = [  # long prompts where the prefill worker is stopped, so that it is at work just then
    ("prefill-0", ["--prefill", "2x1", "--decode", "1x1"], 900),
    ("decode-0", ["--prefill", "1x1", "--decode", "2x1"], 300),
    ("hybrid-0", ["--hybrid", "2x1"], 300),
]
IDS = ["prefill", "decode", "hybrid"]


@pytest.mark.parametrize("name, topology, prompt_tokens", TOPOLOGIES, ids=IDS)
def test_the_streams_of_a_stopped_worker_go_on_elsewhere(build_dir, tmp_path, name, topology, prompt_tokens):
    requests = [body(i, prompt_tokens) for i in range(STREAMS)]
    with serving(build_dir, ["--sim", "step_us=20000,prefill_us=300", *topology], tmp_path) as server:
        expected, _ = run_streams(server, requests)
        server.request("POST", "/reset_prefix_cache")
        pid = server.pid_of(name)

        def freeze():
            time.sleep(0.5)
            os.kill(pid, signal.SIGSTOP)
        tokens, pause = run_streams(server, requests, freeze)
        assert tokens == expected
        assert pause <= 1.0, f"a client saw nothing for {pause:.2f} s"
        # It is stopped for good: it is killed, started again, and every block comes home.
        server.wait_until(lambda: pid_state(pid) == "gone", 10)
        server.wait_until(lambda: incarnation(server, name) == 2 and server.worker(name)["state"] == "ready")
        server.wait_nothing_left(5)
        assert run_streams(server, requests)[0] == expected


@pytest.mark.parametrize("name, topology, prompt_tokens", TOPOLOGIES, ids=IDS)
def test_a_worker_that_was_only_slow_comes_back(build_dir, tmp_path, name, topology, prompt_tokens):
    requests = [body(i, prompt_tokens) for i in range(STREAMS)]
    with serving(build_dir, ["--sim", "step_us=20000,prefill_us=300", *topology], tmp_path) as server:
        expected, _ = run_streams(server, requests)
        server.request("POST", "/reset_prefix_cache")
        pid = server.pid_of(name)

        def freeze_and_thaw():
            time.sleep(0.5)
            os.kill(pid, signal.SIGSTOP)
            server.wait_until(lambda: server.worker(name)["state"] == "suspected", 5)
            os.kill(pid, signal.SIGCONT)
        tokens, _ = run_streams(server, requests, freeze_and_thaw)
        assert tokens == expected
        server.wait_until(lambda: server.worker(name)["state"] == "ready", 5)
        server.wait_nothing_left(5)
        assert incarnation(server, name) == 1 and server.pid_of(name) == pid
        metrics = server.request("GET", "/metrics")[1]
        assert re.search(r"^baton_workers_suspected_total(\{.*\})? [1-9]", metrics, re.M)


def test_a_writer_that_is_stopped_in_the_middle_of_a_copy(build_dir, tmp_path):
    """Its half-written blocks are reused only when it has been reaped; with --abort-on-leak a wrong count ends a worker."""
    requests = [body(i, prompt_tokens=600, max_tokens=20) for i in range(STREAMS)]
    arguments = ["--sim", "step_us=5000,prefill_us=100", "--prefill", "2x1", "--decode", "1x1", "--transfer-throttle-gbps", "0.0001"]
    with serving(build_dir, arguments, tmp_path) as server:
        expected, _ = run_streams(server, requests)
        server.request("POST", "/reset_prefix_cache")
        pid = server.pid_of("prefill-0")
        fenced = []

        def freeze():
            server.wait_until(lambda: server.worker("decode-0")["reservations"] >= 2)
            os.kill(pid, signal.SIGSTOP)
            deadline = time.monotonic() + 8
            while pid_state(pid) != "gone" and time.monotonic() < deadline:
                fenced.append(server.worker("decode-0")["blocks"]["fenced"] + server.worker("decode-0")["reservations"])
                time.sleep(0.02)
        tokens, _ = run_streams(server, requests, freeze)
        assert tokens == expected
        assert max(fenced) > 0
        server.wait_nothing_left(5)
        server.wait_until(lambda: incarnation(server, "prefill-0") == 2)
        assert run_streams(server, requests)[0] == expected


def test_the_only_worker_is_started_again_and_its_streams_go_on(build_dir, tmp_path):
    requests = [body(i) for i in range(STREAMS)]
    with serving(build_dir, ["--sim", "step_us=20000", "--hybrid", "1x1"], tmp_path) as server:
        expected, _ = run_streams(server, requests)

        def freeze():
            time.sleep(0.5)
            server.kill("hybrid-0", signal.SIGSTOP)
            server.wait_until(lambda: server.request("GET", "/health")[0] == 503, 5)
            assert "hybrid-0" in server.request("GET", "/health")[1]["error"]["message"]
        tokens, _ = run_streams(server, requests, freeze)
        assert tokens == expected
        server.wait_until(lambda: server.request("GET", "/health")[0] == 200)
        assert incarnation(server, "hybrid-0") == 2
        server.wait_nothing_left(5)


def test_a_busy_machine_costs_nobody_its_life(build_dir, tmp_path):
    """More work than processors, beside workers that compute: slow, but nobody is lost."""
    requests = [body(i, max_tokens=100) for i in range(STREAMS)]
    with serving(build_dir, ["--sim", "step_us=20000,prefill_us=300", "--prefill", "2x1", "--decode", "2x1"], tmp_path) as server:
        expected, _ = run_streams(server, requests)
        hogs = [subprocess.Popen([sys.executable, "-c", "import time\nend = time.time() + 5\nwhile time.time() < end: pass"])
                for _ in range(3 * (os.cpu_count() or 2))]
        try:
            assert run_streams(server, requests)[0] == expected
        finally:
            for hog in hogs:
                hog.kill()
                hog.wait()
        server.wait_nothing_left(10)
        assert all(worker["incarnation"] == 1 for worker in server.workers())
        assert "is lost" not in server.output()


# ---- crashes, hangs, and requests that cause them ----


def test_a_crash_leaves_a_stack_trace(build_dir, tmp_path):
    with serving(build_dir, ["--sim", "step_us=5000", "--hybrid", "2x1"], tmp_path) as server:
        for signal_number, name in [(signal.SIGSEGV, "SIGSEGV"), (signal.SIGABRT, "SIGABRT"), (signal.SIGBUS, "SIGBUS")]:
            before = incarnation(server, "hybrid-0")
            server.kill("hybrid-0", signal_number)
            server.wait_for_log(f"[hybrid-0] *** {name}, sent by process {os.getpid()}")
            server.wait_until(lambda: incarnation(server, "hybrid-0") == before + 1 and server.worker("hybrid-0")["state"] == "ready")
        log = server.output()
        assert re.search(r"\[hybrid-0\]     @ 0x[0-9a-f]+ baton::StepLoop::Run\(\)", log), log


@pytest.mark.parametrize("fault", ["crash_token", "fail_token"])
def test_a_request_of_which_workers_die_is_run_alone_and_refused(build_dir, tmp_path, fault):
    requests = [body(i, max_tokens=80) for i in range(STREAMS)]
    deadly = {**body(99), "prompt": [5] * 40 + [POISON] + [6] * 40}
    with serving(build_dir, ["--sim", f"step_us=20000,{fault}={POISON}", "--hybrid", "3x1"], tmp_path) as server:
        expected, _ = run_streams(server, requests)
        answers = []

        def poison():
            time.sleep(0.3)
            answers.append(server.request("POST", "/v1/completions", deadly, {"x-request-id": "the-deadly-one"}))
        tokens, _ = run_streams(server, requests, poison)
        assert tokens == expected  # who was beside it finished, and with the same tokens
        status, answer = answers[0]
        assert status == 500
        assert "the-deadly-one" in answer["error"]["message"] and "alone" in answer["error"]["message"]
        server.wait_until(lambda: all(worker["state"] == "ready" for worker in server.workers()))
        deaths = sum(worker["incarnation"] - 1 for worker in server.workers())
        assert deaths == 3
        assert server.request("POST", "/v1/completions", deadly)[0] == 500  # a client that tries again
        assert sum(worker["incarnation"] - 1 for worker in server.workers()) == deaths
        assert run_streams(server, requests)[0] == expected
        server.wait_nothing_left(5)


def test_kills_from_outside_put_nobody_in_quarantine(build_dir, tmp_path):
    requests = [body(i, max_tokens=150) for i in range(STREAMS)]
    with serving(build_dir, ["--sim", "step_us=20000", "--hybrid", "2x1"], tmp_path) as server:
        expected, _ = run_streams(server, requests)

        def kill():
            for name in ["hybrid-0", "hybrid-1", "hybrid-0", "hybrid-1", "hybrid-0"]:
                time.sleep(0.4)
                server.wait_until(lambda name=name: server.worker(name)["state"] == "ready")
                server.kill(name)
        assert run_streams(server, requests, kill)[0] == expected
        assert "runs alone" not in server.output()


def test_a_step_loop_that_hangs_is_shown_and_its_worker_started_again(build_dir, tmp_path):
    requests = [body(i, max_tokens=150) for i in range(STREAMS)]
    hanging = {**body(99), "prompt": [POISON] * 20}
    arguments = ["--sim", f"step_us=20000,hang_token={POISON}", "--hybrid", "4x1", "--wedged-after-ms", "600", "--wedged-restart-ms", "1600"]
    with serving(build_dir, arguments, tmp_path) as server:
        expected, _ = run_streams(server, requests)

        def hang():
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                answer = pool.submit(server.request, "POST", "/v1/completions", hanging)
                server.wait_until(lambda: any(worker["state"] == "wedged" for worker in server.workers()))
                status, health = server.request("GET", "/health")
                assert status == 503 and "step loop" in health["error"]["message"]
                assert re.search(r'^baton_worker_wedged\{.*\} 1', server.request("GET", "/metrics")[1], re.M)
                assert answer.result()[0] == 500
        tokens, _ = run_streams(server, requests, hang)
        assert tokens == expected
        server.wait_for_log("*** SIGABRT")
        server.wait_until(lambda: all(worker["state"] == "ready" for worker in server.workers()))
        server.wait_until(lambda: server.request("GET", "/health")[0] == 200)
        assert "SimEngine" in server.output()  # where it hung
        server.wait_nothing_left(5)


def test_only_the_batch_of_the_step_that_died_is_suspected(build_dir, tmp_path):
    """One sequence runs at a time; those that wait behind the deadly one have seen two deaths, and none of their doing."""
    requests = [body(i, prompt_tokens=60, max_tokens=40) for i in range(STREAMS)]
    deadly = {**body(99), "prompt": [5] * 40 + [POISON] + [6] * 40}
    with serving(build_dir, ["--sim", f"step_us=10000,crash_token={POISON}", "--hybrid", "1x1", "--max-num-seqs", "1"], tmp_path) as server:
        expected, _ = run_streams(server, requests)
        answers = []

        def poison():
            time.sleep(0.2)
            answers.append(server.request("POST", "/v1/completions", deadly, {"x-request-id": "the-deadly-one"}))
        tokens, _ = run_streams(server, requests, poison)
        assert tokens == expected
        assert answers[0][0] == 500 and "the-deadly-one" in answers[0][1]["error"]["message"]
        suspected = re.findall(r"request (\S+) was there when workers died", server.output())
        assert len(suspected) == 1 and suspected[0].startswith("the-deadly-one"), suspected


# ---- the front end's death ----


def open_stream(server, fields):
    """A connection on which a stream has begun."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    data = json.dumps({**fields, "stream": True}).encode()
    connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" %
                       len(data) + data)
    assert connection.recv(65536).startswith(b"HTTP/1.1 200")
    return connection


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
def test_workers_free_everything_when_the_front_end_dies_and_wait_for_the_next(build_dir, tmp_path, signal_number):
    """In decoding, in a long prefill, and waiting. A frozen one is noticed by its heart-beats, and killed."""
    shared_before = set(os.listdir("/dev/shm"))
    arguments = ["--sim", "step_us=20000,prefill_us=500", "--prefill", "1x1", "--decode", "1x1", "--max-num-seqs", "4"]
    with serving(build_dir, arguments, tmp_path) as server:
        workers = [server.pid_of("prefill-0"), server.pid_of("decode-0")]
        connections = [open_stream(server, body(i, prompt_tokens=200, max_tokens=2000)) for i in range(3)]
        expected = run_stream(server, body(50))[0]
        for i in range(6):  # nobody reads these
            connection = socket.create_connection(("127.0.0.1", server.port))
            data = json.dumps(body(60 + i, prompt_tokens=3000)).encode()
            connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" %
                               len(data) + data)
            connections.append(connection)
        server.wait_until(lambda: server.worker("prefill-0")["running"] > 0 and server.worker("decode-0")["running"] >= 3)
        frontend = server.pid_of("frontend")
        started = time.monotonic()
        os.kill(frontend, signal_number)
        server.wait_until(lambda: pid_state(frontend) == "gone" and len(re.findall("frontend is ready", server.output())) == 2, 10)
        assert time.monotonic() - started < (2 if signal_number == signal.SIGKILL else 5)
        for connection in connections:
            connection.close()
        server.port = int(re.findall(r"frontend is ready: http://127.0.0.1:(\d+)", server.output())[-1])
        server.wait_until(lambda: all(worker["state"] == "ready" and worker["blocks"]["total"] > 0 for worker in server.workers()))
        server.wait_nothing_left(1.5)
        assert [server.pid_of("prefill-0"), server.pid_of("decode-0")] == workers  # they did not end
        assert run_stream(server, body(50))[0] == expected
    assert set(os.listdir("/dev/shm")) == shared_before


def test_everything_ends_with_the_front_end_when_told_so(build_dir, tmp_path):
    server = Server(build_dir, ["--sim", "step_us=20000", "--prefill", "1x1", "--decode", "1x1", "--on-frontend-death", "stop"], tmp_path / "log")
    children = server.child_pids()
    with open_stream(server, body(1, max_tokens=2000)):
        server.kill("frontend")
        assert server.process.wait(5) == 1
    assert "--on-frontend-death stop" in server.output()
    assert all(pid_state(pid) == "gone" for pid in children)
    server.log.close()


# ---- deadlines ----


@pytest.mark.parametrize("where, arguments, fields", [
    ("queue", ["--sim", "step_us=1000,prefill_us=3000", "--hybrid", "1x1"], {}),
    ("prefill", ["--sim", "step_us=1000,prefill_us=10000", "--prefill", "1x1", "--decode", "1x1"], {}),
    ("handoff", ["--sim", "step_us=1000", "--prefill", "1x1", "--decode", "1x1", "--transfer-throttle-gbps", "0.00001"], {"max_tokens": 2000}),
    ("decode", ["--sim", "step_us=20000", "--prefill", "1x1", "--decode", "1x1"], {"max_tokens": 2000}),
], ids=["queue", "prefill", "handoff", "decode"])
def test_a_deadline_ends_a_request_wherever_it_is(build_dir, tmp_path, where, arguments, fields):
    with serving(build_dir, arguments, tmp_path) as server, concurrent.futures.ThreadPoolExecutor(4) as pool:
        before = [pool.submit(server.request, "POST", "/v1/completions", body(50 + i, prompt_tokens=700, max_tokens=2))
                  for i in range(2 if where == "queue" else 0)]
        started = time.monotonic()
        headers = {"x-request-timeout-ms": "600"} if where != "decode" else {}
        by_body = {"timeout": 0.6} if where == "decode" else {}
        status, answer = server.request("POST", "/v1/completions", body(1, **fields, **by_body), headers)
        took = time.monotonic() - started
        assert status == 504, answer
        assert 0.5 < took < 1.2, took
        for other in before:
            assert other.result()[0] == 200
        server.wait_nothing_left(4)
