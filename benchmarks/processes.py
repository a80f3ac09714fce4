"""Servers of our own, what the kernel says about their processes, and the programs that measure ceilings."""
import http.client
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("BATON_BUILD", ROOT / "build"))
MODEL = pathlib.Path(os.environ.get("BATON_MODEL", ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"))
WEIGHT_BYTES = 96.58e6  # read for every decode step of the demo model: all its tensors
START_LIMIT_S = 180


class HttpServer:
    """Any server on a free port of loopback, from construction to stop(); `start_up` has the seconds from spawning it."""

    def __init__(self, program, arguments):
        self.log = tempfile.TemporaryFile()
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.command = [str(program), *map(str, arguments)]
        started = time.monotonic()
        self.process = subprocess.Popen([*self.command, "--port", str(self.port)], stdout=self.log, stderr=subprocess.STDOUT)
        try:
            self.start_up = self._start_up(started)
        except BaseException:
            self.stop()
            raise

    def _start_up(self, started):
        return {"health_s": self._wait(started, lambda: self.get("/health") is not None)}

    def _wait(self, started, condition):
        while time.monotonic() - started < START_LIMIT_S:
            if condition():
                return time.monotonic() - started
            if self.process.poll() is not None:
                break
            time.sleep(0.005)
        raise SystemExit(f"{' '.join(self.command)} did not start:\n{self.log_text()}")

    def log_text(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def get(self, path):
        """The parsed answer ({} when it is empty), or None while there is none."""
        return self.exchange("GET", path)

    def exchange(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(method, path, json.dumps(body) if body else None,
                               {"Content-Type": "application/json", **(headers or {})})
            response = connection.getresponse()
            text = response.read()
            return (json.loads(text) if text else {}) if response.status == 200 else None
        except OSError:
            return None
        finally:
            connection.close()

    def pids(self):
        """Name → process."""
        return {"server": self.process.pid}

    def cpu(self):
        """Name → (seconds on a processor, seconds ready to run but kept waiting), of all threads so far."""
        return {name: cpu_of(pid) for name, pid in self.pids().items()}

    def memory(self):
        """Name → resident MB, and proportional MB (shared pages divided among those who share them)."""
        return {name: {"rss_mb": _kilobytes(f"/proc/{pid}/status", "VmRSS:") / 1e3,
                       "pss_mb": _kilobytes(f"/proc/{pid}/smaps_rollup", "Pss:") / 1e3} for name, pid in self.pids().items()}

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=40)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class Server(HttpServer):
    """A `baton serve`, with the processes that it starts."""

    def __init__(self, arguments):
        super().__init__(BUILD / "baton", ["serve", *arguments])

    def _start_up(self, started):
        return {**super()._start_up(started), "all_workers_ready_s": self._wait(started, self._workers_ready)}

    def _workers_ready(self):
        cluster = self.get("/cluster")
        return cluster and cluster["workers"] and all(
            worker["state"] == "ready" and worker["blocks"]["total"] > 0 for worker in cluster["workers"])

    def pids(self):
        """Name → process: supervisor, frontend, and each worker by its --process name."""
        found = {"supervisor": self.process.pid}
        for task in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir():
            for pid in map(int, (task / "children").read_text().split()):
                arguments = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
                found[arguments[arguments.index("--process") + 1]] = pid
        return found


def _free_port():
    import socket
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _kilobytes(path, field):
    for line in pathlib.Path(path).read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    raise SystemExit(f"{path} has no {field}")


def cpu_of(pid):
    run = wait = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        on_cpu, delayed, _ = map(int, (task / "schedstat").read_text().split())
        run += on_cpu
        wait += delayed
    return run / 1e9, wait / 1e9


def load(server, **settings):
    """One `baton bench serve`: its JSON."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "result.json"
        command = [BUILD / "baton", "bench", "serve", server.url, "--json", path]
        for name, value in settings.items():
            flag = "--" + name.replace("_", "-")
            command += [flag] if value is True else [flag, str(value)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
        return json.loads(path.read_text())


def ceiling(program):
    """What `read_bandwidth` or `integer_peak` prints, after a second of measuring."""
    done = subprocess.run([BUILD / "benchmarks" / program, "1"], capture_output=True, text=True, check=True)
    pairs = dict(pair.split("=") for pair in done.stdout.split())
    return {name: value if name == "instructions" else float(value) for name, value in pairs.items()}
