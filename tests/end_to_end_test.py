"""The whole product as its users run it: real processes, sockets and shared memory, the real demo model."""
import concurrent.futures
import contextlib
import http.client
import os
import signal
import socket
import subprocess
import threading
import time

import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving import Server, serving

PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a village by the sea, there lived an old fisherman who",
    "def fibonacci(n):\n    ",
    "Die Hauptstadt von Österreich heißt",
    "水は",
    "Q: What is 17 + 25?\nA:",
] + ["Tell me about the number %d. " % i + "It is said that patience is a virtue, and that all good things come to those who wait. " * (1 + i % 7)
     for i in range(10)]
SHARED = "You are a helpful assistant who answers briefly and never lies about the things that you do not know. " * 4

# Long prompts take longer than the default target on this model and machine: who prefills them shall not depend on that.
PATIENT = ["--kv-cache-gib", "0.5", "--max-model-len", "2048", "--ttft-target-ms", "60000"]


def bodies():
    """Requests of every kind: greedy and sampled, short and long, with and without a shared prefix, several choices."""
    requests = []
    for index, prompt in enumerate(PROMPTS):
        fields = {"prompt": SHARED + prompt if index % 3 == 0 else prompt, "max_tokens": 1 + (index * 7) % 24, "seed": index,
                  "temperature": 0 if index % 2 == 0 else 0.9}
        if index % 5 == 1:
            fields.update(top_p=0.9, top_k=40, frequency_penalty=0.5, presence_penalty=0.2)
        if index % 7 == 3:
            fields["n"] = 3
        requests.append(fields)
    return requests


def answers(server, concurrency):
    """Token ids of every choice of every request."""
    def one(fields):
        answer = server.complete(**fields)
        return [choice["token_ids"] for choice in sorted(answer["choices"], key=lambda c: c["index"])]
    with concurrent.futures.ThreadPoolExecutor(concurrency) as pool:
        return list(pool.map(one, bodies()))


@pytest.fixture(scope="module")
def expected(build_dir, demo_model, tmp_path_factory):
    """One hybrid worker, one request at a time, no prefix cache."""
    with serving(build_dir, [demo_model, "--no-prefix-caching", *PATIENT], tmp_path_factory.mktemp("expected")) as server:
        return answers(server, 1)


@pytest.mark.parametrize("topology", [
    ["--hybrid", "1x1", "--threads", "1", "--max-num-batched-tokens", "64"],
    ["--prefill", "1x1", "--decode", "1x1"],
    ["--prefill", "2x1", "--decode", "1x1", "--block-size", "16", "--max-num-batched-tokens", "96"],
    ["--prefill", "1x1", "--decode", "2x1", "--no-prefix-caching", "--threads", "2"],
    ["--prefill", "1x1", "--decode", "1x1", "--hybrid", "1x1", "--block-size", "64"],
    ["--prefill", "1x1", "--decode", "1x1", "--share-process"],
], ids=["hybrid", "1P1D", "2P1D", "1P2D", "1P1D1H", "shared"])
def test_same_tokens_in_every_topology(build_dir, demo_model, tmp_path, expected, topology):
    with serving(build_dir, [demo_model, *topology, *PATIENT], tmp_path) as server:
        assert answers(server, 1) == expected
        assert answers(server, 16) == expected  # again: warm prefix caches, mixed batches
        if "--prefill" in topology:
            assert sum(worker["handoffs"] for worker in server.workers()) > 0
            path = server.cluster()["paths"][0]
            assert (path["transport"], path["bytes"]) == ("ids", 0) if "--share-process" in topology else path["gb_per_s"] > 0
        server.wait_nothing_left()


def test_int8_kv_is_handed_over(build_dir, demo_model, tmp_path_factory):
    found = []
    for topology in (["--hybrid", "1x1", "--no-prefix-caching"], ["--prefill", "1x1", "--decode", "1x1"]):
        options = [demo_model, "--kv-cache-dtype", "int8", *topology, *PATIENT]
        with serving(build_dir, options, tmp_path_factory.mktemp("int8")) as server:
            found.append(answers(server, 8))
            if "--prefill" in topology:
                assert sum(worker["handoffs"] for worker in server.workers()) > 0
            server.wait_nothing_left()
    assert found[0] == found[1]


