#!/usr/bin/env python3
"""The wire: framing, limits, timeouts, keep-alive, attacks, keys, disconnects, slow readers, draining.

usage: serve_transport.py NAUTILE
"""
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from serve_harness import Server, chat, check, eventually, events, head, read_head, read_response, run_all, script

JSON = {"Content-Type": "application/json"}


def framing(nautile):
    with Server(nautile) as server:
        body = json.dumps(chat()).encode()
        ok = head("POST", "/v1/chat/completions", {**JSON, "Content-Length": len(body)}) + body
        # Two requests in one packet, answered in order on one connection; then a third.
        with server.connect() as s:
            s.sendall(ok + ok)
            first = read_response(s)
            second = read_response(s, first.rest)
            s.sendall(head("GET", "/v1/models"))
            third = read_response(s, second.rest)
            check([r.status for r in (first, second, third)] == [200] * 3, "pipelining and keep-alive")
        # Chunked, cut at every place, with an extension and trailers.
        chunks = b"5;x=y\r\n" + body[:5] + b"\r\n" + b"%x\r\n" % (len(body) - 5) + body[5:] + b"\r\n0\r\nT: x\r\n\r\n"
        chunked = head("POST", "/v1/chat/completions", {**JSON, "Transfer-Encoding": "chunked"}) + chunks
        check(server.raw(chunked).status == 200, "chunked")
        with server.connect() as s:
            for byte in chunked:
                s.sendall(bytes([byte]))
            check(read_response(s).status == 200, "byte by byte")
        # Expect: 100-continue.
        with server.connect() as s:
            s.sendall(head("POST", "/v1/chat/completions", {**JSON, "Content-Length": len(body), "Expect": "100-continue"}))
            status, _, rest = read_head(s)
            check(status == 100, f"100 Continue, got {status}")
            s.sendall(body)
            check(read_response(s, rest).status == 200, "after 100")
        # HTTP/1.0: closes, streams without chunks.
        old = ok.replace(b"HTTP/1.1", b"HTTP/1.0")
        answer = server.raw(old)
        check(answer.status == 200 and answer.headers.get("connection") == "close", "HTTP/1.0 closes")
        data = json.dumps(chat(stream=True)).encode()
        answer = server.raw(head("POST", "/v1/chat/completions", {**JSON, "Content-Length": len(data)}).replace(b"1.1", b"1.0") + data)
        check("transfer-encoding" not in answer.headers and events(answer.body)[-1][1] == "[DONE]", "HTTP/1.0 stream")
        # HEAD, trailing slash, query, ids.
        with server.connect() as s:
            s.sendall(head("HEAD", "/v1/models/?a=b", {"X-Request-Id": "mine-1"}))
            answer = read_response(s, head_only=True)
            check(answer.status == 200 and int(answer.headers["content-length"]) > 0 and answer.body == b"", "HEAD")
            check(answer.headers["x-request-id"] == "mine-1", "request id is echoed")
            s.sendall(head("GET", "/v1/models", {"X-Request-Id": "bad id\tx"}))
            check(read_response(s).headers["x-request-id"].startswith("req_"), "a bad id is replaced")
        answer = server.get("/v1/chat/completions")
        check(answer.status == 405 and "POST" in answer.headers["allow"] and answer.code() == "method_not_allowed", "405")
        for path in ("/nothing", "//v1/models", "/v1/../v1/models", "/v1/models%2f..", "/v1%2Fmodels", "/etc/passwd", "*"):
            check(server.get(path).status == 404, f"404 for {path}")
        answer = server.get("/v1/messages/nothing")
        check(answer.status == 404 and answer.json()["type"] == "error", "404 in the prefix's dialect")
        answer = server.get("/v1/models", method="OPTIONS")
        check(answer.status == 204 and "GET" in answer.headers["allow"] and "access-control-allow-origin" not in answer.headers, "OPTIONS")


