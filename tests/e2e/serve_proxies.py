#!/usr/bin/env python3
"""The proxy configurations of docs/serve.md, as they are printed but for ports and certificates, in front of the scripted server.

usage: serve_proxies.py NAUTILE
For each of nginx and Caddy that is installed: HTTP/2 to the client, events passed on while the answer is being made, large bodies
taken, a client that leaves calls its generation off, other names refused. Without either, or curl and openssl: exit code 77.
"""
import json
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

from serve_harness import Server, chat, check, eventually, script

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAME = "llm.example.com"
LONG = {"text": "</think>" + "word " * 1000, "token_ms": 20}  # within 8 KB: nginx takes no longer header


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def printed(start):
    """The block of the document that begins with `start`."""
    return re.search(rf"^```\n({re.escape(start)}.*?)^```$", (ROOT / "docs/serve.md").read_text(), re.M | re.S)[1]


def replaced(text, *pairs):
    for old, new in pairs:
        check(old in text, f"docs/serve.md has no {old!r}")
        text = text.replace(old, new)
    return text


def nginx(folder, upstream, port):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", f"/CN={NAME}", "-keyout", folder / "key", "-out", folder / "pem"], check=True, stderr=subprocess.DEVNULL)
    site = replaced(printed("upstream nautile"), ("127.0.0.1:8000", f"127.0.0.1:{upstream}"), ("listen 443", f"listen 127.0.0.1:{port}"),
                    (f"/etc/ssl/{NAME}.pem", str(folder / "pem")), (f"/etc/ssl/{NAME}.key", str(folder / "key")))
    places = "".join(f"{what}_temp_path {folder / what};\n" for what in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "conf").write_text(f"daemon off; master_process off; pid {folder / 'pid'}; error_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n{places}{site}}}\n")
    return ["nginx", "-p", folder, "-c", folder / "conf", "-e", "stderr"]


def caddy(folder, upstream, port):
    site = replaced(printed(NAME), ("127.0.0.1:8000", f"127.0.0.1:{upstream}"), (NAME + " {", f"{NAME}:{port} {{\n    bind 127.0.0.1\n    tls internal"))
    options = f"{{\nadmin off\nauto_https disable_redirects\nskip_install_trust\nstorage file_system {folder}\n}}\n"
    (folder / "Caddyfile").write_text(options + site)
    return ["caddy", "run", "--adapter", "caddyfile", "--config", folder / "Caddyfile"]


def test(proxy, nautile):
    with tempfile.TemporaryDirectory() as name, Server(nautile, "--allowed-hosts", NAME) as server:
        folder, port = pathlib.Path(name), free_port()
        log = open(folder / "log", "w+")
        running = subprocess.Popen(proxy(folder, server.port, port), stdout=log, stderr=log, cwd=folder)

        def curl(path, body=None, *more, headers=None):
            command = ["curl", "--silent", "--insecure", "--no-buffer", "--http2", "--max-time", "60", "--resolve", f"{NAME}:{port}:127.0.0.1", *more]
            for key, value in {"Content-Type": "application/json", **(headers or {})}.items():
                command += ["--header", f"{key}: {value}"]
            if body is not None:
                (folder / "body").write_text(json.dumps(body))
                command += ["--data-binary", f"@{folder / 'body'}"]
            return subprocess.Popen(command + [f"https://{NAME}:{port}{path}"], stdout=subprocess.PIPE, text=True)

        def answer(*arguments, **keywords):
            with curl(*arguments, **keywords) as process:
                return process.stdout.read()

        try:
            eventually(lambda: running.poll() is not None or answer("/v1/models").startswith("{"), 20, "the proxy answers")
            check(running.poll() is None, "the proxy ended")
            check(answer("/v1/models", None, "--output", "/dev/null", "--write-out", "%{http_version} %{http_code}") == "2 200", "HTTP/2")
            # Passed on as they come, and called off when the client leaves.
            with curl("/v1/chat/completions", chat(stream=True), headers=script(**LONG)) as client:
                seen = [line for _, line in zip(range(3), (line for line in client.stdout if line.startswith("data: ")))]
                streams = server.metric("nautile_sse_streams")
                check(len(seen) == 3 and streams == 1, f"events come while the answer is being made: {len(seen)}, {streams} streams")
                client.kill()
            eventually(lambda: server.metric("nautile_sse_streams") + server.metric("vllm:num_requests_running") == 0, 5, "called off")
            # Whole answers are called off too.
            with curl("/v1/chat/completions", chat(), headers=script(**LONG)) as client:
                eventually(lambda: server.metric("vllm:num_requests_running") == 1, 5, "begun")
                client.kill()
            eventually(lambda: server.metric("vllm:num_requests_running") == 0, 5, "called off before its answer")
            # 20 MB: answered by the server, whatever it says of them.
            large = json.loads(answer("/v1/chat/completions", chat("word " * 4_000_000), headers=script(text="</think>yes")))
            check("choices" in large or "code" in large["error"], f"a large body: {str(large)[:200]}")
            check("id" in json.loads(answer("/v1/chat/completions", chat(), headers=script(text="</think>yes"))), "a short answer")
            if proxy is nginx:  # Caddy answers for its own name only
                check(answer("/v1/models", None, "--output", "/dev/null", "--write-out", "%{http_code}", headers={"Host": "other.example"}) == "403", "another name")
        except (AssertionError, ValueError) as error:
            log.seek(0)
            raise AssertionError(f"{error}\n{log.read()[-2000:]}") from error
        finally:
            running.terminate()
            running.wait()


def main():
    found = [proxy for proxy in (nginx, caddy) if shutil.which(proxy.__name__)]
    if not found or not shutil.which("curl") or not shutil.which("openssl"):
        print("skipped: no nginx or Caddy, or no curl, or no openssl")
        sys.exit(77)
    for proxy in found:
        begin = time.time()
        try:
            test(proxy, sys.argv[1])
        except AssertionError as error:
            sys.exit(f"FAILED: {proxy.__name__}: {error}")
        print(f"{proxy.__name__}: ok ({time.time() - begin:.1f} s)", flush=True)


main()
