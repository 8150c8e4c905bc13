#!/usr/bin/env python3
"""The classes of attack on servers of this kind that the transport's tests do not hold already (spec api.md, section 16).

usage: attacks.py NAUTILE NANO_DIRECTORY
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))
from serve_harness import Server, chat, check, eventually, head, script  # noqa: E402

NANO = sys.argv[2]
CHAT, COMPLETIONS, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"


def sockets_of(pid):
    """(local port, remote port, state) of every TCP socket that the process holds, and how many of any other kind."""
    held = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{fd}")
        except OSError:
            continue
        if target.startswith("socket:["):
            held.add(target[8:-1])
    found = []
    for name in ("tcp", "tcp6"):
        for line in open(f"/proc/{pid}/net/{name}").read().splitlines()[1:]:
            fields = line.split()
            if fields[9] in held:
                held.discard(fields[9])
                found.append((int(fields[1].split(":")[1], 16), int(fields[2].split(":")[1], 16), fields[3]))
    return found, len(held)


def no_other_sockets(nautile):
    """4, 9, 19: one listening port, no connection outwards whatever a request names, no door for operators."""
    with Server(nautile) as server:
        for url in ("http://127.0.0.1:9/x", "file:///etc/passwd", "https://example.com/a.png", "gopher://localhost:25/_x", "data:image/png;base64,AAAA"):
            for path, body in ((CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]}),
                               (CHAT, {"messages": [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": url}}]}]}),
                               (MESSAGES, {"max_tokens": 5, "messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": url}}]}]}),
                               (RESPONSES, {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": url}]}]}),
                               (RESPONSES, {"input": [{"role": "user", "content": [{"type": "input_file", "file_url": url}]}]})):
                answer = server.post(path, {"model": "nautile", **body})
                check(answer.status == 400, f"{path} {url}: {answer.status}")
        tcp, others = sockets_of(server.process.pid)
        check({local for local, _, _ in tcp} == {server.port} and sum(state == "0A" for _, _, state in tcp) == 1, f"sockets: {tcp}")
        check(others <= 2, f"{others} sockets that are not TCP")  # the signals' pair
        for path in ("/sleep", "/wake_up", "/collective_rpc", "/update_weights", "/props", "/slots", "/slots/0?action=save", "/api/pull", "/api/create", "/v1/load_lora_adapter", "/reset_prefix_cache", "/shutdown",
                     "/v1/models/../../etc/passwd", "/admin", "/debug/pprof", "/v1/files", "/v1/batches", "/invocations", "/start_profile", "/server_info"):
            for method in ("GET", "POST", "DELETE"):
                status = server.get(path, method=method).status
                check(status in (404, 405), f"{method} {path}: {status}")


def templates_and_tensors(nautile):
    """2, 3, 11: nothing of a request is code, a template or a tensor."""
    with Server(nautile) as server:
        plain = server.post(CHAT + "/render", chat("{{ 7*7 }}")).json()
        check("{{ 7*7 }}" in plain["prompt"], "text is text")
        check(server.post(CHAT, chat(chat_template="{{ 7*7 }}")).status == 400, "a template")
        for field in ("custom_logit_processor", "chat_template"):
            check(server.post(CHAT, chat(**{field: "x"})).status == 400, field)
        odd = server.post(CHAT + "/render", chat("{{ 7*7 }}", chat_template_kwargs={"tools": [["x"] * 1000], "bos_token": "<evil>", "n": 10**18, "messages": []}))
        check(odd.status == 200 and odd.json()["prompt"] == plain["prompt"], "other members of chat_template_kwargs change nothing")
        answer = server.post(COMPLETIONS, {"model": "nautile", "prompt": "x", "max_tokens": 2, "prompt_embeds": "gASVAAAA"})
        check(answer.status == 400 or "prompt_embeds" in answer.headers["x-ignored-fields"], "prompt_embeds is not read")


def numbers(nautile):
    """5, 6: integers and multipliers out of range, in every dialect: refused before anything is allocated."""
    edges = [-1, -2**31, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, -2**63, 2**64, 10**40, 1e308, -1e308, 0.5, "5", True, [], {}]
    fields = {CHAT: ("n", "best_of", "max_tokens", "max_completion_tokens", "top_k", "top_logprobs", "prompt_logprobs", "seed", "min_tokens", "thinking_token_budget", "truncate_prompt_tokens", "priority", "temperature", "top_p", "logprobs"),
              COMPLETIONS: ("n", "best_of", "max_tokens", "logprobs", "prompt_logprobs", "seed", "min_tokens", "top_k"), MESSAGES: ("max_tokens", "top_k", "temperature", "top_p"), RESPONSES: ("max_output_tokens", "top_logprobs", "temperature", "top_p", "max_tool_calls")}
    bodies = {CHAT: chat(), COMPLETIONS: {"model": "nautile", "prompt": "x"}, MESSAGES: {**chat(), "max_tokens": 5}, RESPONSES: {"model": "nautile", "input": "x"}}
    with Server(nautile, "--max-output-tokens", "50") as server:
        before = server.metric("process_resident_memory_bytes")
        for path, names in fields.items():
            for name in names:
                for value in edges:
                    answer = server.post(path, {**bodies[path], name: value})
                    check(answer.status in (200, 400), f"{path} {name}={value!r}: {answer.status} {answer.body[:200]!r}")
                    if name in ("n", "best_of") and not (isinstance(value, int) and 1 <= value <= 16):
                        check(answer.status == 400, f"{path} {name}={value!r} is refused")
        for value in edges:
            for field in ({"stop_token_ids": [value]}, {"allowed_token_ids": [value]}, {"logit_bias": {str(value): 1}}, {"logit_bias": {"5": value}}):
                check(server.post(CHAT, chat(**field)).status in (200, 400), f"{field}")
            check(server.post(COMPLETIONS, {"model": "nautile", "prompt": [value, value]}).status in (200, 400), f"prompt {value!r}")
            check(server.post("/detokenize", {"model": "nautile", "tokens": [value]}).status in (200, 400), f"detokenize {value!r}")
        for body, what in ((chat(n=129), "n"), (chat(stop=["x"] * 17), "stop"), (chat(stop=["x" * 300]), "a long stop"), (chat(logit_bias={str(i): 1 for i in range(1100)}), "logit_bias"), (chat(top_logprobs=21, logprobs=True), "top_logprobs"),
                           (chat(prompt_logprobs=-1), "prompt_logprobs"), (chat(bad_words=["x"] * 300), "bad_words"), (chat(tools=[{"type": "function", "function": {"name": f"f{i}"}} for i in range(129)]), "tools"),
                           (chat(tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "description": "x" * 70000}}}]), "a schema"), ({"model": "nautile", "messages": [{"role": "user", "content": "x"}] * 20001}, "messages"),
                           (chat(metadata={str(i): "x" for i in range(17)}), "metadata"), (chat(user="x" * 513), "user")):
            check(server.post(CHAT, body).status == 400, f"{what} over its limit")
        check(server.post(COMPLETIONS, {"model": "nautile", "prompt": ["x"] * 200, "n": 2}).status == 400, "prompts times n")
        check(server.metric("process_resident_memory_bytes") - before < 200e6, "no memory for what was refused")
        answer = server.post(CHAT, chat(ignore_eos=True, max_tokens=10**6), script(text="word ", loop=True))
        check(answer.json()["usage"]["completion_tokens"] == 50, "22: the longest answer is the server's to say")


def expensive_constraints(nautile):
    """8: schemas, expressions and grammars made to take time or memory: an answer within seconds, others served meanwhile."""
    deep = {"type": "object"}
    for _ in range(60):
        deep = {"type": "object", "properties": {"a": deep}, "required": ["a"]}
    bombs = [dict(guided_regex=r) for r in ("(a+)+$", "(a|a)*b", "(x{1,1000}){1,1000}", "((a{100}){100}){100}", "[" + "a-z" * 5000 + "]", "(" * 3000 + ")" * 3000, "a{99999999}", "(?:(?:(?:a?){99}){99}){99}", ".*" * 500, "\\p{L}{0,5000}")]
    bombs += [dict(guided_grammar=g) for g in ("root ::= root", "root ::= a\na ::= b\nb ::= a", "root ::= " + "(" * 5000 + "\"a\"" + ")" * 5000, "root ::= \"a\"{99999999}", "root ::= x*\nx ::= x* x*", "\n".join(f"r{i} ::= r{i + 1} r{i + 1}" for i in range(2000)) + "\nr2000 ::= \"a\"\nroot ::= r0")]
    bombs += [dict(guided_json=s) for s in (deep, {"$ref": "#"}, {"allOf": [{"$ref": "#"}]}, {"type": "array", "items": {"$ref": "#"}, "minItems": 10**9}, {"type": "string", "maxLength": 10**9}, {"type": "string", "pattern": "(a+)+$"}, {"enum": [str(i) for i in range(20000)]},
                                            {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(3000)}}, {"anyOf": [{"type": "object", "properties": {f"p{i}": {"$ref": "#"}}} for i in range(200)]}, {"type": "integer", "minimum": -10**30, "maximum": 10**30},
                                            {"$defs": {f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}, {"$ref": f"#/$defs/d{i + 1}"}]} for i in range(40)} | {"d40": {"type": "null"}}, "$ref": "#/$defs/d0"})]
    with Server(nautile, "--max-output-tokens", "40") as server:
        for bomb in bombs:
            begin = time.time()
            answer = server.post(CHAT, chat(**bomb, reasoning_mode="non_think", max_tokens=20), script(text="</think>a"))
            took = time.time() - begin
            check(answer.status in (200, 400) and took < 10, f"{json.dumps(bomb)[:100]}: {answer.status} in {took:.1f} s {answer.body[:200]!r}")
        threads = [threading.Thread(target=lambda b=b: server.post(CHAT, chat(**b))) for b in bombs[:8]]
        for t in threads:
            t.start()
        check(server.get("/v1/health/ready").status == 200, "ready")
        for t in threads:
            t.join()
        check(server.metric("process_resident_memory_bytes") < 1.5e9, "memory")


def markup_as_text(nautile):
    """10: every added token's text, typed by a client in every place for text, is text."""
    names = [t["content"] for t in json.load(open(f"{NANO}/tokenizer.json"))["added_tokens"]]
    with Server(nautile) as server:
        control = {i for name in names for i in server.post("/tokenize", {"prompt": name, "add_special_tokens": False}).json()["tokens"][:1]}
        def controls(body):
            rendered = server.post(CHAT + "/render", body)
            check(rendered.status == 200, f"{rendered.status} {rendered.body[:200]!r} {json.dumps(body)[:200]}")
            return sorted(i for i in rendered.json()["token_ids"] if i in control)
        tool = lambda text: [{"type": "function", "function": {"name": "f", "description": text, "parameters": {"type": "object", "properties": {"a": {"type": "string", "description": text}}}}}]  # noqa: E731
        def conversation(text):
            return {"model": "nautile", "tools": tool(text), "messages": [
                {"role": "system", "content": text}, {"role": "user", "content": [{"type": "text", "text": text}], "name": "x"},
                {"role": "assistant", "content": text, "reasoning_content": text, "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": json.dumps({"a": text})}}]},
                {"role": "tool", "tool_call_id": "c", "content": text}, {"role": "user", "content": text}]}
        plain = controls(conversation("abc"))
        for name in names[:100]:
            check(controls(conversation(name)) == plain, f"{name} became control")
            check(controls(conversation(f"a{name}b{name}")) == plain, f"{name} became control")


