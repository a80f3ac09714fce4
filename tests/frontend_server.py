"""Starts tests/oracle/frontend_oracle: the real front end over a fake generator, on a port of its own."""

import contextlib
import json
import socket
import subprocess
import time
import urllib.request

import tokenizer_references


def make_tokenizer(model, directory):
    """Writes the demo model's tokenizer and a ChatML template; returns the reference tokenizer."""
    reference, _ = tokenizer_references.make("smollm", model, directory)
    (directory / "chat_template.jinja").write_text(
        "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
    return reference


class Server:
    def __init__(self, build_dir, tokenizer_dir, **settings):
        self.process = subprocess.Popen([build_dir / "tests" / "frontend_oracle", tokenizer_dir, json.dumps(settings)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = json.loads(self.process.stdout.readline())["port"]
        self.url = f"http://127.0.0.1:{self.port}"

    def tell(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        self.process.stdout.readline()

    def get(self, path):
        return urllib.request.urlopen(self.url + path, timeout=5)

    def fake(self):
        return json.load(self.get("/cluster"))["fake"]

    def wait_for(self, condition, seconds=3):
        """Until condition(fake()) holds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if condition(self.fake()):
                return
            time.sleep(0.01)
        raise AssertionError(f"still {self.fake()}")

    def connect(self):
        return RawConnection(self.port)

    def stop(self):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            return self.process.wait(timeout=10)
        finally:
            self.process.kill()


class RawConnection:
    """A client that shows every byte."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.data = b""

    def send(self, data):
        self.socket.sendall(data)

    def read_until(self, end):
        while end not in self.data:
            more = self.socket.recv(65536)
            if not more:
                raise ConnectionError(f"closed after {self.data!r}")
            self.data += more
        at = self.data.index(end) + len(end)
        out, self.data = self.data[:at], self.data[at:]
        return out

    def response(self, head_only=False):
        """Returns (status, headers, body) of the next answer."""
        head = self.read_until(b"\r\n\r\n").decode()
        lines = head.split("\r\n")
        status = int(lines[0].split()[1])
        headers = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines[1:] if line)}
        if head_only or status in (100, 204):
            return status, headers, b""
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while True:
                size = int(self.read_until(b"\r\n"), 16)
                while len(self.data) < size + 2:
                    self.data += self.socket.recv(65536)
                body += self.data[:size]
                self.data = self.data[size + 2:]
                if size == 0:
                    return status, headers, body
        length = int(headers["content-length"])
        while len(self.data) < length:
            more = self.socket.recv(65536)
            if not more:
                raise ConnectionError("closed within a body")
            self.data += more
        body, self.data = self.data[:length], self.data[length:]
        return status, headers, body

    def at_end(self):
        """True when the server has closed the connection (within the time-out)."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def close(self):
        self.socket.close()


def post(path, body, headers=""):
    """The bytes of a POST."""
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    return (f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{headers}"
            f"Content-Length: {len(body)}\r\n\r\n").encode() + body


def events(body):
    """The data of each server-sent event; comments are left out."""
    blocks = [block for block in body.decode().split("\n\n") if block and not block.startswith(":")]
    assert all(block.startswith("data: ") for block in blocks), blocks
    return [block[len("data: "):] for block in blocks]
