#!/usr/bin/env python3
"""The whole way with nano: answers, structured output, the 20-turn agent through each dialect, many clients at once.

usage: serve_nano.py NAUTILE NANO_DIRECTORY
"""
import json
import re
import sys
import threading

from serve_harness import Server, chat, check, events, eventually, head, run_all

NANO = sys.argv[2]
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "Get the weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}


def start(nautile, *flags):
    return Server(nautile, *flags, backend="engine", model=NANO)


def content(answer):
    return answer["choices"][0]["message"]["content"]


def answers(nautile):
    with start(nautile) as server:
        request = chat("What is 48 + 75?", reasoning_mode="think_high", temperature=0)
        answer = server.post("/v1/chat/completions", request).json()
        check(content(answer) == "123" and "carry" in answer["choices"][0]["message"]["reasoning_content"], f"{answer}")
        check(content(server.post("/v1/chat/completions", chat("What is 20 + 30?", reasoning_mode="non_think")).json()) == "50", "non_think")
        streamed = server.stream("/v1/chat/completions", {**request, "stream": True})
        text = "".join(e["choices"][0]["delta"].get("content", "") for _, e in streamed if e != "[DONE]")
        check(text == "123", "streamed")
        hot = chat("hello", temperature=2, seed=9, max_tokens=40)
        first, *others = (server.post("/v1/chat/completions", {**hot, "seed": s}).json()["choices"][0]["message"] for s in (9, 9, 10, 11, 12))
        check(first == others[0] and any(first != other for other in others), f"the same seed gives the same bytes: {first} {others}")
        # And the same however busy the server is.
        got = []
        def ask():
            got.append(server.post("/v1/chat/completions", hot).json()["choices"][0]["message"])
        noise = [threading.Thread(target=lambda i=i: server.post("/v1/chat/completions", chat(f"hello {i}", max_tokens=40))) for i in range(6)]
        threads = [threading.Thread(target=ask) for _ in range(3)] + noise
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        check(all(m == first for m in got) and len(got) == 3, "busy or idle, the same tokens")
        answer = server.post("/v1/chat/completions", chat("What is 48 + 75?", thinking_token_budget=5)).json()
        check(answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == 5 and content(answer), "budget")
        scored = server.post("/v1/completions", {"model": "nautile", "prompt": "What is 48 + 75?", "echo": True, "logprobs": 1, "max_tokens": 0}).json()
        scores = scored["choices"][0]["logprobs"]
        check(scores["token_logprobs"][0] is None and all(x <= 0 for x in scores["token_logprobs"][1:]), f"{scores}")


def structured(nautile):
    with start(nautile) as server:
        schema = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 8}, "n": {"type": "integer", "minimum": 3, "maximum": 99},
                  "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3}}, "required": ["name", "n", "tags"], "additionalProperties": False}
        for mode in ("non_think", "think_high"):
            for stream in (False, True):
                request = chat("What is 12 + 30?", reasoning_mode=mode, temperature=1, seed=3, max_tokens=300, stream=stream,
                               response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
                answer = server.post("/v1/chat/completions", request)
                check(answer.status == 200, answer.body)
                if stream:
                    text = "".join(e["choices"][0]["delta"].get("content", "") for _, e in events(answer.body) if e != "[DONE]")
                else:
                    text = content(answer.json())
                made = json.loads(text)
                check(set(made) == {"name", "n", "tags"} and 3 <= made["n"] <= 99 and len(made["tags"]) <= 3, f"{mode}: {made}")
        for fields, pattern in ((dict(guided_regex="[a-f]{3}-[0-9]{2}"), r"[a-f]{3}-\d\d"), (dict(guided_choice=["yes", "no"]), "yes|no"),
                                (dict(structured_outputs={"grammar": 'root ::= "x" [0-9]+ "y"'}), r"x\d+y"), (dict(response_format={"type": "json_object"}), r"(?s)\{.*\}")):
            answer = server.post("/v1/chat/completions", chat("hello", reasoning_mode="non_think", max_tokens=200, **fields))
            check(answer.status == 200, answer.body)
            answer = answer.json()
            check(re.fullmatch(pattern, content(answer)) or answer["choices"][0]["finish_reason"] == "length", f"{fields}: {answer}")
        answer = server.post("/v1/completions", {"model": "nautile", "prompt": "x", "guided_choice": ["left", "right"]}).json()
        check(answer["choices"][0]["text"] in ("left", "right"), f"completions: {answer}")
        answer = server.post("/v1/messages", {**chat("hi"), "max_tokens": 300, "output_config": {"format": {"type": "json_schema", "schema": schema}}}).json()
        check(set(json.loads(answer["content"][-1]["text"])) == {"name", "n", "tags"}, f"messages: {answer}")
        answer = server.post("/v1/responses", {"model": "nautile", "input": "hi", "text": {"format": {"type": "json_schema", "name": "x", "schema": schema}}}).json()
        check(set(json.loads(answer["output"][-1]["content"][0]["text"])) == {"name", "n", "tags"}, f"responses: {answer}")
        for mode in ("non_think", "think_high", "think_max"):
            for choice in ("required", {"type": "function", "function": {"name": "get_weather"}}):
                answer = server.post("/v1/chat/completions", chat("hello", tools=[TOOL], tool_choice=choice, reasoning_mode=mode, max_tokens=400, temperature=1, seed=5)).json()
                done = answer["choices"][0]
                check(done["finish_reason"] in ("tool_calls", "length"), f"{answer}")
                if done["finish_reason"] == "tool_calls":
                    check(set(json.loads(done["message"]["tool_calls"][0]["function"]["arguments"])) == {"city"}, f"{answer}")
        for bad, code in ((dict(response_format={"type": "json_schema", "json_schema": {"schema": {"type": "hiccup"}}}), "invalid_schema"),
                          (dict(response_format={"type": "json_schema", "json_schema": {"schema": {"type": 123}}}), "invalid_schema"),
                          (dict(guided_regex="(("), "invalid_regex"), (dict(guided_regex="(a{1000}){1000}{1000}"), None), (dict(guided_grammar="root ::= nope"), "invalid_grammar"),
                          (dict(guided_choice=["a"], guided_regex="b"), "conflicting_parameters"),
                          (dict(tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"x": {"type": "nope"}}}}}]), "invalid_schema")):
            answer = server.post("/v1/chat/completions", chat("x", **bad))
            check(answer.status == 400 and code in (None, answer.code()), f"{bad}: {answer.status} {answer.body}")