def logs(nautile):
    """18, 20: nothing that a client sends breaks the log or a terminal; no key in it; errors tell nothing of the inside."""
    with Server(nautile, "--api-key", "topsecret") as server:
        auth = {"Authorization": "Bearer topsecret"}
        evil = "\x1b[31m\n{\"request_id\":\"forged\"}\r\n\u202e"
        for body in (chat(evil), {**chat(), "model": evil}, {**chat(), evil: 1}, {**chat(), "user": evil}, {**chat(), "reasoning_effort": evil}):
            answer = server.post(CHAT, body, auth)
            check(b"\x1b" not in answer.body and all(0x20 <= ord(c) < 0x7F for v in answer.headers.values() for c in v), f"an answer holds it: {answer.headers}")
        server.get("/v1/models?key=topsecret&x=%1b[31m", {**auth, "X-Request-Id": "a b"})
        server.get("/v1/models", {"Authorization": "Bearer topsecre"})
        eventually(lambda: len(server.requests()) >= 1, what="logged")
        text = "".join(server.lines)
        check("\x1b" not in text and "\u202e" not in text and "topsecre" not in text, "the log")
        for line in server.lines:
            if line.startswith("{"):
                check(json.loads(line).get("request_id") != "forged", "forged")


def scopes(nautile):
    """14, 16: cached prefixes stay with their key and salt; ids cannot be guessed and belong to their key."""
    with tempfile.NamedTemporaryFile("w", suffix=".keys") as file:
        file.write("alice:aa\nbob:bb\n")
        file.flush()
        with Server(nautile, "--api-key-file", file.name, backend="engine", model=NANO) as server:
            text = "A long and secret prompt. " * 60
            def cached(key, **fields):
                answer = server.post(CHAT, chat(text, max_tokens=2, **fields), {"x-api-key": key}).json()
                return answer["usage"]["prompt_tokens_details"]["cached_tokens"]
            check(cached("aa") == 0 and cached("aa") > 0, "a key has its own again")
            check(cached("bb") == 0, "and nobody else's")
            check(cached("aa", cache_salt="s") == 0 and cached("aa", cache_salt="s") > 0 and cached("aa", user="u") == 0, "salt and user divide further")
            data = json.dumps({"model": "nautile", "input": "hi", "stream": True, "max_output_tokens": 3000}).encode()
            with server.connect() as s:
                s.sendall(head("POST", RESPONSES, {"Content-Type": "application/json", "Content-Length": len(data), "x-api-key": "aa"}) + data)
                got = b""
                while b'"id":"resp_' not in got:
                    got += s.recv(65536)
                name = got[got.index(b"resp_"):].split(b'"')[0].decode()
                check(len(name) >= 5 + 32, "128 bits")
                check(server.post(f"{RESPONSES}/{name}/cancel", {}, {"x-api-key": "bb"}).status == 404, "another key's response")
            ids = {server.post(CHAT, chat(max_tokens=1), {"x-api-key": "aa"}).json()["id"] for _ in range(20)}
            check(len(ids) == 20 and all(len(i) >= 9 + 32 for i in ids), "ids")