def attacks(nautile):
    with Server(nautile, "--max-body", "100000") as server:
        body = json.dumps(chat()).encode()
        size = str(len(body)).encode()
        post = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        bad = {
            "both lengths": post + b"Content-Length: " + size + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + body,
            "two lengths": post + b"Content-Length: 5\r\nContent-Length: " + size + b"\r\n\r\n" + body,
            "negative length": post + b"Content-Length: -1\r\n\r\n" + body,
            "huge length": post + b"Content-Length: 99999999999999999999999\r\n\r\n" + body,
            "bad chunk size": post + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + body,
            "huge chunk size": post + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n" + body,
            "long extension": post + b"Transfer-Encoding: chunked\r\n\r\n5;" + b"x" * 1000 + b"\r\nhello\r\n0\r\n\r\n",
            "gzip coding": post + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "two hosts": b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nHost: other\r\n\r\n",
            "no host": b"GET /v1/models HTTP/1.1\r\n\r\n",
            "space before colon": b"GET /v1/models HTTP/1.1\r\nHost : localhost\r\n\r\n",
            "no version": b"GET /v1/models\r\n\r\n",
            "version 3": b"GET /v1/models HTTP/3.0\r\nHost: localhost\r\n\r\n",
            "garbage": bytes(range(256)),
            "tls hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64 + b"\r\n\r\n",
        }
        for name, data in bad.items():
            answer = server.raw(data)
            check(answer.status == 400, f"{name}: {answer.status}")
        check(server.get("/" + "a" * 9000).status == 414, "414")
        check(server.get("/" + "a" * 90000).status == 414, "414, far too long")
        check(server.get("/v1/models", {"X": "a" * 17000}).status == 431, "one long header")
        check(server.get("/v1/models", {f"X{i}": "a" * 1000 for i in range(90)}).status == 431, "long headers")
        check(server.get("/v1/models", {f"X{i}": "a" for i in range(150)}).status == 431, "many headers")
        big = b'{"model":"' + b"x" * 200000 + b'"}'
        answer = server.post("/v1/chat/completions", big)
        check(answer.status == 413 and answer.code() == "request_too_large", "413 by length")
        chunked = post + b"Transfer-Encoding: chunked\r\n\r\n" + b"%x\r\n" % len(big) + big + b"\r\n0\r\n\r\n"
        check(server.raw(chunked).status == 413, "413 by chunks")
        for kind in ("text/plain", "application/x-www-form-urlencoded", "", "application/json; charset=latin-1"):
            check(server.post("/v1/chat/completions", chat(), {"Content-Type": kind}).status == 415, f"415 for {kind!r}")
        check(server.post("/v1/chat/completions", chat(), {"Content-Type": "application/json; charset=UTF-8"}).status == 200, "charset")
        check(server.post("/v1/chat/completions", chat(), {"Content-Encoding": "gzip"}).status == 415, "gzip")
        for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example"):
            answer = server.get("/v1/models", {"Host": host})
            check(answer.status == 403 and answer.code() == "host_not_allowed", f"Host {host}")
        check(server.get("/v1/models", {"Host": "127.0.0.1:1"}).status == 200, "own address")
        bodies = {
            b"[]": "invalid_json", b"1": "invalid_json", b"": "invalid_json", b"null": "invalid_json", b"{": "invalid_json",
            b'{"a":1,}': "invalid_json", b'{"a":NaN}': "invalid_json", b'{"a":"\xff"}': "invalid_json",
            b'{"a":1}x': "invalid_json", b'{}\x00': "invalid_json", b"// c\n{}": "invalid_json",
            b'{"a":' * 200 + b"1" + b"}" * 200: "json_too_deep", b'{"a":' + b"[" * 40000: "json_too_deep",
        }
        for data, code in bodies.items():
            answer = server.post("/v1/chat/completions", data)
            check(answer.status == 400 and answer.code() == code, f"{data[:20]!r}: {answer.status} {answer.body[:200]!r}")
        answer = server.post("/v1/chat/completions", json.dumps(chat()).replace("hi", "\\ud83d \\u0000").encode())
        check(answer.status == 200, "a lone surrogate and a NUL are legal")
        check(server.get("/v1/health/ready").status == 200, "still ready")


