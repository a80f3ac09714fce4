"""Faults in their short form: corrupted blocks, peers that do not answer, cancelled prefills, overload, prompts that are too long.
`make chaos` runs the long forms of what tests/faults.py has."""
import json
import re
import socket
import time

import pytest

import faults
from liveness_test import body, run_streams
from serving import serving

HANDOVER = ["--sim", "step_us=2000,prefill_us=20,blocks=1024", "--prefill", "1x1", "--decode", "1x1", "--max-local-prefill", "0"]
CORRUPT = ["--transfer-corrupt-every", "7"]


def metric(server, name):
    """The sum over all workers."""
    text = server.request("GET", "/metrics")[1]
    return sum(float(value) for value in re.findall(rf"^{name}(?:\{{.*\}})? ([0-9.e+]+)$", text, re.M))


# ---- --verify-kv ----


def run_corrupted(build_dir, tmp_path, *flags):
    """Tokens of some streams on a sound server, and with corrupted hand-offs; then the latter's figures."""
    requests = [body(i, prompt_tokens=200 + 57 * i, max_tokens=20) for i in range(8)]
    with serving(build_dir, HANDOVER, tmp_path, "sound") as server:
        expected, _ = run_streams(server, requests)
    with serving(build_dir, [*HANDOVER, *CORRUPT, *flags], tmp_path, "corrupted") as server:
        tokens, _ = run_streams(server, requests)
        server.wait_nothing_left(5)
        time.sleep(0.2)  # reports come ten times a second
        return expected, tokens, {name: metric(server, name) for name in (
            "baton_handoffs_total", "baton_kv_blocks_verified_total", "baton_kv_verify_failures_total")}, server.worker("prefill-0")


def test_corrupted_blocks_change_answers_when_nobody_looks(build_dir, tmp_path):
    """What is planted is worth finding."""
    expected, tokens, figures, _ = run_corrupted(build_dir, tmp_path)
    assert tokens != expected and figures["baton_kv_blocks_verified_total"] == 0


def test_corrupted_blocks_are_found_and_computed_again(build_dir, tmp_path):
    expected, tokens, figures, prefill = run_corrupted(build_dir, tmp_path, "--verify-kv")
    assert tokens == expected
    assert figures["baton_handoffs_total"] == 8
    assert 0 < figures["baton_kv_verify_failures_total"] < figures["baton_kv_blocks_verified_total"]
    assert prefill["incarnation"] == 1  # it is no death


def test_verification_changes_nothing_on_a_real_model(build_dir, demo_model, tmp_path):
    arguments = [demo_model, "--prefill", "1x1", "--decode", "1x1", "--max-local-prefill", "0", "--kv-cache-gib", "0.2", "--max-model-len", "1024"]
    prompts = ["The worker hands its cache over to another one and goes on. " * n for n in (3, 9)]
    with serving(build_dir, arguments, tmp_path, "plain") as server:
        expected = [server.complete(text, max_tokens=12, temperature=0)["choices"][0]["token_ids"] for text in prompts]
    with serving(build_dir, [*arguments, "--verify-kv", "--transfer-corrupt-every", "9"], tmp_path, "verified") as server:
        for _ in range(3):
            server.request("POST", "/reset_prefix_cache")
            assert [server.complete(text, max_tokens=12, temperature=0)["choices"][0]["token_ids"] for text in prompts] == expected
        time.sleep(0.2)
        assert metric(server, "baton_kv_verify_failures_total") > 0


# ---- overload, cancels, peers ----


def test_ten_times_the_load_costs_no_goodput(build_dir, tmp_path):
    found = faults.overload(build_dir, tmp_path, seconds=4)
    assert not faults.check_overload(found), found


def test_cancelled_prefills_free_both_workers_within_a_chunk(build_dir, tmp_path):
    found = faults.cancel(build_dir, tmp_path, rounds=4)
    assert not faults.check_cancel(found), found


def test_peers_that_do_not_answer_or_crawl_hold_up_nobody_else(build_dir, tmp_path):
    found = faults.peers(build_dir, tmp_path, requests=60)
    assert not faults.check_peers(found), found


# ---- prompts that are too long ----


def test_a_prompt_larger_than_the_decode_pool_is_refused_at_once(build_dir, tmp_path):
    with serving(build_dir, ["--sim", "prefill_us=500,blocks=32", "--prefill", "1x1", "--decode", "1x1", "--max-local-prefill", "0"], tmp_path) as server:
        started = time.monotonic()
        status, answer = server.request("POST", "/v1/completions", body(1, prompt_tokens=1500, max_tokens=20))
        assert status == 400 and "this worker has 32" in answer["error"]["message"], answer
        assert time.monotonic() - started < 0.5
        assert server.worker("prefill-0")["steps"] == 0  # nobody computed any of it
        server.wait_nothing_left(5)


def frontend_mib(server):
    return faults.resident_mib([server.pid_of("frontend")])


@pytest.mark.parametrize("kilobytes", [20, 200, 7000])
def test_an_overlong_prompt_is_refused_at_the_front_end(build_dir, demo_model, tmp_path, kilobytes):
    """The size alone says that it is too long; the larger ones must also be read and parsed."""
    request = {"prompt": "sun and moon and stars " * (kilobytes * 1000 // 23), "max_tokens": 5}
    with serving(build_dir, [demo_model, "--hybrid", "1x1", "--kv-cache-gib", "0.1", "--max-model-len", "1024"], tmp_path) as server:
        before, times = frontend_mib(server), []
        for _ in range(5):
            started = time.monotonic()
            status, answer = server.request("POST", "/v1/completions", request)
            times.append(time.monotonic() - started)
            assert status == 400 and answer["error"]["code"] == "context_length_exceeded", answer
        assert min(times) < (0.010 if kilobytes <= 200 else 0.2), times
        assert frontend_mib(server) < before + 64
        assert server.worker("hybrid-0")["steps"] == 0


def test_ten_megabytes_are_refused_in_bounded_memory_and_time(build_dir, tmp_path):
    with serving(build_dir, ["--sim", "instant", "--hybrid", "1x1"], tmp_path) as server:
        before = frontend_mib(server)
        data = json.dumps({"prompt": "x" * 10_000_000}).encode()
        for _ in range(8):
            started = time.monotonic()
            with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
                connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                                   b"Content-Length: %d\r\n\r\n" % len(data) + data)
                assert connection.recv(65536).startswith(b"HTTP/1.1 413")
            assert time.monotonic() - started < 2
        assert frontend_mib(server) < before + 16
