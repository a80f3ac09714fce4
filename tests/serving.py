"""Real servers for tests: `baton serve` as a process of its own, on a free port, ended with its test."""
import contextlib
import http.client
import json
import os
import signal
import subprocess
import time


class Server:
    def __init__(self, build_dir, arguments, log_path, wait=True):
        self.log_path = log_path
        self.log = open(log_path, "wb")
        command = [str(build_dir / "baton"), "serve", *map(str, arguments), "--port", "0", "--abort-on-leak"]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT)
        self.port = None
        if wait:
            self.wait_ready()

    def output(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return log.read()

    def wait_for_log(self, text, timeout_s=60):
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if text in self.output():
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"no {text!r} in the log:\n{self.output()}")

    def wait_ready(self, timeout_s=60):
        self.wait_for_log("serving ", timeout_s)
        line = next(line for line in self.output().splitlines() if "serving " in line)
        self.port = int(line.split("http://127.0.0.1:")[1].split()[0])
        self.wait_until(lambda: all(w["state"] == "ready" and w["blocks"]["total"] > 0 for w in self.workers()))
        self.wait_until(lambda: self.request("GET", "/health")[0] == 200)

    @staticmethod
    def wait_until(condition, timeout_s=30):
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if condition():
                return
            time.sleep(0.02)
        raise AssertionError("the condition did not come true in time")

    def request(self, method, path, body=None, headers=None, timeout_s=120):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            data = json.dumps(body) if body is not None else None
            connection.request(method, path, data, {"Content-Type": "application/json", **(headers or {})})
            response = connection.getresponse()
            raw = response.read()
            return response.status, json.loads(raw) if raw[:1] in (b"{", b"[") else raw.decode()
        finally:
            connection.close()

    def complete(self, prompt, **fields):
        """One completion; returns the parsed answer."""
        status, answer = self.request("POST", "/v1/completions", {"prompt": prompt, "return_token_ids": True, **fields},
                                      {"x-baton-explain": "1"})
        assert status == 200, answer
        return answer

    def stream(self, body, path="/v1/completions", headers=None):
        """Yields (seconds since the request, event) for each event."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        started = time.monotonic()
        connection.request("POST", path, json.dumps({**body, "stream": True}), {"Content-Type": "application/json", **(headers or {})})
        response = connection.getresponse()
        assert response.status == 200, response.read()
        with contextlib.closing(connection):
            for raw in response:
                line = raw.decode().strip()
                if line.startswith("data: ") and line != "data: [DONE]":
                    yield time.monotonic() - started, json.loads(line[6:])

    def cluster(self):
        return self.request("GET", "/cluster")[1]

    def workers(self):
        return self.cluster()["workers"]

    def worker(self, name):
        return next(worker for worker in self.workers() if worker["name"] == name)

    def pid_of(self, name):
        """The process of one child of the server."""
        for pid in self.child_pids():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{pid}/cmdline", "rb") as file:
                if name.encode() in file.read().split(b"\0"):
                    return pid
        raise AssertionError(f"{name} does not run")

    def child_pids(self):
        children = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                parent = int(file.read().rsplit(")", 1)[1].split()[1])
                if parent == self.process.pid:
                    children.append(int(pid))
        return children

    def kill(self, name, signal_number=signal.SIGKILL):
        os.kill(self.pid_of(name), signal_number)

    def wait_nothing_left(self, timeout_s=30):
        """Until no worker holds a sequence, a reservation or a fenced block."""
        def quiet():
            return all(worker["running"] + worker["waiting"] + worker["held"] + worker["reservations"] + worker["blocks"]["fenced"] == 0
                       and worker["blocks"]["free"] + worker["blocks"]["cached"] == worker["blocks"]["total"]
                       and not worker["integrity_error"] for worker in self.workers())
        self.wait_until(quiet, timeout_s)

    def stop(self, timeout_s=40):
        """Drains; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise AssertionError(f"the server did not stop:\n{self.output()}") from None
        self.log.close()
        return self.process.returncode


@contextlib.contextmanager
def serving(build_dir, arguments, tmp_path, name="server"):
    server = Server(build_dir, arguments, tmp_path / f"{name}.log")
    try:
        yield server
    except BaseException:
        print(server.output())
        raise
    finally:
        code = server.stop()
    assert code == 0, server.output()
