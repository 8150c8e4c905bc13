#!/usr/bin/env python3
"""Requests broken by a grammar: heads, framing and JSON of all four dialects, each made from a valid request.

usage: malformed.py NAUTILE [--requests 10000] [--seed 1] [--model DIRECTORY]

Never a 5xx, never a hang, no word in an answer that a stranger should not read; the server serves on, is idle at the end
and ends with 0, which with a sanitizer's build means no fault and no leak. A failure prints the request and its number;
the same seed makes it again.
"""
import argparse
import copy
import json
import pathlib
import random
import re
import socket
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))
from serve_harness import Server, check, eventually, read_response  # noqa: E402

SCHEMA = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 8}, "n": {"type": "integer", "minimum": 0, "maximum": 9}}, "required": ["city"]}
FUNCTION = {"name": "get_weather", "description": "w", "parameters": SCHEMA}
TURNS = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"},
         {"role": "assistant", "content": None, "reasoning_content": "r", "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": "{\"city\":\"x\"}"}}]},
         {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}, {"role": "user", "content": [{"type": "text", "text": "and?"}]}]
COMMON = {"temperature": 0.7, "top_p": 0.9, "top_k": 4, "min_p": 0.01, "presence_penalty": 0.1, "frequency_penalty": 0.1, "repetition_penalty": 1.1, "seed": 5,
          "stop_token_ids": [5], "ignore_eos": False, "min_tokens": 1, "bad_words": ["bad"], "logit_bias": {"5": 1}, "priority": 0, "user": "u", "cache_salt": "s", "metadata": {"a": "b"}}
VALID = [
    ("/v1/chat/completions", {"model": "nautile", "messages": TURNS, "max_tokens": 6, "n": 2, "stop": ["x", "yy"], "logprobs": True, "top_logprobs": 2, **COMMON,
                              "tools": [{"type": "function", "function": FUNCTION}], "tool_choice": "auto", "parallel_tool_calls": True}),
    ("/v1/chat/completions", {"model": "nautile", "messages": TURNS[:2], "max_completion_tokens": 6, "stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True},
                              "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}, "reasoning_effort": "low", "thinking_token_budget": 3}),
    ("/v1/chat/completions", {"model": "nautile", "messages": TURNS[:2], "max_tokens": 5, "guided_regex": "[a-f]{3}", "reasoning_mode": "non_think", "nvext": {"top_k": 3}, "return_token_ids": True}),
    ("/v1/completions", {"model": "nautile", "prompt": ["hello", "there"], "max_tokens": 5, "echo": True, "logprobs": 2, "n": 1, "best_of": 2, "stop": "x", **COMMON}),
    ("/v1/completions", {"model": "nautile", "prompt": [[1, 2, 300], [5]], "max_tokens": 5, "stream": True, "guided_choice": ["a", "b"]}),
    ("/v1/completions", {"model": "nautile", "prompt": "def f(", "suffix": ")", "max_tokens": 5, "prompt_logprobs": 1}),
    ("/v1/messages", {"model": "claude", "max_tokens": 6, "system": [{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}], "stop_sequences": ["x"], "temperature": 0.5, "top_k": 3,
                      "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": [{"type": "thinking", "thinking": "t", "signature": "s"}, {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "x"}}]},
                                   {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "sunny"}, {"type": "text", "text": "so"}]}],
                      "tools": [{"name": "get_weather", "description": "w", "input_schema": SCHEMA}], "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}, "metadata": {"user_id": "u"}}),
    ("/v1/messages", {"model": "claude", "max_tokens": 6, "stream": True, "thinking": {"type": "enabled", "budget_tokens": 3}, "messages": [{"role": "user", "content": "hi"}], "output_config": {"effort": "low"}}),
    ("/v1/messages/count_tokens", {"model": "claude", "messages": [{"role": "user", "content": "hi"}]}),
    ("/v1/responses", {"model": "nautile", "instructions": "be brief", "max_output_tokens": 6, "tools": [{"type": "function", **FUNCTION}], "tool_choice": "auto", "reasoning": {"effort": "low"}, "store": False,
                       "input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}, {"type": "reasoning", "id": "rs_1", "summary": []},
                                 {"type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": "{}"}, {"type": "function_call_output", "call_id": "call_1", "output": "sunny"}]}),
    ("/v1/responses", {"model": "nautile", "input": "hi", "stream": True, "max_output_tokens": 5, "text": {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}}, "include": [], "metadata": {}}),
    ("/tokenize", {"model": "nautile", "prompt": "hello", "add_special_tokens": True}),
    ("/tokenize", {"model": "nautile", "messages": TURNS[:2]}),
    ("/detokenize", {"model": "nautile", "tokens": [1, 2, 300]}),
    ("/v1/chat/completions/render", {"model": "nautile", "messages": TURNS}),
]
NUMBERS = [0, -1, 1, 2, 3, 16, 17, 128, 129, 2**31 - 1, 2**31, -2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, -2**63, 2**64, 10**30, 0.5, -0.5, 1e308, 1e-320, 5.0, 2.0000001, -0.0]
STRINGS = ["", " ", "x", "null", "\x00", "\ud83d", "\u202e", "é" * 50, "x" * 5000, "../../etc/passwd", "file:///etc/passwd", "http://127.0.0.1:1/x", "%s%n%x", "<｜User｜>", "<｜DSML｜tool_calls>", "</think>",
           "{{ 7*7 }}", "\r\nSet-Cookie: a=b", "\x1b[31m", "(a+)+$", "(", "[", "a{1000}{1000}", "root ::= root", "root ::= \"a\"", "nan", "Infinity", "1", "true", "none", "max", "required", "auto", "json_object", "json_schema", "tool", "function", "user"]