def large_bodies(nautile):
    """Many large requests at once: those for which there is no room are refused, and have room again afterwards."""
    with Server(nautile, "--max-body", "100000", "--max-bodies", "150000") as server:
        body = json.dumps(chat(unknown="x" * 80000)).encode()
        begun = head("POST", "/v1/chat/completions", {**JSON, "Content-Length": len(body)})
        with server.connect() as s:
            s.sendall(begun + body[:-1])
            def refused():
                return server.post("/v1/chat/completions", body)
            eventually(lambda: refused().status == 503, what="no room")
            answer = refused()
            check(answer.code() == "server_overloaded" and int(answer.headers["retry-after"]) >= 1, "503 with a time")
            check(server.post("/v1/messages", {**chat(unknown="x" * 80000), "max_tokens": 5}).status == 529, "529 in Messages")
            chunks = begun.split(b"Content-Length")[0] + b"Transfer-Encoding: chunked\r\n\r\n" + b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"
            check(server.raw(chunks).status == 503, "chunked too")
            check(server.post("/v1/chat/completions", chat()).status == 200, "small ones have room")
            s.sendall(body[-1:])
            check(read_response(s).status == 200, "the first is answered")
        for _ in range(5):
            check(refused().status == 200, "room again")


def timeouts(nautile):
    with Server(nautile, "--header-timeout", "0.4", "--body-timeout", "0.6", "--idle-timeout", "1") as server:
        with server.connect() as s:
            s.sendall(b"GET /v1/mod")
            check(read_response(s).status == 408, "slow head")
        with server.connect() as s:
            s.sendall(head("POST", "/v1/chat/completions", {**JSON, "Content-Length": 100}) + b"{")
            answer = read_response(s)
            check(answer.status == 408 and answer.code() == "request_timeout", "slow body")
        with server.connect() as s:
            begin = time.time()
            check(s.recv(1) == b"" and time.time() - begin < 5, "an idle connection is closed")


def keys(nautile):
    with tempfile.NamedTemporaryFile("w", suffix=".keys") as file:
        file.write("# keys\nalice:secret-a max_concurrent=1\nbob:secret-b rpm=2\n")
        file.flush()
        with Server(nautile, "--api-key-file", file.name, env={"NAUTILE_API_KEY": "from-env"}) as server:
            wrong = server.get("/v1/models")
            other = server.get("/v1/models", {"Authorization": "Bearer nope"})
            check(wrong.status == other.status == 401 and wrong.headers["www-authenticate"] == "Bearer", "401")
            check(wrong.json() == other.json(), "the same body for no key and a wrong one")
            for headers in ({"Authorization": "bearer secret-a"}, {"x-api-key": "secret-a"}, {"api-key": "from-env"}):
                check(server.get("/v1/models", headers).status == 200, f"{headers}")
            check(server.get("/v1/models?api_key=secret-a").status == 401, "never in the query")
            # Every route but the allowlist is closed, also for wrong methods and unknown paths.
            open_paths = {"/health", "/ping", "/v1/health/live", "/v1/health/ready", "/"}
            spec = server.get("/openapi.json", {"x-api-key": "secret-a"}).json()
            paths = list(spec["paths"]) + ["/metrics", "/load", "/chat/completions", "/anthropic/v1/messages", "/nothing", "/v1/x/y"]
            for path in paths:
                for method in ("GET", "POST", "DELETE", "PUT"):
                    status = server.get(path.replace("{", "x").replace("}", "x"), method=method).status
                    check(path in open_paths or status == 401, f"{method} {path}: {status}")
            # Limits of a key.
            for _ in range(2):
                check(server.post("/v1/chat/completions", chat(), {"x-api-key": "secret-b"}).status == 200, "bob's two")
            answer = server.post("/v1/chat/completions", chat(), {"x-api-key": "secret-b"})
            check(answer.status == 429 and int(answer.headers["retry-after"]) >= 1 and answer.json()["error"]["type"] == "rate_limit_error", "429")
            answer = server.post("/v1/messages", {**chat(), "max_tokens": 5}, {"x-api-key": "secret-b"})
            check(answer.status == 429 and answer.json()["error"]["type"] == "rate_limit_error", "429 in Messages")
            # A body is not read for a wrong key.
            with server.connect() as s:
                s.sendall(head("POST", "/v1/chat/completions", {**JSON, "Content-Length": 1000000}))
                check(read_response(s).status == 401, "401 before the body")
            # Reload: new keys count, a broken file keeps the old ones.
            file.seek(0)
            file.truncate()
            file.write("carol:secret-c\n")
            file.flush()
            server.process.send_signal(signal.SIGHUP)
            eventually(lambda: server.get("/v1/models", {"x-api-key": "secret-c"}).status == 200, what="reload")
            check(server.get("/v1/models", {"x-api-key": "secret-a"}).status == 401, "alice is gone")
            file.write("dave:x nonsense=1\n")
            file.flush()
            server.process.send_signal(signal.SIGHUP)
            eventually(lambda: any("stay as they were" in line for line in server.lines), what="failed reload")
            check(server.get("/v1/models", {"x-api-key": "secret-c"}).status == 200, "the old state stays")
            check(not any("secret" in line for line in server.lines), "no key in the log")
    import subprocess
    done = subprocess.run([nautile, "serve", "--backend", "scripted", "--host", "0.0.0.0", "--port", "0"], capture_output=True, text=True, timeout=20)
    check(done.returncode == 2 and "--allow-unauthenticated" in done.stderr, "no open door without a key")


