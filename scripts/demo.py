"""The main job on a real model: a chat through a prefill worker and a decode worker, streamed, and where its time went."""
import http.client
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODEL = ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
QUESTION = os.environ.get("BATON_DEMO_QUESTION", "In three sentences: why is the sky blue, and why is the sunset red?")
START_LIMIT_S = 120
terminal = threading.Lock()  # held while the answer streams, so that the server's messages do not cut it in two


def relay(lines):
    """Prints the server's messages as they come."""
    for line in lines:
        with terminal:
            sys.stderr.write(line)
            sys.stderr.flush()


def get(port, path):
    """The parsed answer, or None while there is none."""
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", path)
        response = connection.getresponse()
        return json.load(response) if response.status == 200 else None
    except OSError:
        return None


def wait_until_ready(server, port):
    """Returns when both workers are ready; ends the demo with the reason when they cannot be."""
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            sys.exit(f"demo: the server ended with code {server.returncode}; its messages are above")
        cluster = get(port, "/cluster")
        # A worker is connected once it has told how many KV blocks it has.
        if cluster and len(cluster["workers"]) == 2 and all(
                worker["state"] == "ready" and worker["blocks"]["total"] > 0 for worker in cluster["workers"]):
            return
        time.sleep(0.05)
    sys.exit(f"demo: not ready after {START_LIMIT_S} s")


def chat(port):
    """Streams one answer to the terminal. Returns (seconds to its first token, usage, the server's account, seconds in all)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    body = {
        "model": get(port, "/v1/models")["data"][0]["id"],
        "messages": [{"role": "user", "content": QUESTION}],
        "temperature": 0,
        "max_tokens": 120,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    started = time.monotonic()
    connection.request("POST", "/v1/chat/completions", json.dumps(body),
                       {"Content-Type": "application/json", "x-baton-explain": "1"})
    response = connection.getresponse()
    if response.status != 200:
        sys.exit(f"demo: HTTP {response.status}: {response.read().decode()}")
    first = usage = explain = None
    with terminal:
        for raw in response:
            line = raw.decode().strip()
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            event = json.loads(line[6:])
            if "error" in event:
                sys.exit(f"demo: {event['error']['message']}")
            usage = event.get("usage") or usage
            explain = event.get("baton") or explain
            for choice in event.get("choices", []):
                text = choice.get("delta", {}).get("content") or ""
                if text:
                    first = first or time.monotonic() - started
                    print(text, end="", flush=True)
        print()
    if first is None or usage is None or explain is None:
        sys.exit("demo: the answer had no text, usage or account of its time")
    return first, usage, explain, time.monotonic() - started


def report(first, usage, explain, total):
    choice = explain["choices"][0]
    handoff = choice["handoff"]
    tokens = usage["completion_tokens"]
    print("\nwhere the time went")
    print(f"  queue        {choice['queue_ms']:8.1f} ms")
    print(f"  prefill      {choice['prefill_ms']:8.1f} ms   {usage['prompt_tokens']} tokens on worker {choice['prefill_worker']}")
    if handoff is None:
        sys.exit("demo: nothing was handed over")
    print(f"  hand-off     {handoff['after_prefill_ms']:8.1f} ms   from the end of prefill; {handoff['bytes']} bytes to worker "
          f"{choice['decode_worker']}; {handoff['path']}")
    print(f"  first token  {first * 1e3:8.1f} ms   as the client saw it")
    print(f"  decode       {(tokens - 1) / max(total - first, 1e-9):8.1f} tokens/s, {tokens} tokens")


def main():
    command = [str(ROOT / "build" / "baton"), "serve", str(MODEL), "--prefill", "1x1", "--decode", "1x1"]
    port = int(os.environ.get("BATON_DEMO_PORT", "8011"))
    print("$ build/baton " + " ".join([*command[1:2], str(MODEL.relative_to(ROOT)), *command[3:]]))
    server = subprocess.Popen([*command, "--port", str(port)], stderr=subprocess.PIPE, text=True)
    messages = threading.Thread(target=relay, args=[server.stderr], daemon=True)
    messages.start()
    try:
        wait_until_ready(server, port)
        print(f"\nuser: {QUESTION}\n")
        report(*chat(port))
    finally:
        if server.poll() is None:
            server.send_signal(signal.SIGTERM)
        try:
            code = server.wait(timeout=40)
        except subprocess.TimeoutExpired:
            server.kill()
            sys.exit("demo: the server did not stop")
        messages.join(timeout=5)
    if code != 0:
        sys.exit(f"demo: the server ended with code {code}")


if __name__ == "__main__":
    main()