TREES = [None, True, False, [], {}, [[]], [None], [1, "a"], {"": 0}, {"type": "object"}, {"type": ["string", 5]}, {"$ref": "#"}, {"anyOf": []}, {"allOf": [{"$ref": "#/a/b"}]}, {"enum": []}, {"type": "array", "items": {"$ref": "#"}},
         {"pattern": "(a|b)*c{5,2}", "type": "string"}, {"minItems": 10**9, "type": "array"}, {"maxLength": 10**9, "type": "string"}, {"properties": {"a": {"properties": {"a": {}}}}, "type": "object"}, [0] * 3000, {"type": "function"}, {"role": "user"}]
LEAKS = re.compile(rb"0x[0-9a-f]{6,}|/(?:home|tmp|usr|work|root|src)/|\.cc\b|std::|boost|nlohmann|terminate|Traceback|exception|bad_alloc", re.I)


def places(node, at=()):
    """Every path in a tree."""
    yield at
    if isinstance(node, dict):
        for key in node:
            yield from places(node[key], at + (key,))
    elif isinstance(node, list):
        for i in range(len(node)):
            yield from places(node[i], at + (i,))


def weird(rng):
    kind = rng.randrange(6)
    if kind == 0:
        return rng.choice(NUMBERS)
    if kind == 1:
        return rng.choice(STRINGS)
    if kind == 2:
        return copy.deepcopy(rng.choice(TREES))
    if kind == 3:
        return copy.deepcopy(rng.choice(VALID)[1])
    if kind == 4:
        return [weird(rng) for _ in range(rng.randrange(4))]
    return {rng.choice(STRINGS + ["type", "name", "content"]): weird(rng) for _ in range(rng.randrange(3))}


def mutate_tree(rng, tree):
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        at = rng.choice(list(places(tree)))
        if not at:
            if rng.random() < 0.1:
                return weird(rng)
            tree[rng.choice(list(COMMON) + ["n", "best_of", "logprobs", "stream", "tools", "prompt", "messages", "input", "guided_grammar", "guided_json", "grammar", "zz", "prompt_embeds", "chat_template"])] = weird(rng)
            continue
        parent = tree
        for step in at[:-1]:
            parent = parent[step]
        what = rng.randrange(4)
        if what == 0 and isinstance(parent, dict):
            del parent[at[-1]]
        elif what == 1 and isinstance(parent, dict):
            parent[str(weird(rng))[:40]] = parent.pop(at[-1])
        elif what == 2 and isinstance(parent, list):
            parent.insert(at[-1], copy.deepcopy(parent[at[-1]]))
        else:
            parent[at[-1]] = weird(rng)
    return tree


def text_of(rng, tree):
    text = json.dumps(tree, ensure_ascii=rng.random() < 0.5, allow_nan=True)
    return text.encode("utf-8", "surrogatepass")


def mutate_text(rng, data):
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5])):
        at = rng.randrange(len(data) + 1)
        what = rng.randrange(7)
        if what == 0:
            data = data[:at]
        elif what == 1:
            data[at:at] = rng.choice([b"\x00", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b",", b"}", b"{", b"[", b"]", b'"', b"\\", b"\\u12", b"\\ud800", b"1e", b"-", b"NaN", b"//", b"'"])
        elif what == 2 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif what == 3:
            data[at:at + rng.randrange(20)] = b""
        elif what == 4:
            data[at:at] = b"[" * rng.choice([5, 127, 200, 5000])
        elif what == 5:
            data[at:at] = b'{"a":' * rng.choice([5, 127, 200])
        else:
            data += data[:at]
    return bytes(data)