def test_code_path_is_named_and_can_be_forced(build_dir, demo_model, tmp_path):
    devices = subprocess.run([build_dir / "baton", "devices"], capture_output=True, text=True, timeout=30, check=True).stdout
    paths = devices.split("--cpu-isa forces another of ")[1].split("\n")[0].split()
    assert paths[-1] == "plain" and f"code path: {paths[0]};" in devices
    assert "huge pages: weights " in devices and ", KV cache " in devices
    with serving(build_dir, [demo_model, "--cpu-isa", "plain", *PATIENT], tmp_path) as server:
        assert ", plain" in server.workers()[0]["device"]
    with serving(build_dir, [demo_model, "--deterministic", *PATIENT], tmp_path, "deterministic") as server:
        server.wait_for_log("the CPU backend always computes so")
    for absent in {"avx2", "avx512", "avx512bf16"} - set(paths):
        refused = subprocess.run([build_dir / "baton", "serve", demo_model, "--cpu-isa", absent, "--port", "0"],
                                 capture_output=True, text=True, timeout=60)
        assert refused.returncode != 0 and f"it has {paths[0]}" in refused.stderr + refused.stdout


@pytest.fixture(scope="module")
def road(build_dir, demo_model, tmp_path_factory):
    """A server with a prefill worker and a decode worker that several tests share."""
    arguments = [demo_model, "--prefill", "1x1", "--decode", "1x1", "--max-local-prefill", "64", *PATIENT]  # long prompts go, however slow P was measured
    with serving(build_dir, arguments, tmp_path_factory.mktemp("road")) as server:
        yield server
        server.wait_nothing_left()


@pytest.fixture
def client(road):
    return openai.OpenAI(base_url=f"http://127.0.0.1:{road.port}/v1", api_key="any", max_retries=0)


def test_chat_with_the_official_client(client):
    answer = client.chat.completions.create(model="SmolLM2-135M-Instruct.Q4_1", temperature=0, max_tokens=20,
                                            messages=[{"role": "user", "content": "Name the capital of France."}])
    assert "Paris" in answer.choices[0].message.content
    assert answer.usage.completion_tokens <= 20
    streamed = client.chat.completions.create(model="SmolLM2-135M-Instruct.Q4_1", temperature=0, max_tokens=20, stream=True,
                                              stream_options={"include_usage": True},
                                              messages=[{"role": "user", "content": "Name the capital of France."}])
    chunks = list(streamed)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == answer.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == answer.usage.completion_tokens


def test_logprobs_are_probabilities_and_rank_the_greedy_token_first(client):
    answer = client.chat.completions.create(model="SmolLM2-135M-Instruct.Q4_1", temperature=0, max_tokens=8, logprobs=True, top_logprobs=5,
                                            messages=[{"role": "user", "content": "Count to five."}])
    for entry in answer.choices[0].logprobs.content:
        assert entry.logprob <= 0
        assert entry.top_logprobs[0].token == entry.token
        assert sorted((t.logprob for t in entry.top_logprobs), reverse=True) == [t.logprob for t in entry.top_logprobs]


def test_echo_gives_the_prompts_logprobs(road):
    answer = road.complete("The quick brown fox jumps over the lazy dog", max_tokens=1, temperature=0, echo=True, logprobs=1)
    logprobs = answer["choices"][0]["logprobs"]
    assert logprobs["token_logprobs"][0] is None
    assert all(value <= 0 for value in logprobs["token_logprobs"][1:])
    assert "".join(logprobs["tokens"]).startswith("The quick brown fox")


def test_a_long_prompt_is_handed_over_and_explained(road):
    answer = road.complete("A list of all the rivers of the world: " * 20, max_tokens=4, temperature=0)
    choice = answer["baton"]["choices"][0]
    assert choice["handoff"]["bytes"] > 0 and "GB/s" in choice["handoff"]["path"]
    assert choice["prefill_worker"] != choice["decode_worker"]
    assert answer["baton"]["route"]["chosen"]["prefill"] == choice["prefill_worker"]


def test_a_short_prompt_is_prefilled_where_it_decodes(build_dir, tmp_path):
    """Simulated engines: both workers have the same step times, whatever else this machine does."""
    with serving(build_dir, ["--sim", "step_us=2000,prefill_us=500", "--prefill", "1x1", "--decode", "1x1"], tmp_path) as server:
        server.wait_until(lambda: server.cluster()["paths"])
        short, long = (server.complete(prompt, max_tokens=2)["baton"]["choices"][0] for prompt in ("Hi", "Hi " * 200))
        assert short["handoff"] is None and short["prefill_worker"] == short["decode_worker"]
        assert long["handoff"] is not None and long["prefill_worker"] != long["decode_worker"]


