#!/usr/bin/env python3
"""Agents over HTTP with nano: 20 turns with three tools through each dialect, and what the cache makes of them.

usage: serve_agent.py NAUTILE NANO_DIRECTORY [TEST]

After every answer: the cached tokens in its usage are those that the engine counted and the log names; the prompt begins with
the one before and the tokens generated for it; all but one block (128 tokens) of what is known comes from the cache. Agents that drop
reasoning, write arguments anew, interleave, meet a busy server, or a restarted one with the disk tier. The scripted backend
speaks tokens that the tokenizer would never choose. What one answer with calls looks like is serve_calls.py's.
"""
import json
import shutil
import sys
import tempfile
import threading

from serve_harness import call_text, chat, check, events, eventually, run_all, script, Server

NANO = sys.argv[2]
TURNS = 20
FUNCTIONS = [
    ("get_weather", "Get the weather of a city.", {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}),
    ("add", "Add two numbers.", {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}}, "required": ["a", "b"], "additionalProperties": False}),
    ("find", "Find text.", {"type": "object", "properties": {"text": {"type": "string"}, "where": {"type": "array", "items": {"enum": ["title", "body"]}, "maxItems": 2},
                                                             "limit": {"type": "integer", "minimum": 1, "maximum": 9}}, "required": ["text", "limit"], "additionalProperties": False}),
]
QUESTIONS = ["What is the weather in Paris?", "What is 48 + 75?", "Find the cold valley.", "What is the weather in Rome?", "And in Oslo?", "hello"]


def start(*flags, **more):
    return Server(sys.argv[1], *flags, backend="engine", model=NANO, **more)


class Dialect:
    """One conversation in one dialect. ask() gives (calls, usage (prompt, cached, completion), ids of the prompt)."""
    path, render_path = "", ""

    def __init__(self, server, seed=0, temperature=0, mode="think_high", drop=False, rewrite=False, stream=False, max_tokens=220, user=None):
        self.server, self.history, self.seed, self.temperature, self.mode = server, [], seed, temperature, mode
        self.drop, self.rewrite, self.stream, self.max_tokens, self.turn, self.user = drop, rewrite, stream, max_tokens, 0, user
        self.headers, self.forced = {}, True

    def choice(self):
        # Required on every third turn, so that nano calls in every conversation.
        return "required" if self.forced and self.turn % 3 == 0 else "auto"

    def arguments(self, text):
        """The same arguments as another client would write them: other spaces, other order."""
        value = json.loads(text)
        return json.dumps(dict(reversed(list(value.items()))), separators=(",", ":"), ensure_ascii=True) if self.rewrite else text

    def ask(self, x_script=None):
        body = self.body()
        rendered = self.server.post("/v1/chat/completions/render", self.as_chat(body))
        check(rendered.status == 200, f"turn {self.turn}: {rendered.body[:500]}")
        prompt = rendered.json()["token_ids"]
        headers = {"x-request-id": f"r{id(self)}-{self.turn}", **(x_script or {})}
        answer = self.server.post(self.path, {**body, "stream": self.stream}, headers)
        check(answer.status == 200, f"turn {self.turn}: {answer.status} {answer.body[:500]}")
        self.headers = answer.headers
        self.turn += 1
        made = self.take(answer)
        if self.server.process:
            eventually(lambda: any(line["request_id"] == headers["x-request-id"] for line in self.server.requests()), 5, "the log line")
            self.line = next(line for line in self.server.requests() if line["request_id"] == headers["x-request-id"])
        return made, prompt


