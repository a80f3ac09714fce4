"""`baton bench serve` against a real server with simulated engines, and against servers that misbehave."""
import contextlib
import http.server
import json
import subprocess
import threading

import pytest

import serving

STEP_MS = 2.0
PREFILL_MS_PER_TOKEN = 0.02
SIM = f"step_us={STEP_MS * 1000:g},prefill_us={PREFILL_MS_PER_TOKEN * 1000:g}"


@pytest.fixture(scope="module")
def server(build_dir, tmp_path_factory):
    with serving.serving(build_dir, ["--sim", SIM, "--prefill", "1x1", "--decode", "1x1"],
                         tmp_path_factory.mktemp("bench")) as running:
        yield running


def bench(build_dir, url, *arguments, json_path=None):
    """Returns (exit code, stdout, stderr, parsed JSON or None)."""
    command = [build_dir / "baton", "bench", "serve", url, *map(str, arguments)]
    if json_path:
        command += ["--json", json_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    parsed = json.loads(json_path.read_text()) if json_path and json_path.exists() else None
    return done.returncode, done.stdout, done.stderr, parsed


def url_of(server):
    return f"http://127.0.0.1:{server.port}"


def test_closed_loop_agrees_with_the_engines_timing(build_dir, server, tmp_path):
    code, table, errors, result = bench(build_dir, url_of(server), "--concurrency", 4, "--requests", 12, "--input-tokens", 500,
                                        "--output-tokens", 40, json_path=tmp_path / "out.json")
    assert code == 0, table + errors
    assert errors == ""  # no progress line unless on a terminal
    assert (result["succeeded"], result["failed"], result["errors"]) == (12, 0, {})
    assert result["output_tokens"] == 12 * 40
    assert result["prompt_tokens"] == 12 * 500
    assert result["cached_prompt_tokens"] == 0
    # The engine takes at least this long, and a loaded machine at most so much longer.
    prefill_ms = STEP_MS + 500 * PREFILL_MS_PER_TOKEN
    assert prefill_ms <= result["ttft_ms"]["min"] <= result["ttft_ms"]["p50"] < 100 * prefill_ms
    assert STEP_MS * 0.95 <= result["tpot_ms"]["mean"] < 50 * STEP_MS
    assert result["tpot_ms"]["count"] == 12
    assert result["itl_ms"]["count"] == result["content_pieces"] - 12
    assert result["e2e_ms"]["min"] >= prefill_ms + 39 * STEP_MS * 0.95
    assert result["output_tokens_per_second"] == pytest.approx(480 / result["duration_s"])
    assert result["output_tokens_per_second_per_user"] == pytest.approx(1000 / result["tpot_ms"]["mean"])
    # Four at a time for as long as three requests each take.
    assert result["duration_s"] >= 3 * result["e2e_ms"]["min"] / 1000
    assert "12 done, 0 failed" in table


def test_json_says_what_was_measured(build_dir, server, tmp_path):
    code, _, _, result = bench(build_dir, url_of(server), "--requests", 3, "--input-tokens", 20, "--output-tokens", 5,
                               "--seed", 9, "--itl-target-ms", 0.001, json_path=tmp_path / "out.json")
    assert code == 0
    settings = result["settings"]
    assert settings["model"] == "sim" and settings["loop"] == "closed" and settings["seed"] == 9
    assert (settings["requests"], settings["warmup"], settings["input_tokens"], settings["output_tokens"]) == (3, 2, 20, 5)
    assert settings["prompt_source"] == "/tokenize" and settings["prefix_cache_reset"] is True
    assert result["server"]["version"]["version"] and len(result["server"]["cluster"]["workers"]) == 2
    assert result["started_at"].startswith("20") and result["started_at"].endswith("Z")
    for name in ("ttft_ms", "itl_ms", "tpot_ms", "e2e_ms", "send_lag_ms"):
        row = result[name]
        assert row["min"] <= row["p50"] <= row["p90"] <= row["p99"] <= row["max"]
        assert row["min"] <= row["mean"] <= row["max"]
        assert row["percentiles"]["50"] == row["p50"] and row["percentiles"]["100"] == row["max"]
    assert result["good_requests"] == 0 and result["goodput_requests_per_second"] == 0  # nothing is that fast


def test_prompts_share_what_they_are_told_to(build_dir, server, tmp_path):
    _, _, _, apart = bench(build_dir, url_of(server), "--requests", 4, "--input-tokens", 256, "--output-tokens", 2,
                           json_path=tmp_path / "apart.json")
    _, _, _, shared = bench(build_dir, url_of(server), "--requests", 4, "--input-tokens", 256, "--output-tokens", 2,
                            "--shared-prefix-tokens", 224, json_path=tmp_path / "shared.json")
    assert apart["cached_prompt_tokens"] == 0  # although the seed is that of runs before
    assert shared["cached_prompt_tokens"] >= 4 * 192  # whole blocks; the warm-up brought them in


def test_open_loop_sends_when_requests_are_due(build_dir, server, tmp_path):
    arguments = ["--request-rate", 40, "--requests", 40, "--input-tokens", 16, "--output-tokens", 8]
    code, _, errors, result = bench(build_dir, url_of(server), *arguments, json_path=tmp_path / "out.json")
    assert code == 0, errors
    assert result["settings"]["loop"] == "open" and result["settings"]["request_rate"] == 40
    # 39 exponential gaps of 25 ms: with this seed they take 0.975 s give or take a third, whatever the server does.
    assert 0.6 < result["duration_s"] < 5
    assert result["send_lag_ms"]["count"] == 40 and result["send_lag_ms"]["min"] >= 0
    assert result["send_lag_ms"]["p50"] < 20


def test_model_that_is_not_served(build_dir, server):
    code, _, errors, _ = bench(build_dir, url_of(server), "--model", "nope", "--requests", 2)
    assert code == 1
    assert "HTTP 404" in errors and "nope" in errors
    code, table, _, _ = bench(build_dir, url_of(server), "--model", "nope", "--requests", 2, "--warmup", 0)
    assert code == 1
    assert "2 failed" in table and "2 × HTTP 404" in table


def test_prompt_longer_than_the_context(build_dir, server):
    code, table, _, _ = bench(build_dir, url_of(server), "--input-tokens", 9000, "--requests", 1, "--warmup", 0)
    assert code == 1
    assert "HTTP 400" in table and "9000" in table


@pytest.mark.parametrize("url", ["localhost:8000", "https://localhost", "http://localhost:99999"])
def test_bad_urls(build_dir, url):
    code, _, errors, _ = bench(build_dir, url)
    assert code == 2
    assert "http://host:port" in errors and url in errors


def test_server_gone(build_dir):
    with misbehaving(lambda handler: None) as url:
        pass
    code, _, errors, _ = bench(build_dir, url)
    assert code == 1
    assert url in errors and "refused" in errors


def test_flags_that_make_no_sense(build_dir):
    code, _, errors, _ = bench(build_dir, "http://127.0.0.1:1", "--input-tokens", 8, "--shared-prefix-tokens", 9)
    assert code == 2
    assert "--shared-prefix-tokens" in errors


@contextlib.contextmanager
def misbehaving(answer):
    """A server whose completions are what `answer(handler)` writes; knows nothing but that and /v1/models."""
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def whole(self, status, body):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            known = self.path == "/v1/models"
            self.whole(200 if known else 404, b'{"data":[{"id":"other"}]}' if known else b"none")

        def do_POST(self):
            self.request_body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
            if self.path != "/v1/completions":
                return self.whole(404, b"none")
            answer(self)

        def stream(self, *events, end=b"0\r\n\r\n"):
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for event in events:
                data = f"data: {event}\n\n".encode()
                self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.write(end)
            if not end:
                self.close_connection = True

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


TOKEN = '{"choices":[{"index":0,"text":" a","finish_reason":null}]}'
LAST = '{"choices":[{"index":0,"text":" z","finish_reason":"length"}]}'


def usage(tokens):
    return json.dumps({"choices": [], "usage": {"prompt_tokens": 8, "completion_tokens": tokens}})


@pytest.mark.parametrize("answer, error", [
    (lambda handler: handler.stream(TOKEN, end=b""), "the connection ended within the body"),
    (lambda handler: handler.stream(TOKEN, LAST, usage(2)), "without [DONE]"),
    (lambda handler: handler.stream(TOKEN, LAST, usage(2), "[DONE]"), "expected 3 output tokens, found 2"),
    (lambda handler: handler.stream(TOKEN, '{"error":{"message":"worker lost"}}', "[DONE]"), "worker lost"),
    (lambda handler: handler.stream(TOKEN, "{nonsense"), "expected a JSON object"),
    (lambda handler: handler.whole(200, b"{}"), "not an event stream"),
    (lambda handler: handler.whole(503, b'{"error":{"message":"full"}}'), "HTTP 503: full"),
    (lambda handler: handler.wfile.write(b"HELO\r\n\r\n"), "expected a status line"),
])
def test_failures_are_counted_by_kind(build_dir, tmp_path, answer, error):
    with misbehaving(answer) as url:
        code, table, _, result = bench(build_dir, url, "--requests", 2, "--warmup", 0, "--output-tokens", 3,
                                       json_path=tmp_path / "out.json")
    assert code == 1
    assert error in table and "0 done, 2 failed" in table
    assert result["failed"] == 2 and len(result["errors"]) == 1 and error in next(iter(result["errors"]))


def test_another_server_with_pieces_of_several_tokens(build_dir, tmp_path):
    bodies = []

    def answer(handler):
        bodies.append(handler.request_body)
        handler.stream(TOKEN, TOKEN, LAST, usage(6), "[DONE]")

    with misbehaving(answer) as url:
        code, table, errors, result = bench(build_dir, url, "--requests", 3, "--warmup", 1, "--input-tokens", 8,
                                            "--output-tokens", 6, json_path=tmp_path / "out.json")
    assert code == 0, table + errors
    assert (result["output_tokens"], result["content_pieces"], result["itl_ms"]["count"]) == (18, 9, 6)
    assert "9 of 18 tokens came together" in table and "prefix cache could not be emptied" in table
    assert result["settings"]["prompt_source"] == "ids 1000 to 4999" and result["settings"]["model"] == "other"
    assert result["server"] == {"version": None, "cluster": None}
    assert all(len(body["prompt"]) == 8 and body["max_tokens"] == body["min_tokens"] == 6 for body in bodies)
    assert len({tuple(body["prompt"]) for body in bodies}) == 4


def test_idle_connections_that_the_server_closed_are_opened_anew(build_dir):
    def answer(handler):  # keep-alive is promised, and the connection closed all the same
        handler.stream(TOKEN, LAST, usage(2), "[DONE]")
        handler.close_connection = True

    with misbehaving(answer) as url:
        code, table, errors, _ = bench(build_dir, url, "--requests", 20, "--warmup", 0, "--output-tokens", 2)
    assert code == 0, table + errors