def test_results_that_are_one_step_late_change_no_token(build_dir, tmp_path):
    """Simulated engines that take a step while one runs, as GPUs do; stops, penalties and clients that leave among them."""
    bodies = [{"prompt": f"{index} " + "words and more words " * (3 * index), "max_tokens": 30 + index, "seed": index, "temperature": index % 2,
               "presence_penalty": 1 if index == 5 else 0, "stop_token_ids": [] if index % 3 else list(range(0, 32000, 40))} for index in range(8)]
    answers = []
    for ahead in (0, 1):
        profile = f"step_us=1500,prefill_us=20,ahead={ahead}"
        with serving(build_dir, ["--sim", profile, "--prefill", "1x1", "--decode", "1x1"], tmp_path) as server:
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                choices = [answer["choices"][0] for answer in pool.map(lambda body: server.complete(**body), bodies)]
            answers.append([(choice["token_ids"], choice["finish_reason"]) for choice in choices])
            server.wait_until(lambda: all(w["running"] == 0 for w in server.workers()))
    assert answers[0] == answers[1]
    assert {reason for _, reason in answers[0]} == {"stop", "length"}


def test_a_repeated_prompt_is_cached(road):
    prompt = "Cached prefixes spare the work of computing them again, which is why servers keep them. " * 6
    first = road.complete(prompt, max_tokens=4, temperature=0)
    second = road.complete(prompt, max_tokens=4, temperature=0)
    assert second["choices"][0]["token_ids"] == first["choices"][0]["token_ids"]
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] >= 64
    assert road.request("POST", "/reset_prefix_cache")[0] == 200
    third = road.complete(prompt, max_tokens=4, temperature=0)
    assert third["choices"][0]["token_ids"] == first["choices"][0]["token_ids"]


def test_an_overlong_prompt_is_refused_with_the_numbers(road):
    status, answer = road.request("POST", "/v1/completions", {"prompt": "word " * 5000, "max_tokens": 10})
    assert status == 400
    assert "2048" in answer["error"]["message"]


def test_metrics_have_vllms_names_and_batons_own(road):
    road.complete("Something to count, long enough to be handed over from one worker to the other: " * 4, max_tokens=5, temperature=0)
    families = {family.name: family for family in text_string_to_metric_families(road.request("GET", "/metrics")[1])}
    for name in ["vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc", "vllm:prompt_tokens",
                 "vllm:generation_tokens", "vllm:request_success", "vllm:prefix_cache_queries", "vllm:prefix_cache_hits",
                 "vllm:num_preemptions", "vllm:time_to_first_token_seconds", "vllm:inter_token_latency_seconds",
                 "vllm:e2e_request_latency_seconds", "vllm:request_queue_time_seconds", "vllm:request_prefill_time_seconds",
                 "vllm:request_decode_time_seconds", "baton_handoffs", "baton_handoff_bytes", "baton_path_gigabytes_per_second",
                 "baton_route_decisions", "baton_kv_blocks_verified", "baton_kv_verify_failures"]:
        assert name in families, name
    assert sum(sample.value for sample in families["baton_handoffs"].samples if sample.name.endswith("_total")) >= 1


def test_time_to_first_token_does_not_wait_for_delayed_acks(road):
    """An ordinary client that writes header and body apart; 40 ms stalls would show in the fastest of several tries."""
    body = b'{"prompt": "Hi", "max_tokens": 1, "temperature": 0, "stream": true}'
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)

    def first_byte(split):
        best = 1.0
        for _ in range(8):
            with socket.create_connection(("127.0.0.1", road.port)) as connection:
                started = time.monotonic()
                if split:
                    connection.sendall(head)
                    connection.sendall(body)
                else:
                    connection.sendall(head + body)
                data = b""
                while b"data: " not in data:
                    data += connection.recv(65536)
                best = min(best, time.monotonic() - started)
        return best
    assert first_byte(split=True) < first_byte(split=False) + 0.03