def cors(nautile):
    with Server(nautile, "--cors-origins", "https://a.example") as server:
        answer = server.get("/v1/models", {"Origin": "https://a.example"})
        check(answer.headers["access-control-allow-origin"] == "https://a.example" and answer.headers["vary"] == "Origin", "allowed")
        check("access-control-allow-origin" not in server.get("/v1/models", {"Origin": "https://b.example"}).headers, "not allowed")
        answer = server.get("/v1/chat/completions", {"Origin": "https://a.example"}, method="OPTIONS")
        check(answer.status == 204 and "POST" in answer.headers["access-control-allow-methods"], "preflight")


def disconnects(nautile):
    with Server(nautile) as server:
        def running():
            return server.metric("vllm:num_requests_running")
        endless = script(text="word ", loop=True, token_ms=5)
        for stream in (True, False):
            for kind in ("close", "reset", "half"):
                data = json.dumps(chat(stream=stream, max_tokens=16000)).encode()
                s = server.connect()
                s.sendall(head("POST", "/v1/chat/completions", {**JSON, **endless, "Content-Length": len(data)}) + data)
                eventually(lambda: running() == 1, what="it runs")
                if stream:
                    s.recv(100)
                if kind == "reset":
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
                if kind == "half":
                    s.shutdown(socket.SHUT_WR)
                else:
                    s.close()
                eventually(lambda: running() == 0, 1, f"the engine is idle after {kind} (stream {stream})")
                s.close()
        # In prefill and in the queue.
        s = server.connect()
        data = json.dumps(chat()).encode()
        s.sendall(head("POST", "/v1/chat/completions", {**JSON, **script(text="x", prefill_ms=60000), "Content-Length": len(data)}) + data)
        eventually(lambda: running() == 1, what="prefill")
        s.close()
        eventually(lambda: running() == 0, 1, "idle after leaving in prefill")
        eventually(lambda: server.metric("nautile_requests_cancelled_total", 'cause="client_disconnected"') == 7, what="counted")
        check(server.metric("nautile_requests_cancelled_total", 'phase="prefill"') == 1, "phase")
        check(all(r["status"] == 499 for r in server.requests()), "logged as 499")


    # Where half-closing is allowed, the answer still comes, and leaving altogether is still noticed.
    with Server(nautile, "--allow-half-close") as server:
        for stream in (True, False):
            data = json.dumps(chat(stream=stream)).encode()
            with server.connect() as s:
                s.sendall(head("POST", "/v1/chat/completions", {**JSON, **script(text="a b c", token_ms=30), "Content-Length": len(data)}) + data)
                s.shutdown(socket.SHUT_WR)
                answer = read_response(s)
                check(answer.status == 200 and (not stream or b"[DONE]" in answer.body), "half-closed, answered")
        data = json.dumps(chat(stream=True, max_tokens=16000)).encode()
        s = server.connect()
        s.sendall(head("POST", "/v1/chat/completions", {**JSON, **script(text="word ", loop=True, token_ms=5), "Content-Length": len(data)}) + data)
        s.shutdown(socket.SHUT_WR)
        read_head(s)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        s.close()
        eventually(lambda: server.metric("vllm:num_requests_running") == 0, 2, "idle after half-closing and leaving")


