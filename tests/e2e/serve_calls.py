#!/usr/bin/env python3
"""Answers with calls over HTTP: markup of the model cut and split everywhere, and every way to ask nano for a call.

usage: serve_calls.py NAUTILE NANO_DIRECTORY [TEST]
"""
import json
import sys

from serve_agent import FUNCTIONS, NANO, start
from serve_harness import D, call_text, chat, check, events, run_all, script, Server


def markup(_):
    """A scripted turn with reasoning, text and two calls, cut by the limit after every token and split in two at every place, in
    every dialect, whole and streamed: no markup anywhere, arguments that parse, true finish reasons, streams that add up."""
    reasoning, text = "Need < both. 2>&1", "One <moment> 🚀."
    calls = [("get_weather", {"city": "Rome </ x> \"q\"\n<b> 2>&1 </"}), ("find", {"text": "<｜", "limit": 3, "where": ["title"]})]
    says = reasoning + "</think>" + text + call_text(*calls)
    wanted = [json.dumps(p) for _, p in calls]
    bodies = {
        "openai": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "tools": [{"type": "function", "function": {"name": n, "parameters": p}} for n, _, p in FUNCTIONS]}, "max_tokens"),
        "anthropic": ("/v1/messages", {"messages": [{"role": "user", "content": "x"}], "tools": [{"name": n, "input_schema": p} for n, _, p in FUNCTIONS], "max_tokens": 5000}, "max_tokens"),
        "responses": ("/v1/responses", {"input": "x", "tools": [{"type": "function", "name": n, "parameters": p} for n, _, p in FUNCTIONS]}, "max_output_tokens")}
    asked = 0

    def take(name, answer, stream):
        """(reasoning, text, [arguments], finish)"""
        if name == "openai":
            if not stream:
                choice = answer.json()["choices"][0]
                m = choice["message"]
                return m.get("reasoning_content", ""), m["content"] or "", [c["function"]["arguments"] for c in m.get("tool_calls", [])], choice["finish_reason"]
            parts, finish, arguments = {"reasoning_content": "", "content": ""}, None, []
            for _, e in events(answer.body):
                if e == "[DONE]":
                    continue
                choice = e["choices"][0]
                for key in parts:
                    parts[key] += choice["delta"].get(key) or ""
                for call in choice["delta"].get("tool_calls", []):
                    if call["index"] == len(arguments):
                        arguments.append("")
                    arguments[call["index"]] += call["function"].get("arguments", "")
                finish = choice["finish_reason"] or finish
            return parts["reasoning_content"], parts["content"], arguments, finish
        if name == "anthropic":
            if not stream:
                body = answer.json()
                pick = lambda kind, key: [b[key] for b in body["content"] if b["type"] == kind]  # noqa: E731
                return "".join(pick("thinking", "thinking")), "".join(pick("text", "text")), [json.dumps(i) for i in pick("tool_use", "input")], body["stop_reason"]
            blocks, finish = [], None
            for _, e in events(answer.body):
                if e["type"] == "content_block_start":
                    blocks.append([e["content_block"]["type"], ""])
                elif e["type"] == "content_block_delta" and e["delta"]["type"] != "signature_delta":
                    blocks[e["index"]][1] += next(v for k, v in e["delta"].items() if k != "type")
                elif e["type"] == "message_delta":
                    finish = e["delta"]["stop_reason"]
            pick = lambda kind: [t for k, t in blocks if k == kind]  # noqa: E731
            return "".join(pick("thinking")), "".join(pick("text")), pick("tool_use"), finish
        body = [e for _, e in events(answer.body) if e != "[DONE]"][-1]["response"] if stream else answer.json()
        items = body["output"]
        if stream:
            deltas = {}
            for _, e in events(answer.body):
                if e != "[DONE]" and e["type"].endswith(".delta"):
                    deltas[e["output_index"]] = deltas.get(e["output_index"], "") + e["delta"]
            for index, item in enumerate(items):
                whole = item["arguments"] if item["type"] == "function_call" else item["content"][0]["text"]
                check(deltas.get(index, "") == whole, f"the deltas of item {index} add up to {deltas.get(index)!r}, not {whole!r}")
        pick = lambda kind: [i["content"][0]["text"] for i in items if i["type"] == kind]  # noqa: E731
        finish = "length" if body["status"] == "incomplete" else "tool_calls" if any(i["type"] == "function_call" for i in items) else "stop"
        return "".join(pick("reasoning")), "".join(pick("message")), [i["arguments"] for i in items if i["type"] == "function_call"], finish

    finished = {"openai": "tool_calls", "anthropic": "tool_use", "responses": "tool_calls"}
    cut = {"openai": "length", "anthropic": "max_tokens", "responses": "length"}
    with Server(sys.argv[1], "--quiet", model=NANO, backend="scripted") as server:
        def tokens(part):
            return server.post("/tokenize", {"prompt": part, "add_special_tokens": False, "parse_special_tokens": True}).json()["tokens"]
        total = server.post("/v1/chat/completions", {"model": "nautile", **bodies["openai"][1]}, script(text=says, bytes=True)).json()["usage"]["completion_tokens"]
        for name, (path, body, limit) in bodies.items():
            for stream in (False, True):
                for k in range(1, total + 1):
                    answer = server.post(path, {"model": "nautile", **body, "stream": stream, limit: k}, script(text=says, bytes=True))
                    asked += 1
                    check(answer.status == 200, answer.body[:300])
                    r, t, a, finish = take(name, answer, stream)
                    where = f"{name} stream={stream} cut after {k} of {total}: {r!r} {t!r} {a!r} {finish}"
                    # A broken last character may stand for one cut in two.
                    check(reasoning.startswith(r.rstrip("\ufffd")) and (text + "\n\n").startswith(t.rstrip("\ufffd")), where)
                    check(D not in r + t + "".join(a) and "tool_calls>" not in r + t + "".join(a) and "invoke" not in r + t + "".join(a), f"markup: {where}")
                    check(finish == (finished if k == total else cut)[name], f"finish: {where}")
                    for i, arguments in enumerate(a):
                        done = i + 1 < len(a) or k == total
                        if done:
                            check(json.loads(arguments) == calls[i][1], f"arguments: {where}")
                        elif not (name == "anthropic" and not stream):
                            check(json.dumps(calls[i][1], ensure_ascii=False).startswith(arguments.rstrip("\ufffd").rstrip('}"')) or arguments == "", f"partial arguments: {where}")
                    check(k < total or len(a) == 2, where)
        print(f"  {asked} answers cut after every token")
        asked = 0
        places = [k for k in range(1, len(says)) if not any(says[max(0, k - len(m) + 1 + i):][:len(m)] == m for m in (D, "</think>") for i in range(len(m) - 1))]
        for name, (path, body, limit) in bodies.items():
            for stream in (False, True):
                for k in places:
                    answer = server.post(path, {"model": "nautile", **body, "stream": stream}, script(tokens=tokens(says[:k]) + tokens(says[k:])))
                    asked += 1
                    r, t, a, finish = take(name, answer, stream)
                    check((r, t, finish) == (reasoning, text, finished[name]) and [json.loads(x) for x in a] == [p for _, p in calls], f"{name} split at {k}: {r!r} {t!r} {a!r} {finish}")
        print(f"  {asked} answers split at each of {len(places)} places")


