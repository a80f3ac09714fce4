"""Sends what `genai-perf profile --endpoint-type chat --streaming` sends, written from its published recipe, and checks the answers.

    replay_genai_perf.py URL MODEL [--concurrency 2] [--requests 8] [--output-tokens 16]

genai-perf's own binary (perf_analyzer) needs glibc 2.38; its requests need nothing but this file.
"""
import argparse
import http.client
import json
import statistics
import sys
import threading
import time
import urllib.parse

LINE = "Shall I compare thee to a summer's day? Thou art more lovely and more temperate. "  # it draws from Shakespeare


def body_of(model, index, output_tokens):
    """The recipe's --extra-inputs, merged into the body as genai-perf merges them."""
    return {"messages": [{"role": "user", "content": f"{index} " + LINE * 6}], "model": model, "stream": True,
            "max_tokens": output_tokens, "min_tokens": output_tokens, "ignore_eos": True, "nvext": {"ignore_eos": True}}


def one_request(connection, model, index, output_tokens):
    """Returns (seconds to the first content, pieces of content); raises ValueError for anything but a good answer."""
    data = json.dumps(body_of(model, index, output_tokens)).encode()
    started = time.monotonic()
    # The headers in perf_analyzer's order: libcurl's own, then those of -H.
    connection.putrequest("POST", "/v1/chat/completions", skip_accept_encoding=True)
    for name, value in (("Accept", "*/*"), ("Content-Type", "application/json"), ("Authorization", "Bearer NOT USED"),
                        ("Content-Length", str(len(data)))):
        connection.putheader(name, value)
    connection.endheaders(data)
    response = connection.getresponse()
    if response.status != 200:
        raise ValueError(f"HTTP {response.status}: {response.read().decode()}")
    if not response.headers["Content-Type"].startswith("text/event-stream"):
        raise ValueError(f"expected an event stream, found {response.headers['Content-Type']}")
    first, pieces, finish, done = None, 0, None, False
    for raw in response:
        line = raw.decode().rstrip("\r\n")
        if not line.startswith("data: "):
            continue
        if line == "data: [DONE]":
            done = True
            continue
        event = json.loads(line[len("data: "):])
        if "error" in event:
            raise ValueError(event["error"]["message"])
        for choice in event["choices"]:
            finish = choice.get("finish_reason") or finish
            if choice["delta"].get("content"):
                first = first or time.monotonic() - started
                pieces += 1
    if not done or finish != "length" or first is None:
        raise ValueError(f"expected content, finish_reason length and [DONE]; found {pieces} pieces, {finish}, {done}")
    return first, pieces


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("model")
    parser.add_argument("--concurrency", type=int, default=2)
    parser.add_argument("--requests", type=int, default=8)
    parser.add_argument("--output-tokens", type=int, default=16)
    arguments = parser.parse_args()
    target = urllib.parse.urlsplit(arguments.url)
    indices, lock, firsts, errors = iter(range(arguments.requests)), threading.Lock(), [], []

    def user():
        connection = http.client.HTTPConnection(target.hostname, target.port, timeout=120)
        while True:
            with lock:
                index = next(indices, None)
            if index is None:
                return connection.close()
            try:
                first, _ = one_request(connection, arguments.model, index, arguments.output_tokens)
                firsts.append(first)
            except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
                errors.append(f"{type(error).__name__}: {error}")
                connection.close()

    users = [threading.Thread(target=user) for _ in range(arguments.concurrency)]
    for thread in users:
        thread.start()
    for thread in users:
        thread.join()
    if errors or len(firsts) != arguments.requests:
        sys.exit(f"genai-perf's requests: {len(errors)} of {arguments.requests} failed: {errors[:3]}")
    print(f"genai-perf's requests: {len(firsts)} of {arguments.requests} answered, TTFT p50 {statistics.median(firsts) * 1e3:.1f} ms")


if __name__ == "__main__":
    main()