def paced(nautile):
    """However fast tokens come, each is an event of its own; slow ones do not wait for one another."""
    with Server(nautile) as server:
        body = chat(stream=True, reasoning_mode="non_think", max_tokens=500)
        made = server.stream("/v1/chat/completions", body, script(text="word " * 200))
        texts = [e["choices"][0]["delta"].get("content") for _, e in made if e != "[DONE]"]
        check(len([t for t in texts if t]) == server.post("/v1/chat/completions", {**body, "stream": False}, script(text="word " * 200)).json()["usage"]["completion_tokens"] - 1, "an event a token")
        data = json.dumps(body).encode()
        with server.connect() as s:
            s.sendall(head("POST", "/v1/chat/completions", {**JSON, **script(text="word " * 20, token_ms=30), "Content-Length": len(data)}) + data)
            read_head(s)
            times = []
            while not times or b"[DONE]" not in got:
                got = s.recv(65536)
                times.append(time.time())
            check(len(times) >= 15, f"slow tokens arrive one by one: {len(times)}")


def slow_reader(nautile):
    with Server(nautile, "--write-timeout", "0.7") as server:
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.connect(("127.0.0.1", server.port))
        data = json.dumps(chat(stream=True, max_tokens=16000, logprobs=True, top_logprobs=20)).encode()
        s.sendall(head("POST", "/v1/chat/completions", {**JSON, **script(text="word " * 50, loop=True), "Content-Length": len(data)}) + data)
        # Others are served meanwhile.
        for _ in range(5):
            check(server.post("/v1/chat/completions", chat()).status == 200, "a slow reader slows nobody")
        eventually(lambda: server.metric("nautile_requests_cancelled_total", 'cause="client_disconnected"') == 1, 8, "the slow reader is dropped")
        s.close()
        # A reader that is merely slow gets everything.
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.connect(("127.0.0.1", server.port))
        data = json.dumps(chat(stream=True, max_tokens=9000, reasoning_mode="non_think")).encode()
        s.sendall(head("POST", "/v1/chat/completions", {**JSON, **script(text="word ", loop=True), "Content-Length": len(data)}) + data)
        got = b""
        time.sleep(0.4)
        answer = read_response(s)
        text = "".join(e["choices"][0]["delta"].get("content", "") for _, e in events(answer.body) if e != "[DONE]")
        check(events(answer.body)[-1][1] == "[DONE]" and len(text) > 9000, f"complete: {len(text)}")


def keep_alives(nautile):
    with Server(nautile, "--sse-keepalive", "0.15") as server:
        slow = script(text="</think>ok", prefill_ms=500)
        check(server.post("/v1/chat/completions", chat(stream=True), slow).body.count(b": keep-alive") >= 2, "comments")
        answer = server.post("/v1/messages", {**chat(stream=True), "max_tokens": 9}, slow)
        check(sum(1 for name, _ in events(answer.body) if name == "ping") >= 3, "pings")
        made = server.stream("/v1/responses", {"model": "nautile", "input": "hi", "stream": True}, slow)
        check(sum(1 for name, _ in made if name == "response.in_progress") >= 3, "in_progress again")
        check([e["sequence_number"] for _, e in made if e != "[DONE]"] == list(range(len(made) - 1)), "numbers without gaps")


def overload(nautile):
    with Server(nautile, "--max-sequences", "1", "--max-queue", "2", "--queue-timeout", "0.5") as server:
        endless = script(text="word ", loop=True, token_ms=20)
        data = json.dumps(chat(stream=True)).encode()
        held = []
        for _ in range(3):
            s = server.connect()
            s.sendall(head("POST", "/v1/chat/completions", {**JSON, **endless, "Content-Length": len(data)}) + data)
            held.append(s)
            time.sleep(0.05)
        answer = server.post("/v1/chat/completions", chat())
        check(answer.status == 503 and answer.code() == "server_overloaded" and int(answer.headers["retry-after"]) >= 1, "503")
        answer = server.post("/v1/messages", {**chat(), "max_tokens": 5})
        check(answer.status == 529 and answer.json()["error"]["type"] == "overloaded_error", "529 in Messages")
        made = events(read_response(held[2]).body)
        check(made[-2][1]["error"]["code"] == "queue_timeout" and made[-1][1] == "[DONE]", "queue timeout in the stream")
    with Server(nautile, "--request-timeout", "0.3") as server:
        stalled = script(text="a b c", stall_after=1)
        answer = server.post("/v1/chat/completions", chat(), stalled)
        check(answer.status == 504 and answer.code() == "deadline_exceeded", "504")
        made = server.stream("/v1/messages", {**chat(stream=True), "max_tokens": 9}, stalled)
        check(made[-1][0] == "error" and made[-1][1]["error"]["type"] == "timeout_error", "deadline in a stream")