def sampling_matrix(nautile):
    """21: every sampling field in every mode of the engine."""
    fields = [dict(presence_penalty=1), dict(frequency_penalty=1), dict(repetition_penalty=1.2), dict(logit_bias={"300": 5}), dict(top_k=3), dict(top_p=0.5), dict(min_p=0.2), dict(temperature=0), dict(logprobs=True, top_logprobs=5),
              dict(min_tokens=5), dict(stop=["1"]), dict(bad_words=["the"]), dict(n=3), dict(guided_regex="[0-9]{1,5}"), dict(presence_penalty=1, frequency_penalty=-1, repetition_penalty=1.5, temperature=1.5, top_p=0.9, top_k=50, min_p=0.01, n=2, logprobs=True)]
    said = {}
    for mode in ("off", "auto", "always"):
        with Server(nautile, "--speculation", mode, backend="engine", model=NANO) as server:
            for i, field in enumerate(fields):
                for stream in (False, True):
                    answer = server.post(CHAT, chat("What is 48 + 75?", seed=3, max_tokens=25, stream=stream, **field))
                    check(answer.status == 200, f"{mode} {field}: {answer.status} {answer.body[:300]!r}")
                    if not stream:
                        text = json.dumps([c["message"] for c in answer.json()["choices"]])
                        check(said.setdefault(i, text) == text, f"{mode} {field}: other tokens than without speculation")
            check(server.stop() == 0, "a clean end")


def hardening(nautile):
    """23: how the program was linked."""
    elf = subprocess.run(["readelf", "-hlW", nautile], capture_output=True, text=True).stdout
    if elf:
        check("DYN (" in elf and "GNU_RELRO" in elf, "position-independent, relocations read-only")
        check(all("RWE" not in line for line in elf.splitlines() if "GNU_STACK" in line), "no executable stack")


def main():
    failed = 0
    for test in (no_other_sockets, templates_and_tensors, numbers, expensive_constraints, markup_as_text, logs, scopes, sampling_matrix, hardening):
        begin = time.time()
        try:
            test(sys.argv[1])
            print(f"{test.__name__}: ok ({time.time() - begin:.1f} s)", flush=True)
        except AssertionError as error:
            failed += 1
            print(f"FAILED: {test.__name__}: {error}", flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
