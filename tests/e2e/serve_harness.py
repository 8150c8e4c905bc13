"""A running `nautile serve` and raw sockets to talk to it. Standard library only."""
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

class Server:
    def __init__(self, nautile, *flags, backend="scripted", model=None, env=None, port=0, wait=True):
        arguments = [nautile, "serve"] + ([model] if model else [])
        arguments += ["--port", str(port), "--backend", backend, *flags]
        self.lines = []
        self.process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, env={**os.environ, **(env or {})})
        self.port = None
        while self.port is None:
            line = self.process.stderr.readline()
            if not line:
                raise SystemExit("the server did not start:\n" + "".join(self.lines))
            self.lines.append(line)
            if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                self.port = int(found.group(1))
        import threading
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        deadline = time.time() + (60 if wait else 0)
        while time.time() < deadline and self.get("/v1/health/ready").status != 200:
            time.sleep(0.02)

    def _read(self):
        for line in self.process.stderr:
            self.lines.append(line)

    def connect(self, timeout=20):
        s = socket.create_connection(("127.0.0.1", self.port), timeout=timeout)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return s

    def raw(self, data, timeout=20):
        with self.connect(timeout) as s:
            s.sendall(data)
            return read_response(s)

    def get(self, path, headers=None, method="GET"):
        return self.raw(head(method, path, headers))

    def post(self, path, body, headers=None):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.raw(head("POST", path, {"Content-Type": "application/json", "Content-Length": len(data), **(headers or {})}) + data)

    def stream(self, path, body, headers=None):
        """All events of a streamed answer: (name, data) pairs, data parsed unless [DONE]."""
        response = self.post(path, body, headers)
        assert response.status == 200, response.body
        return events(response.body)

    def requests(self):
        """The log's request lines so far."""
        return [json.loads(line) for line in self.lines if '"request_id"' in line]

    def metric(self, name, labels=""):
        total = 0.0
        for line in self.get("/metrics").body.decode().splitlines():
            if line.startswith(name + "{") or line.startswith(name + " "):
                if labels in line:
                    total += float(line.rsplit(" ", 1)[1])
        return total

    def stop(self, with_signal=signal.SIGTERM, timeout=30):
        self.process.send_signal(with_signal)
        return self.process.wait(timeout)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if self.process.poll() not in (None, 0) or kind is not None:
            self.reader.join(0.5)
            print("".join(line for line in self.lines if '"request_id"' not in line)[-4000:], file=sys.stderr)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.reader.join(1)
        found = [line for line in self.lines if "Sanitizer" in line or "runtime error:" in line]
        if found and kind is None:
            raise AssertionError("".join(self.lines[self.lines.index(found[0]):][:60]))


class Response:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)

    def code(self):
        return self.json()["error"]["code"]


def head(method, path, headers=None):
    lines = [f"{method} {path} HTTP/1.1"]
    fields = {"Host": "localhost", **(headers or {})}
    lines += [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def read_head(s, rest=b""):
    while b"\r\n\r\n" not in rest:
        more = s.recv(65536)
        if not more:
            return None, None, rest
        rest += more
    text, rest = rest.split(b"\r\n\r\n", 1)
    lines = text.decode().split("\r\n")
    headers = {}
    for line in lines[1:]:
        name, value = line.split(": ", 1)
        headers[name.lower()] = value
    return int(lines[0].split()[1]), headers, rest


def read_response(s, rest=b"", head_only=False):
    """One whole answer; keeps what follows in Response.rest."""
    status, headers, rest = read_head(s, rest)
    if status is None:
        return Response(0, {}, b"")
    if status == 100:
        return read_response(s, rest)
    body = b""
    if head_only or status == 204:
        pass
    elif headers.get("transfer-encoding") == "chunked":
        while True:
            while b"\r\n" not in rest:
                more = s.recv(65536)
                if not more:
                    response = Response(status, headers, body)
                    response.cut = True
                    return response
                rest += more
            size_text, rest = rest.split(b"\r\n", 1)
            size = int(size_text, 16)
            while len(rest) < size + 2:
                more = s.recv(65536)
                if not more:
                    response = Response(status, headers, body + rest)
                    response.cut = True
                    return response
                rest += more
            body += rest[:size]
            rest = rest[size + 2:]
            if size == 0:
                break
    elif "content-length" in headers:
        size = int(headers["content-length"])
        while len(rest) < size:
            more = s.recv(65536)
            if not more:
                break
            rest += more
        body, rest = rest[:size], rest[size:]
    else:
        while True:
            more = s.recv(65536)
            if not more:
                break
            rest += more
        body, rest = rest, b""
    response = Response(status, headers, body)
    response.rest = rest
    return response


def events(body):
    made = []
    for block in body.decode().split("\n\n"):
        name, data = None, None
        for line in block.split("\n"):
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: "):
                data = line[6:]
        if data is not None:
            made.append((name, data if data == "[DONE]" else json.loads(data)))
    return made


def check(condition, what):
    if not condition:
        raise AssertionError(what)


D = "｜DSML｜"


def call_text(*calls):
    """A block of calls as the model writes it: (name, parameters) each."""
    text = f"\n\n<{D}tool_calls>\n"
    for name, parameters in calls:
        text += f'<{D}invoke name="{name}">\n'
        for key, value in parameters.items():
            kind = "true" if isinstance(value, str) else "false"
            text += f'<{D}parameter name="{key}" string="{kind}">{value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}</{D}parameter>\n'
        text += f"</{D}invoke>\n"
    return text + f"</{D}tool_calls>"


def eventually(condition, seconds=5, what="condition"):
    deadline = time.time() + seconds
    while time.time() < deadline:
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError(f"{what} not within {seconds} s")


def run_all(tests, nautile):
    for test in tests:
        begin = time.time()
        try:
            test(nautile)
        except AssertionError as error:
            sys.exit(f"FAILED: {test.__name__}: {error}")
        print(f"{test.__name__}: ok ({time.time() - begin:.1f} s)", flush=True)


def chat(text="hi", **fields):
    return {"model": "nautile", "messages": [{"role": "user", "content": text}], **fields}


def script(**fields):
    return {"x-script": json.dumps(fields)}