def test_a_client_that_leaves_during_prefill_frees_both_workers(road):
    steps_before = road.worker("prefill-0")["steps"]
    with socket.create_connection(("127.0.0.1", road.port)) as connection:
        body = ('{"prompt": "%s", "max_tokens": 100}' % ("sun and moon and stars " * 350)).encode()
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" %
                           (len(body), body))
        road.wait_until(lambda: road.worker("prefill-0")["steps"] > steps_before)
    road.wait_nothing_left(timeout_s=10)


def test_the_first_token_comes_before_the_last_block(build_dir, demo_model, tmp_path):
    """The path is slowed to 5 MB/s: the blocks of 400 tokens take two seconds, the first token does not wait for them."""
    arguments = [demo_model, "--prefill", "1x1", "--decode", "1x1", "--transfer-throttle-gbps", "0.005",
                 "--max-local-prefill", "0", *PATIENT]  # the router would avoid such a path
    with serving(build_dir, arguments, tmp_path) as server:
        times = [at for at, event in server.stream({"prompt": "one two three four five six seven eight " * 50, "max_tokens": 3, "temperature": 0})
                 if event["choices"] and event["choices"][0].get("text")]
        assert times[1] - times[0] > 0.2
        server.wait_until(lambda: server.worker("decode-0")["handoff_seconds"] > 0.2)


def test_a_killed_prefill_worker_changes_nothing_for_clients(build_dir, demo_model, tmp_path, expected):
    with serving(build_dir, [demo_model, "--prefill", "1x1", "--decode", "1x1", *PATIENT], tmp_path) as server:
        killer = threading.Timer(0.4, lambda: server.kill("prefill-0"))
        killer.start()
        assert answers(server, 8) == expected
        killer.join()
        server.wait_until(lambda: server.worker("prefill-0")["incarnation"] == 2 and server.worker("prefill-0")["state"] == "ready", 60)
        server.wait_nothing_left()
        assert answers(server, 8) == expected


def test_a_killed_decode_worker_changes_nothing_for_clients(build_dir, demo_model, tmp_path, expected):
    with serving(build_dir, [demo_model, "--prefill", "1x1", "--decode", "2x1", *PATIENT], tmp_path) as server:
        killer = threading.Timer(0.6, lambda: server.kill("decode-0"))
        killer.start()
        assert answers(server, 8) == expected
        killer.join()
        server.wait_until(lambda: server.worker("decode-0")["incarnation"] == 2 and server.worker("decode-0")["state"] == "ready", 60)
        server.wait_nothing_left()


def test_a_killed_process_of_two_workers_changes_nothing_for_clients(build_dir, demo_model, tmp_path, expected):
    """Prefill and decode die together; what they had waits for their restart, or goes on elsewhere."""
    with serving(build_dir, [demo_model, "--prefill", "1x1", "--decode", "1x1", "--share-process", *PATIENT], tmp_path) as server:
        assert len(server.child_pids()) == 2  # that process and the front end
        killer = threading.Timer(0.6, lambda: server.kill("prefill-0+decode-0"))
        killer.start()
        assert answers(server, 8) == expected
        killer.join()
        server.wait_until(lambda: all(worker["incarnation"] == 2 and worker["state"] == "ready" for worker in server.workers()), 60)
        server.wait_nothing_left()


def test_workers_of_one_process_hand_over_ids_and_free_what_is_cancelled(build_dir, demo_model, tmp_path):
    with serving(build_dir, [demo_model, "--prefill", "1x1", "--decode", "1x1", "--share-process", *PATIENT], tmp_path) as server:
        choice = server.complete("A list of all the rivers of the world: " * 20, max_tokens=4, temperature=0)["baton"]["choices"][0]
        assert choice["prefill_worker"] != choice["decode_worker"]
        assert choice["handoff"]["bytes"] == 0 and choice["handoff"]["path"] == "ids"
        assert "shared by 2 workers" in server.worker("decode-0")["device"]
        steps_before = server.worker("prefill-0")["steps"]
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            body = ('{"prompt": "%s", "max_tokens": 100}' % ("sun and moon and stars " * 350)).encode()
            connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" %
                               (len(body), body))
            server.wait_until(lambda: server.worker("prefill-0")["steps"] > steps_before)
        server.wait_nothing_left(timeout_s=10)