class Chat(Dialect):
    path = "/v1/chat/completions"

    def question(self, text):
        self.history.append({"role": "user", "content": text})

    def result(self, call_id, text):
        self.history.append({"role": "tool", "tool_call_id": call_id, "content": text})

    def body(self):
        body = {"model": "nautile", "messages": self.history, "max_tokens": self.max_tokens, "temperature": self.temperature, "seed": self.seed, "reasoning_mode": self.mode,
                "thinking_token_budget": 60, "tool_choice": self.choice(), "return_token_ids": True,
                "tools": [{"type": "function", "function": {"name": n, "description": d, "parameters": p}} for n, d, p in FUNCTIONS]}
        if self.stream:
            body["stream_options"] = {"include_usage": True}
        if self.user:
            body["user"] = self.user
        return body

    def as_chat(self, body):
        return {k: v for k, v in body.items() if k not in ("stream_options",)}

    def take(self, answer):
        if self.stream:
            message, usage, self.ids = {"role": "assistant", "content": ""}, None, []
            for _, e in events(answer.body):
                if e == "[DONE]":
                    continue
                usage = e.get("usage") or usage
                for choice in e["choices"]:
                    delta = choice["delta"]
                    for key in ("content", "reasoning_content"):
                        if delta.get(key):
                            message[key] = message.get(key, "") + delta[key]
                    for call in delta.get("tool_calls", []):
                        calls = message.setdefault("tool_calls", [])
                        if call["index"] == len(calls):
                            calls.append({"id": call["id"], "type": "function", "function": {"name": call["function"]["name"], "arguments": ""}})
                        calls[call["index"]]["function"]["arguments"] += call["function"].get("arguments", "")
                    self.finish = choice["finish_reason"] or getattr(self, "finish", None)
        else:
            body = answer.json()
            message, usage, self.finish, self.ids = body["choices"][0]["message"], body["usage"], body["choices"][0]["finish_reason"], body["choices"][0].get("token_ids")
        kept = {k: v for k, v in message.items() if k in ("role", "content", "reasoning_content", "tool_calls")}
        if self.drop:
            kept.pop("reasoning_content", None)
        kept["content"] = kept.get("content") or ""
        if self.finish == "length":  # what a client makes of a call that was cut: it leaves it out
            kept.pop("tool_calls", None)
        for call in kept.get("tool_calls", []):
            call["function"]["arguments"] = self.arguments(call["function"]["arguments"])
        self.history.append(kept)
        calls = [(c["id"], c["function"]["name"], json.loads(c["function"]["arguments"])) for c in kept.get("tool_calls", [])]
        return calls, (usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"], usage["completion_tokens"])


class Messages(Dialect):
    path = "/v1/messages"

    def question(self, text):
        if self.history and self.history[-1]["role"] == "user":
            self.history[-1]["content"].append({"type": "text", "text": text})
        else:
            self.history.append({"role": "user", "content": [{"type": "text", "text": text}]})

    def result(self, call_id, text):
        if self.history[-1]["role"] != "user":
            self.history.append({"role": "user", "content": []})
        self.history[-1]["content"].append({"type": "tool_result", "tool_use_id": call_id, "content": text})

    def body(self):
        thinking = {"type": "disabled"} if self.mode == "non_think" else {"type": "enabled", "budget_tokens": 60}
        return {"model": "nautile", "messages": self.history, "max_tokens": self.max_tokens, "temperature": self.temperature, "thinking": thinking,
                "tool_choice": {"type": "any" if self.choice() == "required" else "auto"},
                "tools": [{"name": n, "description": d, "input_schema": p} for n, d, p in FUNCTIONS]}

    def as_chat(self, body):
        """The same conversation as an OpenAI client would send it."""
        messages = []
        for turn in self.history:
            if turn["role"] == "user":
                for block in turn["content"]:
                    messages.append({"role": "tool", "tool_call_id": block["tool_use_id"], "content": block["content"]} if block["type"] == "tool_result"
                                    else {"role": "user", "content": block["text"]})
            else:
                made = {"role": "assistant", "content": "".join(b["text"] for b in turn["content"] if b["type"] == "text")}
                made["reasoning_content"] = "".join(b["thinking"] for b in turn["content"] if b["type"] == "thinking")
                calls = [{"id": b["id"], "type": "function", "function": {"name": b["name"], "arguments": json.dumps(b["input"])}} for b in turn["content"] if b["type"] == "tool_use"]
                if calls:
                    made["tool_calls"] = calls
                messages.append(made)
        like = Chat(self.server, mode=self.mode)
        like.history = messages
        return like.as_chat(like.body())

    def take(self, answer):
        if self.stream:
            content, usage, self.finish = [], {}, None
            for _, e in events(answer.body):
                if e["type"] == "content_block_start":
                    content.append({**e["content_block"], "partial": ""})
                elif e["type"] == "content_block_delta":
                    d, block = e["delta"], content[e["index"]]
                    key = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature", "input_json_delta": "partial"}[d["type"]]
                    block[key] += d.get("partial_json", d.get(key, ""))
                elif e["type"] == "message_delta":
                    usage, self.finish = e["usage"], e["delta"]["stop_reason"]
            for block in content:
                partial = block.pop("partial")
                if block["type"] == "tool_use" and self.finish != "max_tokens":
                    block["input"] = json.loads(partial or "{}")
        else:
            body = answer.json()
            content, usage, self.finish = body["content"], body["usage"], body["stop_reason"]
        if self.finish == "max_tokens":
            content = [b for b in content if b["type"] != "tool_use"] or [{"type": "text", "text": ""}]
        if self.drop:
            content = [b for b in content if b["type"] != "thinking"] or [{"type": "text", "text": ""}]
        for block in content:
            if block["type"] == "tool_use":
                block["input"] = json.loads(self.arguments(json.dumps(block["input"])))
        self.history.append({"role": "assistant", "content": content})
        calls = [(b["id"], b["name"], b["input"]) for b in content if b["type"] == "tool_use"]
        return calls, (usage["input_tokens"] + usage["cache_read_input_tokens"] + usage["cache_creation_input_tokens"], usage["cache_read_input_tokens"], usage["output_tokens"])


class Responses(Dialect):
    path = "/v1/responses"

    def question(self, text):
        self.history.append({"role": "user", "content": text})

    def result(self, call_id, text):
        self.history.append({"type": "function_call_output", "call_id": call_id, "output": text})

    def body(self):
        return {"model": "nautile", "input": self.history, "max_output_tokens": self.max_tokens, "temperature": self.temperature, "reasoning_mode": self.mode,
                "thinking_token_budget": 60, "tool_choice": self.choice(), "tools": [{"type": "function", "name": n, "description": d, "parameters": p} for n, d, p in FUNCTIONS]}

    def as_chat(self, body):
        messages = []
        for item in self.history:
            kind = item.get("type", "message")
            if kind == "function_call_output":
                messages.append({"role": "tool", "tool_call_id": item["call_id"], "content": item["output"]})
            elif item.get("role") == "user":
                messages.append(item)
            else:
                if not messages or messages[-1]["role"] != "assistant" or (kind == "reasoning"):
                    messages.append({"role": "assistant", "content": ""})
                if kind == "reasoning":
                    messages[-1]["reasoning_content"] = "".join(p["text"] for p in item["content"])
                elif kind == "message":
                    messages[-1]["content"] += "".join(p["text"] for p in item["content"])
                else:
                    messages[-1].setdefault("tool_calls", []).append({"id": item["call_id"], "type": "function", "function": {"name": item["name"], "arguments": item["arguments"]}})
        like = Chat(self.server, mode=self.mode)
        like.history = messages
        return like.as_chat(like.body())

    def take(self, answer):
        body = [e for _, e in events(answer.body) if e != "[DONE]"][-1]["response"] if self.stream else answer.json()
        self.finish = body["status"]
        items = body["output"]
        if self.finish == "incomplete":
            items = [i for i in items if i["type"] != "function_call"]
        if self.drop:
            items = [i for i in items if i["type"] != "reasoning"]
        if not any(i["type"] in ("message", "function_call") for i in items):
            items = items + [{"role": "assistant", "content": [{"type": "output_text", "text": ""}]}]
        for item in items:
            if item.get("type") == "function_call":
                item["arguments"] = self.arguments(item["arguments"])
        self.history += items
        usage = body["usage"]
        calls = [(i["call_id"], i["name"], json.loads(i["arguments"])) for i in items if i.get("type") == "function_call"]
        return calls, (usage["input_tokens"], usage["input_tokens_details"]["cached_tokens"], usage["output_tokens"])


DIALECTS = {"openai": Chat, "anthropic": Messages, "responses": Responses}


class Agent:
    """Goes through the turns and checks each."""
    def __init__(self, name, dialect, exact=True):
        self.name, self.d, self.exact, self.before, self.known, self.turns, self.calls = name, dialect, exact, [], 0, [], 0
        self.computed = self.prompt_tokens = self.longest = self.cuts = 0
        self.cut = False
        self.waiting = []

    def step(self, i, x_script=None):
        if self.waiting:
            for call_id, name, arguments in self.waiting:
                self.d.result(call_id, f"{name} says {len(json.dumps(arguments)) * (i + 1)} is sunny")
        else:
            self.d.question(QUESTIONS[i % len(QUESTIONS)])
        (self.waiting, (prompt, cached, completion)), ids = self.d.ask(x_script)
        where = f"{self.name} turn {i}"
        check(len(ids) == prompt, f"{where}: {len(ids)} tokens rendered, {prompt} in usage")
        check(self.d.line["cached_tokens"] == cached, f"{where}: usage says {cached} cached, the log {self.d.line}")
        check(ids[:len(self.before)] == self.before, f"{where}: the prompt does not begin with the one before")
        # All that is known of it is computed already: the prompt before and what was generated, but for the last token.
        new = prompt - self.known
        loss = (prompt - cached) - new
        # A turn that was cut is not replayed: it ended in the middle of a call, or of its reasoning.
        if self.exact and not self.cut:
            check(loss <= 128, f"{where}: {prompt - cached} of {prompt} computed, {new} are new; {self.d.line['cache']}")
            self.longest = max(self.longest, loss)
        self.cut = self.d.finish in ("length", "max_tokens", "incomplete")
        self.cuts += self.cut
        self.computed += prompt - cached
        self.prompt_tokens += prompt
        self.calls += len(self.waiting)
        self.before, self.known = ids, prompt + completion
        self.turns.append((ids, self.waiting, cached))
        return self

    def run(self, turns=TURNS):
        for i in range(turns):
            self.step(i)
        return self

    def report(self):
        print(f"  {self.name}: {len(self.turns)} turns, {self.calls} calls, {self.prompt_tokens} prompt tokens, {self.computed} of them computed; at most {self.longest} known ones computed again"
              + (f"; {self.cuts} turns cut" if self.cuts else ""))


def strip_ids(turns):
    return [(ids, [(name, arguments) for _, name, arguments in calls], cached) for ids, calls, cached in turns]


def dialects(_):
    """Each dialect, alone, thinking and not, streamed and not: usage is what the engine counted, prompts are equal."""
    for mode in ("think_high", "non_think"):
        seen = {}
        for name, kind in DIALECTS.items():
            for stream in (False, True):
                with start() as server:
                    agent = Agent(f"{name} {mode}{' streamed' if stream else ''}", kind(server, mode=mode, stream=stream)).run()
                    cached = sum(c for *_, c in agent.turns)
                    check(server.metric("vllm:prefix_cache_hits_total") == server.metric("vllm:prompt_tokens_cached_total") == cached,
                          f"{name}: usage {cached}, the engine {server.metric('vllm:prefix_cache_hits_total')}")
                    check(agent.calls >= TURNS // 3 - 1, f"{agent.calls} calls")
                    if not stream:
                        agent.report()
                    seen[name, stream] = strip_ids(agent.turns)
        first = next(iter(seen.values()))
        for which, turns in seen.items():
            for i, (a, b) in enumerate(zip(first, turns)):
                check(a == b, f"{mode} {which} turn {i}: another prompt, other calls or other hits than OpenAI's")


def sampled(_):
    """At temperature 1 the model spells as it likes; what it said stays in the cache all the same. Dropped reasoning, rewritten arguments."""
    for name, kind in DIALECTS.items():
        with start() as server:
            for drop, rewrite in ((False, False), (True, False), (False, True), (True, True)):
                agent = Agent(f"{name}, temperature 1{', reasoning dropped' if drop else ''}{', arguments rewritten' if rewrite else ''}",
                              kind(server, seed=11, temperature=1, drop=drop, rewrite=rewrite, user=f"{drop}{rewrite}"))
                for i in range(TURNS):
                    agent.step(i)
                    if drop and agent.calls:
                        check(agent.d.headers.get("x-reasoning-replay") == "exact" or i == 0 or agent.calls == len(agent.waiting), f"turn {i}: {agent.d.headers}")
                agent.report()



def interleaved(_):
    """Two agents of one key take turns, and two of different users say the same: each finds its own prefix, and nobody else's."""
    with start() as server:
        agents = [Agent("first", Chat(server)), Agent("second", Messages(server)), Agent("third, another user", Chat(server, user="somebody"))]
        agents[1].d.question("Hello there.")  # so that the two part at once
        for i in range(TURNS):
            for agent in agents:
                agent.step(i)
        check(agents[2].turns[0][2] == 0, "another user's prefix is not shared")
        for agent in agents:
            agent.report()


def twice(_):
    """The same request twice gives the same bytes, but for ids and the time: alone, and among sixteen streams."""
    strip = {"id", "created", "created_at", "completed_at", "usage", "x", "call_id", "item_id", "signature", "response_id", "sequence_number", "request_id", "encrypted_content"}

    def plain(value):
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items() if k not in strip}
        return [plain(v) for v in value] if isinstance(value, list) else value
    with start() as server:
        agent = Agent("openai", Chat(server, seed=5, temperature=1))
        other = Agent("anthropic", Messages(server))
        third = Agent("responses", Responses(server))
        bodies = []
        for one in (agent, other, third):
            for i in range(6):
                bodies.append((one.d.path, {"tool_choice": "auto", **json.loads(json.dumps(one.d.body()))} if i else None))
                one.step(i)
        bodies = [(path, body) for path, body in bodies if body and (body.get("messages") or body.get("input"))]

        def ask(path, body, stream):
            answer = server.post(path, {**body, "stream": stream})
            check(answer.status == 200, answer.body[:300])
            return json.dumps([plain(e) for _, e in events(answer.body) if e != "[DONE]"] if stream else plain(answer.json()))
        alone = [[ask(path, body, stream) for stream in (False, True)] for path, body in bodies]
        check(alone == [[ask(path, body, stream) for stream in (False, True)] for path, body in bodies], "twice, alone")
        over = threading.Event()

        def noise(n):
            while not over.is_set():
                server.post("/v1/chat/completions", chat(f"Tell me about {n}. hello", seed=n, temperature=1, max_tokens=150, stream=True))
        streams = [threading.Thread(target=noise, args=(n,)) for n in range(16)]
        for t in streams:
            t.start()
        try:
            busy = [[ask(path, body, stream) for stream in (False, True)] for path, body in bodies]
        finally:
            over.set()
            for t in streams:
                t.join()
        for i, (a, b) in enumerate(zip(alone, busy)):
            check(a == b, f"{bodies[i][0]} {i}, busy:\n{a[0]}\n{b[0]}\n{a[1][:2000]}\n{b[1][:2000]}")
        print(f"  {len(bodies)} requests, each whole and streamed, alone twice and among 16 streams")


def restarted(_):
    """With the disk tier a restarted server goes on where the last one was, but for what only memory knew."""
    folder = tempfile.mkdtemp(prefix="nautile-agent-")
    flags = ("--cache-directory", folder, "--cache-disk", "1GB")
    try:
        for name, kind in DIALECTS.items():
            with start(*flags) as server:
                agent = Agent(f"{name}, restarted", kind(server, temperature=0))
                for i in range(10):
                    agent.step(i)
                check(server.stop() == 0, "a clean end")
            with start(*flags) as server:
                agent.d.server = server
                for i in range(10, TURNS):
                    agent.step(i)
                check("from disk" in "".join(line["cache"] for line in server.requests()), "the first turn comes from disk")
            agent.report()
            # Without its reasoning and after a restart nothing can repair a turn: it is tolerated, and the prompt is another.
        print("  a restarted server has no replays: dropped reasoning is then left out")
    finally:
        shutil.rmtree(folder)


def quota(_):
    """A key with many users fills its own share; the other key's prefix stays. Without a share it would go."""
    import os
    folder = tempfile.mkdtemp(prefix="nautile-agent-")
    keys = os.path.join(folder, "keys")
    with open(keys, "w") as file:
        file.write("good:good-key\nflood:flood-key\n")
    try:
        hits = {}
        for budget in ("0", "4MB"):
            with start("--api-key-file", keys, "--cache-memory", "12MB", "--cache-scope-budget", budget, "--metrics-public") as server:
                def ask(key, text, user):
                    answer = server.post("/v1/chat/completions", chat(text, user=user, max_tokens=1), {"Authorization": f"Bearer {key}"})
                    check(answer.status == 200, answer.body[:300])
                    return answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"]
                mine = "The code word for the cold valley is copper. " * 40
                ask("good-key", mine, "me")
                check(ask("good-key", mine, "me") > 300, "cached")
                for i in range(150):
                    flood = f"Number {i} and {i * i}. " * 60
                    for _ in range(3):
                        ask("flood-key", flood, f"user {i}")
                check(server.metric("nautile_kv_cache_bytes") <= 12e6 * 1.1, "within the budget")
                hits[budget] = ask("good-key", mine, "me")
        print(f"  cached of the quiet key after the flood: {hits['0']} tokens without shares, {hits['4MB']} with")
        check(hits["4MB"] > 300 and hits["0"] == 0, f"{hits}")
    finally:
        shutil.rmtree(folder)


def spelled(_):
    """Tokens that the tokenizer would never choose (one a byte), in the reasoning, the text and the arguments: the next prompt
    holds them as they were, in every dialect, whatever the client did to spaces and order; a changed turn is the client's."""
    for name, kind in DIALECTS.items():
        for drop, rewrite in ((False, False), (True, False), (False, True), (True, True)):
            with Server(sys.argv[1], model=NANO, backend="scripted") as server:
                agent = Agent(f"{name} spelled by bytes drop={drop} rewrite={rewrite}", kind(server, drop=drop, rewrite=rewrite, max_tokens=5000))
                agent.d.forced = False
                for i in range(TURNS):
                    says = "I think of Grüße 🚀 and more.</think>" + ("One moment." if i % 4 == 0 else "")
                    calls = [("get_weather", {"city": f"Rome {i} \"x\" <b>"}), ("find", {"text": "2>&1", "limit": 1 + i % 9, "where": ["title", "body"]})]
                    says += call_text(*calls[:1 + i % 2]) if i % 3 != 2 else "So it is sunny: naïve 🚀."
                    known = agent.known
                    agent.step(i, script(text=says, bytes=True))
                    ids, calls, cached = agent.turns[-1]
                    # An answer before any call is known by nothing: only there may the spelling change.
                    check(cached >= known - 1, f"{agent.name} turn {i}: {cached} of {len(ids)} cached, {known} known")
                if drop:
                    check(agent.d.headers["x-reasoning-replay"] == "exact", f"{agent.d.headers}")
                    check(server.metric("nautile_replay_lookups_total", 'result="missing"') == 0, "nothing was missing")
    with Server(sys.argv[1], model=NANO, backend="scripted") as server:
        chat_agent = Agent("changed", Chat(server), exact=False)
        chat_agent.d.forced = False
        chat_agent.step(0, script(text="Why.</think>" + call_text(("get_weather", {"city": "Rome"})), bytes=True))
        same = server.post("/v1/chat/completions/render", chat_agent.d.as_chat(chat_agent.d.body())).json()["token_ids"]
        chat_agent.d.history[-1]["tool_calls"][0]["function"]["arguments"] = '{"city": "Oslo"}'
        other = server.post("/v1/chat/completions/render", chat_agent.d.as_chat(chat_agent.d.body())).json()
        check("Oslo" in other["prompt"] and "Rome" not in other["prompt"] and len(other["token_ids"]) < len(same), "what the client says counts")


if __name__ == "__main__":
    tests = [t for t in (dialects, sampled, interleaved, twice, restarted, quota, spelled) if t.__name__ in (sys.argv[3:] or [t.__name__])]
    run_all(tests, sys.argv[1])