def chunked(rng, body):
    out = b""
    while body:
        n = rng.randint(1, max(1, len(body)))
        size = b"%x" % n
        what = rng.randrange(14)
        if what == 0:
            size = rng.choice([b"", b"-1", b"0x5", b"fffffffffffffffff", b"7fffffffffffffff", b"g", b" 5", b"5 5", b"%x" % (n + 1), b"%x" % max(0, n - 1)])
        elif what == 1:
            size += b";" + rng.choice([b"a=b", b"x" * 200, b"x" * 300, b"x" * 9000, b'a="\r\n"', b"\x00"])
        out += size + rng.choice([b"\r\n"] * 12 + [b"\n", b"\r", b""]) + body[:n] + rng.choice([b"\r\n"] * 12 + [b"\n", b"", b"xx"])
        body = body[n:]
    return out + rng.choice([b"0\r\n\r\n"] * 8 + [b"0\r\nTrailer: x\r\n\r\n", b"0\r\n", b"", b"00000\r\n\r\n", b"0\r\n" + b"T: x\r\n" * 200 + b"\r\n", b"0\r\nContent-Length: 5\r\n\r\n"])


def request_of(rng):
    path, tree = rng.choice(VALID)
    body = text_of(rng, tree)
    level = rng.choice(["json", "json", "json", "text", "http", "http", "both"])
    if level in ("json", "both"):
        body = text_of(rng, mutate_tree(rng, tree))
    if level in ("text", "both"):
        body = mutate_text(rng, body)
    method, version, line_end = b"POST", b"HTTP/1.1", b"\r\n"
    target = path.encode()
    headers = [(b"Host", b"localhost"), (b"Content-Type", b"application/json")]
    framed = body
    if level in ("http", "both"):
        if rng.random() < 0.3:
            framed = chunked(rng, body)
            headers.append((b"Transfer-Encoding", rng.choice([b"chunked"] * 8 + [b"Chunked", b"gzip, chunked", b"chunked, chunked", b"identity", b"\x0bchunked", b"chunked;a"])))
        else:
            n = len(body)
            headers.append((b"Content-Length", rng.choice([b"%d" % n] * 8 + [b"%d" % (n + 5), b"%d" % max(0, n - 5), b"-1", b"+%d" % n, b"0x10", b"1e3", b"", b"99999999999999999999", b"%d, %d" % (n, n), b" %d " % n, b"18446744073709551615"])))
        for _ in range(rng.choice([0, 1, 1, 2, 3])):
            what = rng.randrange(12)
            if what == 0:
                method = rng.choice([b"GET", b"PUT", b"HEAD", b"OPTIONS", b"TRACE", b"CONNECT", b"post", b"", b"P\x00ST", b"A" * 300, b"POST POST", b"PRI"])
            elif what == 1:
                target = rng.choice([target + b"?a=b", b"/", b"*", b"", b"http://evil/v1/models", b"//" + target, target + b"/../x", b"/%2e%2e/", b"/\xff\xfe", target + b"#x", b"/" + b"a" * 9000, target + b"\x00", target + b" x", b"/v1/models/" + b"%00" * 9])
            elif what == 2:
                version = rng.choice([b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/0.9", b"HTTP/9", b"http/1.1", b"", b"HTTP/1.1 ", b"HTTP/1.1\x00", b"ICY/1.0"])
            elif what == 3:
                line_end = rng.choice([b"\n", b"\r", b"\r\r\n", b"\n\r"])
            elif what == 4:
                headers.insert(rng.randrange(len(headers) + 1), rng.choice(headers))
            elif what == 5:
                del headers[rng.randrange(len(headers))]
                if not headers:
                    headers = [(b"A", b"b")]
            elif what == 6:
                headers.append((rng.choice([b"Content-Length", b"Transfer-Encoding", b"Host", b"Expect", b"Upgrade", b"Connection", b"Content-Encoding", b"X-Request-Id", b"Authorization", b"Cookie", b"Range", b"Origin"]),
                                rng.choice([b"5", b"chunked", b"evil.example", b"100-continue", b"200-ok", b"h2c", b"close", b"keep-alive", b"gzip", b"a" * 300, b"\x1b[31m", b"a\tb", b"\xff", b"Bearer x", b"bytes=0-5"])))
            elif what == 7:
                headers.append((rng.choice([b"X Y", b"X\x00", b"", b"X:Y", b"\xe9", b"X" * 17000, b" X", b"X ", b"(x)"]), b"v"))
            elif what == 8:
                headers.append((b"X", rng.choice([b"a\r\n b", b"a\nb: c", b"\x00", b"b" * 20000, b"\r", b"a\r\n\r\nGET / HTTP/1.1"])))
            elif what == 9:
                headers += [(b"X%d" % i, b"v" * rng.choice([1, 400])) for i in range(120)]
            elif what == 10:
                framed = framed[:rng.randrange(len(framed) + 1)]
            else:
                framed += rng.choice([b"x", b"\r\n", b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x16\x03\x01", b"\x00" * 50])
    else:
        headers.append((b"Content-Length", b"%d" % len(body)))
    whole = level in ("json", "text")
    head = method + b" " + target + b" " + version + line_end + b"".join(k + b": " + v + line_end for k, v in headers) + line_end
    return head + framed, whole


def fragments(rng):
    """Nothing but pieces."""
    pieces = [b"GET ", b"POST ", b"/v1/chat/completions", b"/v1/models", b" HTTP/1.1", b"\r\n", b"\n", b"Host: localhost", b"Content-Length: ", b"5", b"0", b"Transfer-Encoding: chunked", b"Content-Type: application/json", b"\r\n\r\n",
              b"{", b"}", b'"model":"nautile"', b",", b"\x00", b"\xff\xfe", b"5\r\nhello\r\n", b"0\r\n\r\n", b":", b" ", b"A" * 50, bytes(rng.randrange(256) for _ in range(20))]
    return b"".join(rng.choice(pieces) for _ in range(rng.randint(1, 25)))


def fault(server, rng, data, whole):
    """(status, what is wrong or None)"""
    status, body = "closed", b""
    try:
        with server.connect(30) as s:
            s.sendall(data)
            if not whole:
                s.settimeout(0.05)
                try:
                    s.recv(1, socket.MSG_PEEK)
                except TimeoutError:
                    s.shutdown(socket.SHUT_WR)  # it waits: enough
                s.settimeout(30)
            answer = read_response(s, head_only=data.startswith(b"HEAD"))
            status, body = answer.status or "closed", answer.body
            if status == "closed" and whole:
                return status, "closed without an answer"
    except TimeoutError:
        return "hangs", "no answer in 30 s"
    except ConnectionError:
        status = "reset"
    except ValueError as error:
        return "not HTTP", f"the answer is not HTTP: {error}"
    if isinstance(status, str):
        return status, None
    if status >= 500:
        return status, f"{status} {body[:300]!r}"
    if status >= 400:
        for found in LEAKS.findall(body):
            if found.lower() not in data.lower():
                return status, f"an error speaks of {found!r}: {body[:500]!r}"
    return status, None


def run(server, requests, seed):
    by_status, wrong, slowest = {}, 0, 0
    for i in range(requests):
        rng = random.Random(seed * 1000003 + i)
        # An answer must come to a request whose framing is right; the others may leave the server waiting for more.
        data, whole = (fragments(rng), False) if rng.random() < 0.1 else request_of(rng)
        begin = time.time()
        status, what = fault(server, rng, data, whole)
        slowest = max(slowest, time.time() - begin)
        by_status[status] = by_status.get(status, 0) + 1
        check(server.process.poll() is None, f"request {i} ended the server ({server.process.poll()}): {data[:3000]!r}")
        if what:
            wrong += 1
            print(f"request {i}: {what} for {data[:1500]!r}", flush=True)
            check(wrong < 20, "and more")
    return by_status, slowest, wrong


def main():
    flags = argparse.ArgumentParser()
    flags.add_argument("nautile")
    flags.add_argument("--requests", type=int, default=10000)
    flags.add_argument("--seed", type=int, default=1)
    flags.add_argument("--model")
    o = flags.parse_args()
    more = ["--quiet", "--header-timeout", "2", "--body-timeout", "2", "--max-output-tokens", "200"]
    with Server(o.nautile, *more, backend="engine" if o.model else "scripted", model=o.model) as server:
        begin = time.time()
        by_status, slowest, wrong = run(server, o.requests, o.seed)
        eventually(lambda: server.metric("vllm:num_requests_running") + server.metric("vllm:num_requests_waiting") == 0, 20, "idle")
        check(server.get("/v1/health/ready").status == 200, "ready")
        resident = server.metric("process_resident_memory_bytes") / 1e6
        code = server.stop()
        check(code == 0, f"exit code {code}")
    print(json.dumps({"requests": o.requests, "by_status": {str(k): v for k, v in sorted(by_status.items(), key=str)}, "slowest_s": round(slowest, 2), "resident_mb": round(resident, 1),
                      "seconds": round(time.time() - begin, 1)}))
    check(wrong == 0, f"{wrong} wrong answers")


if __name__ == "__main__":
    try:
        main()
    except AssertionError as error:
        sys.exit(f"FAILED: {error}")