def draining(nautile):
    with Server(nautile) as server:
        data = json.dumps(chat(stream=True, reasoning_mode="non_think")).encode()
        s = server.connect()
        s.sendall(head("POST", "/v1/chat/completions", {**JSON, **script(text="a b c d e f g h", token_ms=60), "Content-Length": len(data)}) + data)
        read_head(s)
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: server.get("/v1/health/ready").status == 503, what="not ready")
        check(server.get("/v1/health/live").status == 200 and server.get("/v1/health/ready").json()["status"] == "draining", "live, draining")
        answer = server.post("/v1/chat/completions", chat())
        check(answer.status == 503 and answer.code() == "server_draining" and answer.headers["connection"] == "close", "no new requests")
        rest = b""
        while more := s.recv(65536):
            rest += more
        check(b"[DONE]" in rest, "the running one finished")
        check(server.process.wait(10) == 0, "exit code 0")
    with Server(nautile, "--drain-timeout", "0.3") as server:
        results = []
        def ask(stream):
            answer = server.post("/v1/chat/completions", chat(stream=stream), script(text="word ", loop=True, token_ms=20))
            results.append((stream, answer))
        threads = [threading.Thread(target=ask, args=(stream,)) for stream in (True, False)]
        for t in threads:
            t.start()
        eventually(lambda: server.metric("vllm:num_requests_running") == 2, what="both run")
        check(server.stop() == 0, "exit code 0 after the timeout")
        for t in threads:
            t.join()
        for stream, answer in results:
            if stream:
                check(events(answer.body)[-2][1]["error"]["code"] == "server_draining", "an error in the stream")
            else:
                check(answer.status == 503, "503")
    # A second signal ends it at once.
    with Server(nautile) as server:
        s = server.connect()
        s.sendall(head("POST", "/v1/chat/completions", {**JSON, **script(text="word ", loop=True, token_ms=20), "Content-Length": len(data)}) + data)
        read_head(s)
        server.process.send_signal(signal.SIGINT)
        time.sleep(0.1)
        begin = time.time()
        check(server.stop(signal.SIGINT) == 0 and time.time() - begin < 3, "second signal")


def late_reader(server, **fields):
    """A client that asks for more than the kernel takes for it, and reads nothing until its answer is made."""
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    s.settimeout(20)
    s.connect(("127.0.0.1", server.port))
    data = json.dumps(chat(reasoning_mode="non_think", **fields)).encode()
    s.sendall(head("POST", "/v1/chat/completions", {**JSON, **script(text="word " * 100, loop=True), "Content-Length": len(data)}) + data)
    made = (lambda: server.metric("vllm:num_requests_running") == 1) if fields.get("stream") else server.requests  # a stream waits for its reader
    eventually(made, 60, "the answer is made")
    return s


def drained_to_the_last_byte(nautile):
    """The process ends when the last answer has left, not when it is made."""
    slow = dict(max_tokens=6000, logprobs=True, top_logprobs=20)  # 6.7 MB
    for fields in (slow, dict(slow, stream=True)):
        with Server(nautile, "--context", "20000") as server:
            with late_reader(server, **fields) as s:
                server.process.send_signal(signal.SIGTERM)
                eventually(lambda: server.get("/v1/health/ready").json()["status"] == "draining", what="draining")
                try:
                    server.process.wait(1)
                    raise AssertionError("it ended before its answer was read")
                except subprocess.TimeoutExpired:
                    pass
                answer = read_response(s)
                check(not hasattr(answer, "cut") and answer.status == 200, "the whole answer")
                if "stream" in fields:
                    check(events(answer.body)[-1][1] == "[DONE]", "to its end")
                else:
                    check(answer.json()["usage"]["completion_tokens"] == 6000, "all of it")
            check(server.process.wait(5) == 0, "then it ends")
    # For one that never reads it waits for the drain timeout; a second signal does not wait.
    for flag, signals in (("0.5", 1), ("60", 2)):
        with Server(nautile, "--context", "20000", "--drain-timeout", flag) as server, late_reader(server, **slow):
            for _ in range(signals):
                server.process.send_signal(signal.SIGTERM)
                eventually(lambda: any('"draining' in line for line in server.lines), what="draining")
            check(server.process.wait(3) == 0, "it does not wait longer")