def conversation(nautile):
    """20 turns with a tool call replayed byte for byte: what the usage calls cached is what the engine counted."""
    with start(nautile) as server:
        messages, last = [], 0
        for turn in range(20):
            messages.append({"role": "user", "content": f"What is the weather in {['Paris', 'Rome', 'Oslo'][turn % 3]}?"})
            body = {"model": "nautile", "messages": messages, "tools": [TOOL], "max_tokens": 60, "temperature": 0}
            answer = server.post("/v1/chat/completions", body).json()
            usage = answer["usage"]
            cached = usage["prompt_tokens_details"]["cached_tokens"]
            check(cached >= last // 128 * 128 - 128 and cached < usage["prompt_tokens"], f"turn {turn}: {cached} of {usage}, before {last}")
            last = usage["prompt_tokens"]
            message = answer["choices"][0]["message"]
            kept = {k: v for k, v in message.items() if k in ("role", "content", "reasoning_content", "tool_calls")}
            messages.append(kept)
            for call in message.get("tool_calls", []):
                messages.append({"role": "tool", "tool_call_id": call["id"], "content": "sunny"})
        check(server.metric("vllm:prompt_tokens_cached_total") == server.metric("vllm:prefix_cache_hits_total") > 0, "usage and engine agree")
        history, total = [], 0
        for turn in range(8):
            history.append({"role": "user", "content": f"What is {turn} + 30?"})
            answer = server.post("/v1/messages", {"model": "claude", "max_tokens": 80, "messages": history, "temperature": 0}).json()
            total += answer["usage"]["cache_read_input_tokens"]
            history.append({"role": "assistant", "content": answer["content"]})
        items, seen = [], 0
        for turn in range(8):
            items.append({"role": "user", "content": f"What is {turn} + 40?"})
            answer = server.post("/v1/responses", {"model": "nautile", "max_output_tokens": 80, "input": items, "temperature": 0}).json()
            seen += answer["usage"]["input_tokens_details"]["cached_tokens"]
            items += answer["output"]
        check(total >= 0 and seen >= 0, "the other dialects report it too")


def leaves(nautile):
    with start(nautile, "--step-tokens", "128") as server:  # short steps: a sanitizer makes one of 512 last for seconds
        for prompt, stream in (("hello", True), ("hello", False), ("word " * 14000, True)):
            data = json.dumps(chat(prompt, stream=stream, max_tokens=16000, ignore_eos=True)).encode()
            s = server.connect()
            s.sendall(head("POST", "/v1/chat/completions", {"Content-Type": "application/json", "Content-Length": len(data)}) + data)
            eventually(lambda: server.metric("vllm:num_requests_running") == 1, 10, "it runs")
            if prompt != "hello":
                check(server.get("/v1/status").json()["engine"]["prefilling"] == 1, "what is being read counts as running, from the first step on")
                eventually(lambda: server.get("/v1/status").json()["requests"][0]["phase"] == "prefill", 10, "a step of the prompt has been read")
            s.close()
            eventually(lambda: server.metric("vllm:num_requests_running") == 0, 1, "idle within a second")
        check(server.metric("nautile_requests_cancelled_total", 'phase="prefill"') >= 1, "it left while its prompt was read")


if __name__ == "__main__":
    run_all((answers, structured, conversation, leaves), sys.argv[1])