def test_nothing_is_left_behind(build_dir, demo_model, tmp_path):
    shared_before = set(os.listdir("/dev/shm"))
    server = Server(build_dir, [demo_model, "--prefill", "1x1", "--decode", "1x1", *PATIENT], tmp_path / "log")
    children = server.child_pids()
    assert len(children) == 3
    server.complete("Some text that is long enough to be handed over to the other worker. " * 5, max_tokens=2)
    os.kill(server.process.pid, signal.SIGKILL)  # not even the supervisor may clean up
    server.process.wait()
    server.wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") and "baton" in open(f"/proc/{pid}/cmdline").read() for pid in children))
    server.log.close()
    assert set(os.listdir("/dev/shm")) == shared_before


def run_to_end(build_dir, arguments, timeout_s=60):
    done = subprocess.run([str(build_dir / "baton"), *map(str, arguments)], capture_output=True, text=True, timeout=timeout_s)
    return done.returncode, done.stdout + done.stderr


def test_a_port_in_use_says_so(build_dir, road):
    code, output = run_to_end(build_dir, ["serve", "--sim", "instant", "--port", road.port])
    assert code != 0
    assert str(road.port) in output and "in use" in output


@pytest.mark.parametrize("arguments, words", [
    (["serve"], "MODEL"),
    (["serve", "--sim", "instant", "--isolate", "--share-process"], "--share-process"),
    (["serve", "--sim", "instant", "--gpus", "0,1"], "2 GPUs for 1 workers"),
    (["serve", "no/such/model.gguf"], "no/such/model.gguf"),
    (["serve", "no/such/model.gguf", "--decode", "1x4"], "tensor-parallel size 4"),
    (["serve", "--sim", "instant", "--decode", "four"], "WORKERSxSIZE"),
    (["serve", "--sim", "instant", "--prefill", "1x1"], "prefill workers alone"),
    (["serve", "--sim", "warp=9"], "--sim"),
    (["serve", "--sim", "instant", "--no-such-flag"], "--no-such-flag"),
    (["serve", "--sim", "instant", "--on-frontend-death", "dance"], "--on-frontend-death"),
    (["dance"], "dance"),
])
def test_mistakes_on_the_command_line_are_explained(build_dir, arguments, words):
    code, output = run_to_end(build_dir, arguments)
    assert code != 0
    assert words in output


def test_help_fits_a_screen_and_version_names_the_build(build_dir):
    code, output = run_to_end(build_dir, ["--help"])
    assert code == 0 and len(output.splitlines()) <= 24
    code, output = run_to_end(build_dir, ["--version"])
    assert code == 0 and "Release" in output and "cuda" in output


def test_draining_finishes_what_is_there(build_dir, tmp_path):
    server = Server(build_dir, ["--sim", "step_us=20000", "--prefill", "1x1", "--decode", "1x1"], tmp_path / "log")
    events = []
    stream = threading.Thread(target=lambda: events.extend(server.stream({"prompt": list(range(300)), "max_tokens": 50, "ignore_eos": True})))
    stream.start()
    server.wait_until(lambda: server.worker("decode-0")["running"] > 0)
    server.process.send_signal(signal.SIGINT)
    server.wait_for_log("draining")
    try:
        status = server.request("POST", "/v1/completions", {"prompt": "Hi", "max_tokens": 1})[0]
    except OSError:
        status = 503  # the port may be closed already
    assert status == 503
    stream.join()
    assert server.process.wait(30) == 0
    assert sum(len(event["choices"]) > 0 and event["choices"][0]["text"] != "" for _, event in events) >= 45
    server.log.close()


def test_a_second_interrupt_stops_at_once(build_dir, tmp_path):
    server = Server(build_dir, ["--sim", "step_us=100000"], tmp_path / "log")

    def read_until_the_server_is_gone():
        with contextlib.suppress(OSError, http.client.HTTPException):
            list(server.stream({"prompt": [1, 2, 3], "max_tokens": 500, "ignore_eos": True}))
    thread = threading.Thread(target=read_until_the_server_is_gone)
    thread.start()
    server.wait_until(lambda: server.workers()[0]["running"] > 0)
    server.process.send_signal(signal.SIGINT)
    server.wait_for_log("draining")
    server.process.send_signal(signal.SIGINT)
    started = time.monotonic()
    server.process.wait(10)
    assert time.monotonic() - started < 2
    thread.join()
    server.log.close()