def storm(nautile):
    """Many clients at once, a third of them leaving in the middle: nobody gets another's answer, and nothing stays behind."""
    import random
    with Server(nautile, "--max-sequences", "16") as server:
        wrong = []
        def client(i):
            rng = random.Random(i)
            for k in range(12):
                tag = f"tag-{i}-{k} "
                data = json.dumps(chat(tag, stream=bool(k % 2), reasoning_mode="non_think", max_tokens=4000)).encode()
                with server.connect() as s:
                    s.sendall(head("POST", "/v1/chat/completions", {**JSON, **script(text=tag * 20, token_ms=rng.choice([0, 0, 1])), "Content-Length": len(data)}) + data)
                    if rng.random() < 0.33:
                        s.settimeout(0.002 * rng.randint(0, 5) or None)
                        try:
                            s.recv(300)
                        except OSError:
                            pass
                        continue
                    answer = read_response(s)
                    if answer.status != 200:
                        wrong.append(answer.body)
                    elif k % 2:
                        got = "".join(e["choices"][0]["delta"].get("content", "") for _, e in events(answer.body) if e != "[DONE]")
                        if got != tag * 20:
                            wrong.append((tag, got))
                    elif answer.json()["choices"][0]["message"]["content"] != tag * 20:
                        wrong.append((tag, answer.body))
        threads = [threading.Thread(target=client, args=(i,)) for i in range(24)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        check(not wrong, f"{len(wrong)} wrong: {wrong[:2]}")
        eventually(lambda: server.metric("vllm:num_requests_running") + server.metric("vllm:num_requests_waiting") == 0, 5, "idle")
        check(server.stop() == 0, "a clean end")


def fuzz(nautile):
    """Malformed requests from a grammar of pieces: never a 5xx, never a crash."""
    import random
    rng = random.Random(7)
    pieces = [b"GET ", b"POST ", b"/v1/chat/completions", b"/v1/models", b" HTTP/1.1", b"\r\n", b"\n", b"Host: localhost", b"Content-Length: ",
              b"5", b"0", b"99", b"Transfer-Encoding: chunked", b"Content-Type: application/json", b"\r\n\r\n", b"{", b"}", b'"a":', b"[", b"]",
              b"1", b"null", b'"model":"nautile"', b",", b"\x00", b"\xff\xfe", b"5\r\nhello\r\n", b"0\r\n\r\n", b":", b" ", b"A" * 50]
    valid = json.dumps(chat(tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}], stop=["x"],
                            logit_bias={"5": 1}, response_format={"type": "text"})).encode()
    with Server(nautile) as server:
        for i in range(int(os.environ.get("NAUTILE_FUZZ_REQUESTS", "400"))):
            with server.connect() as s:
                if i % 2:
                    body = bytearray(valid)
                    for _ in range(rng.randint(1, 4)):
                        at = rng.randrange(len(body))
                        body[at:at + rng.randint(0, 3)] = rng.choice(pieces)
                    data = head("POST", rng.choice(["/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses", "/tokenize"]),
                                {**JSON, "Content-Length": len(body)}) + bytes(body)
                else:
                    data = b"".join(rng.choice(pieces) for _ in range(rng.randint(1, 25)))
                try:
                    s.sendall(data)
                    s.shutdown(socket.SHUT_WR)
                    answer = read_response(s)
                    check(answer.status < 500, f"{answer.status} for {data!r}")
                except ConnectionError:
                    pass
        check(server.get("/v1/health/ready").status == 200, "alive")


if __name__ == "__main__":
    run_all((framing, attacks, large_bodies, timeouts, keys, cors, disconnects, paced, slow_reader, keep_alives, overload, draining, drained_to_the_last_byte, storm, fuzz), sys.argv[1])