def shapes(_):
    """Calls by nano itself: every way to ask for one, strict and not, one and several, thinking and not, hot and cold."""
    strict = [{"type": "function", "function": {"name": n, "parameters": p, "strict": True}} for n, _, p in FUNCTIONS]
    loose = [{"type": "function", "function": {"name": n, "parameters": p}} for n, _, p in FUNCTIONS] + [{"type": "function", "function": {"name": "now"}}]
    named = lambda n: {"type": "function", "function": {"name": n}}  # noqa: E731
    allowed = lambda mode, *names: {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [named(n) for n in names]}}  # noqa: E731
    counts = {}
    with start("--quiet") as server:
        for tools in (strict, loose):
            known = {t["function"]["name"]: t["function"].get("parameters") for t in tools}
            for choice in ("auto", "required", "none", named("add"), named("find"), allowed("auto", "add"), allowed("required", "find", "add"), *([named("now")] if tools is loose else [])):
                for mode in ("non_think", "think_high"):
                    for parallel in (True, False):
                        for temperature in (0, 1):
                            body = chat("What is the weather in Paris?", tools=tools, tool_choice=choice, reasoning_mode=mode, parallel_tool_calls=parallel, temperature=temperature,
                                        seed=3, max_tokens=400, thinking_token_budget=60)
                            whole = server.post("/v1/chat/completions", body)
                            check(whole.status == 200, whole.body[:300])
                            done = whole.json()["choices"][0]
                            m = done["message"]
                            made = m.get("tool_calls", [])
                            where = f"{choice} {mode} parallel={parallel} t={temperature}: {json.dumps(done, ensure_ascii=False)[:600]}"
                            check(D not in json.dumps(m, ensure_ascii=False) and "</think>" not in json.dumps(m, ensure_ascii=False), f"markup: {where}")
                            finish = done["finish_reason"]
                            check(finish == "length" or (finish == "tool_calls") == bool(made), f"finish: {where}")
                            must = choice == "required" or isinstance(choice, dict) and (choice["type"] == "function" or choice["allowed_tools"]["mode"] == "required")
                            check(not must or made or finish == "length", f"a call was demanded: {where}")
                            check(choice != "none" or not made, f"no call may be made: {where}")
                            check(parallel or len(made) <= 1, f"one call: {where}")
                            names = {"find", "add"} if isinstance(choice, dict) and choice["type"] == "allowed_tools" and len(choice["allowed_tools"]["tools"]) == 2 else \
                                {"add"} if isinstance(choice, dict) and choice["type"] == "allowed_tools" else {choice["function"]["name"]} if isinstance(choice, dict) else set(known)
                            for n, call in enumerate(made):
                                check(call["function"]["name"] in names, f"name: {where}")
                                if finish == "length" and n + 1 == len(made):
                                    continue
                                value, schema = json.loads(call["function"]["arguments"]), known[call["function"]["name"]]
                                check(set(value) >= set((schema or {}).get("required", [])) and (schema or not value), f"arguments: {where}")
                                if call["function"]["name"] == "find":
                                    check(1 <= value["limit"] <= 9 and set(value.get("where", [])) <= {"title", "body"}, f"arguments: {where}")
                            streamed = server.post("/v1/chat/completions", {**body, "stream": True})
                            deltas = [e["choices"][0] for _, e in events(streamed.body) if e != "[DONE]"]
                            check("".join(d["delta"].get("content") or "" for d in deltas) == (m["content"] or "") and deltas[-1]["finish_reason"] == finish, f"stream: {where}")
                            arguments = {}
                            for d in deltas:
                                for call in d["delta"].get("tool_calls", []):
                                    arguments[call["index"]] = arguments.get(call["index"], "") + call["function"].get("arguments", "")
                            check([arguments[i] for i in sorted(arguments)] == [c["function"]["arguments"] for c in made], f"stream: {where}")
                            counts[finish] = counts.get(finish, 0) + 1
    print(f"  {counts}")


if __name__ == "__main__":
    run_all([t for t in (markup, shapes) if t.__name__ in (sys.argv[3:] or [t.__name__])], sys.argv[1])
