"""The rest of what the OpenAI and Anthropic packages offer: stream helpers with tools, parsing, scores, several answers,
cancellation, errors by type, fill in the middle, allowed tools, and reasoning_mode through extra_body in every dialect."""
import asyncio
import json
import time

from serve_harness import check, eventually, script
from setting import CALL, KEY, PARAMETERS, TOOL, serving

HI = [{"role": "user", "content": "hi"}]
FLAT = {"type": "function", "name": "get_weather", "description": "Weather.", "parameters": PARAMETERS, "strict": True}
OTHER = {"type": "function", "function": {"name": "get_time", "parameters": PARAMETERS}}


def raises(kind, call):
    try:
        call()
    except kind as error:
        check(type(error) is kind, f"{type(error).__name__} instead of {kind.__name__}")
        return error
    raise AssertionError(f"no {kind.__name__}")


def openai_streams(_):
    import openai
    from pydantic import BaseModel

    class Point(BaseModel):
        x: int
        y: int

    class Weather(BaseModel):
        city: str
    point = 'x</think>{"x": 1, "y": 2}'
    with serving() as server:
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key=KEY, max_retries=0)
        with client.responses.stream(model="nautile", input="w", tools=[FLAT], extra_headers=script(text="x</think>One moment." + CALL)) as stream:
            kinds = [event.type for event in stream]
            done = stream.get_final_response()
        check([item.type for item in done.output] == ["reasoning", "message", "function_call"], f"{done.output}")
        check(json.loads(done.output[-1].arguments) == {"city": "Rome"} and done.output_text == "One moment.", "responses.stream")
        check("response.function_call_arguments.delta" in kinds and kinds[-1] == "response.completed", f"{kinds}")
        with client.responses.stream(model="nautile", input="w", text_format=Point, extra_headers=script(text=point)) as stream:
            for _event in stream:
                pass
            check(stream.get_final_response().output_parsed == Point(x=1, y=2), "responses.stream parsed")
        # The next turn, with everything that came back.
        again = [{"role": "user", "content": "w"}, *done.output, {"type": "function_call_output", "call_id": done.output[-1].call_id, "output": "sunny"}]
        check(client.responses.create(model="nautile", input=again, tools=[FLAT]).output_text == "Hello from the scripted backend.", "second turn")
        counted = not hasattr(client.responses, "input_tokens") and done.usage.input_tokens  # openai 1 has no such call
        counted = counted or client.responses.input_tokens.count(model="nautile", input="w", tools=[FLAT]).input_tokens
        check(counted == done.usage.input_tokens, "input_tokens")

        with client.chat.completions.stream(model="nautile", messages=HI, response_format=Point, extra_headers=script(text=point)) as stream:
            kinds = {event.type for event in stream}
            check(stream.get_final_completion().choices[0].message.parsed == Point(x=1, y=2), "chat stream parsed")
        check({"chunk", "content.delta", "content.done"} <= kinds, f"{kinds}")
        tools = [openai.pydantic_function_tool(Weather, name="get_weather")]
        parsed = client.chat.completions.parse(model="nautile", messages=HI, tools=tools, extra_headers=script(text="x</think>" + CALL))
        check(parsed.choices[0].message.tool_calls[0].function.parsed_arguments == Weather(city="Rome"), "tools parsed")
        with client.chat.completions.stream(model="nautile", messages=HI, logprobs=True, top_logprobs=3) as stream:
            kinds = {event.type for event in stream}
            done = stream.get_final_completion()
        scores = done.choices[0].logprobs.content
        check("logprobs.content.delta" in kinds and "".join(s.token for s in scores) == done.choices[0].message.content, "scores in a stream")
        check(all(len(s.top_logprobs) == 3 and s.logprob <= 0 and bytes(s.bytes).decode() == s.token for s in scores), "scores")
        with client.chat.completions.with_streaming_response.create(model="nautile", messages=HI, stream=True) as raw:
            lines = list(raw.iter_lines())
        check(lines[-2:] == ["data: [DONE]", ""] or lines[-1] == "data: [DONE]", f"{lines[-2:]}")

        whole = client.chat.completions.create(model="nautile", messages=HI, n=3, logprobs=True)
        check([c.index for c in whole.choices] == [0, 1, 2] and all(c.logprobs.content for c in whole.choices), "n")
        texts = ["", "", ""]
        for chunk in client.chat.completions.create(model="nautile", messages=HI, n=3, stream=True):
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
        check(texts == [c.message.content for c in whole.choices], "n in a stream")


def openai_fields(_):
    import openai
    with serving("--metrics-public") as server:
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key=KEY, max_retries=0)

        # allowed_tools: all tools stay in the prompt, only the named may be called.
        chat = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "get_time"}}]}}
        answer = client.chat.completions.create(model="nautile", messages=HI, tools=[TOOL, OTHER], tool_choice=chat, max_tokens=500,
                                                extra_headers=script(text="x</think>" + CALL.replace("get_weather", "get_time")))
        check(answer.choices[0].message.tool_calls[0].function.name == "get_time", "allowed_tools")
        answer = client.chat.completions.create(model="nautile", messages=HI, tools=[TOOL, OTHER], tool_choice=chat, max_tokens=500, extra_headers=script(text="x</think>" + CALL))
        check({c.function.name for c in answer.choices[0].message.tool_calls} == {"get_time"}, "a tool that is not allowed cannot be called")
        free = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "get_time"}}]}}
        check(client.chat.completions.create(model="nautile", messages=HI, tools=[TOOL, OTHER], tool_choice=free).choices[0].message.content, "allowed_tools, auto")
        flat = [FLAT, {**FLAT, "name": "get_time"}]
        asked = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "get_time"}]}
        answer = client.responses.create(model="nautile", input="w", tools=flat, tool_choice=asked, max_output_tokens=500, extra_headers=script(text="x</think>" + CALL))
        check({i.name for i in answer.output if i.type == "function_call"} == {"get_time"}, "allowed_tools of responses")
        unknown = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "get_moon"}}]}}
        error = raises(openai.BadRequestError, lambda: client.chat.completions.create(model="nautile", messages=HI, tools=[TOOL], tool_choice=unknown))
        check(error.param == "tool_choice", f"{error.param}")
        raises(openai.BadRequestError, lambda: client.responses.create(model="nautile", input="w", tools=[FLAT], tool_choice={**asked, "tools": [{"type": "function", "name": "get_moon"}]}))

        # Fill in the middle.
        answer = client.completions.create(model="nautile", prompt="def f(a):\n", suffix="\n    return b", max_tokens=20, extra_headers=script(text="    b = a"))
        check(answer.choices[0].text == "    b = a" and answer.choices[0].finish_reason == "stop", "suffix")
        text = "".join(c.choices[0].text for c in client.completions.create(model="nautile", prompt="a", suffix="c", stream=True, extra_headers=script(text="b")) if c.choices)
        check(text == "b", "suffix in a stream")
        shown = server.post("/v1/completions/render", {"model": "nautile", "prompt": "<A>", "suffix": "<C>"}, {"authorization": "Bearer " + KEY}).json()["prompt"]
        check(shown.endswith("<｜fim▁begin｜><A><｜fim▁hole｜><C><｜fim▁end｜>"), shown)
        for fields in ({"echo": True}, {"prompt": ["a", "b"]}, {"prompt": [5, 6]}, {"extra_body": {"reasoning_mode": "think_high"}}):
            raises(openai.BadRequestError, lambda: client.completions.create(**{"model": "nautile", "prompt": "a", "suffix": "c", **fields}))

        # reasoning_mode, NIM's way: through extra_body.
        for mode, thinks in (("non_think", False), ("think_high", True), ("think_max", True)):
            extra = {"reasoning_mode": mode}
            answer = client.chat.completions.create(model="nautile", messages=HI, extra_body=extra)
            check(bool(getattr(answer.choices[0].message, "reasoning_content", None)) == thinks, f"chat {mode}")
            answer = client.responses.create(model="nautile", input="hi", extra_body=extra)
            check((answer.output[0].type == "reasoning") == thinks and answer.output_text == "Hello from the scripted backend.", f"responses {mode}")
        check(client.completions.create(model="nautile", prompt="a", extra_body={"reasoning_mode": "non_think"}).choices[0].text, "completions")
        error = raises(openai.BadRequestError, lambda: client.chat.completions.create(model="nautile", messages=HI, extra_body={"reasoning_mode": "loudly"}))
        check(error.param == "reasoning_mode" and error.code == "invalid_value", f"{error.param} {error.code}")
        raises(openai.BadRequestError, lambda: client.chat.completions.create(model="nautile", messages=HI, reasoning_effort="high", extra_body={"reasoning_mode": "non_think"}))
        error = raises(openai.NotFoundError, lambda: client.embeddings.create(model="nautile", input="a"))
        check(error.code == "unknown_url", f"{error.code}")
        error = raises(openai.BadRequestError, lambda: client.chat.completions.create(model="nautile", messages=[{"role": "user", "content": "word " * 200000}]))
        check(error.code == "context_length_exceeded" and error.body["n_ctx"] > 0, f"{error.code}")
        raises(openai.APITimeoutError, lambda: openai.OpenAI(base_url=client.base_url, api_key=KEY, max_retries=0, timeout=0.3).chat.completions.create(model="nautile", messages=HI, extra_headers=script(text="a", stall_after=0)))
        eventually(lambda: server.metric("vllm:num_requests_running") == 0, what="a request whose client gave up ends")


def stored_responses(_):
    """previous_response_id, GET, DELETE and input_items, with --responses-store; without it they say so."""
    import openai
    with serving() as server:
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key=KEY, max_retries=0)
        answer = client.responses.create(model="nautile", input="hi", store=True)
        check(answer.store is False, "store is not offered")
        raises(openai.NotFoundError, lambda: client.responses.retrieve(answer.id))
        error = raises(openai.BadRequestError, lambda: client.responses.create(model="nautile", input="hi", previous_response_id=answer.id))
        check(error.code == "unsupported_parameter", f"{error.code}")
    with serving("--api-key", "other-key", "--responses-store", "3", "--responses-age", "3") as server:
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key=KEY, max_retries=0)
        other = openai.OpenAI(base_url=client.base_url, api_key="other-key", max_retries=0)

        def prompt(**fields):
            return client.responses.input_tokens.count(model="nautile", **fields).input_tokens
        first = client.responses.create(model="nautile", input="What is the weather?", instructions="Answer.", tools=[FLAT], extra_headers=script(text="x</think>One moment." + CALL))
        check(first.store is True and client.responses.retrieve(first.id).output == first.output, "retrieve")
        items = list(client.responses.input_items.list(first.id))
        check([i.content[0].text for i in items] == ["What is the weather?"] and items[0].id, f"{items}")
        result = [{"type": "function_call_output", "call_id": first.output[-1].call_id, "output": "sunny"}]
        with client.responses.stream(model="nautile", input=result, previous_response_id=first.id, tools=[FLAT]) as stream:
            for _event in stream:
                pass
            second = stream.get_final_response()
        check(second.previous_response_id == first.id and second.output_text == "Hello from the scripted backend.", "a turn from what is stored")
        whole = ["What is the weather?"] + list(first.output) + result
        whole[0] = {"role": "user", "content": whole[0]}
        check(second.usage.input_tokens == prompt(input=whole, tools=[FLAT]), "the same prompt as the whole conversation, without the first instructions")
        check(len(list(client.responses.input_items.list(second.id))) == 5, "items of the conversation")
        third = client.responses.create(model="nautile", input="And now?", previous_response_id=second.id, store=False)
        check(third.store is False and third.usage.input_tokens > 0, "store: false")
        raises(openai.NotFoundError, lambda: client.responses.retrieve(third.id))
        error = raises(openai.BadRequestError, lambda: client.responses.create(model="nautile", input="a", previous_response_id=third.id))
        check(error.code == "previous_response_not_found", f"{error.code}")
        for call in (other.responses.retrieve, other.responses.delete, other.responses.input_items.list):
            raises(openai.NotFoundError, lambda: call(first.id))
        raises(openai.BadRequestError, lambda: other.responses.create(model="nautile", input="a", previous_response_id=first.id))
        client.responses.delete(first.id)
        raises(openai.NotFoundError, lambda: client.responses.retrieve(first.id))
        made = [client.responses.create(model="nautile", input="hi").id for _ in range(3)]
        raises(openai.NotFoundError, lambda: client.responses.retrieve(second.id))  # three are kept
        check(client.responses.retrieve(made[0]).id == made[0], "the last three are kept")
        time.sleep(3.2)
        raises(openai.NotFoundError, lambda: client.responses.retrieve(made[2]))  # too old


def openai_async(_):
    """Clients that leave: the work stops, whether they close a stream or cancel a call."""
    import openai
    forever = script(text="word ", loop=True, token_ms=5)
    with serving("--metrics-public") as server:
        async def leave():
            client = openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key=KEY, max_retries=0)
            stream = await client.chat.completions.create(model="nautile", messages=HI, stream=True, extra_headers=forever, extra_body={"reasoning_mode": "non_think"})
            async for chunk in stream:
                if chunk.choices and chunk.choices[0].delta.content:
                    break
            await stream.close()
            call = asyncio.create_task(client.chat.completions.create(model="nautile", messages=HI, extra_headers=forever))
            response = asyncio.create_task(client.responses.create(model="nautile", input="hi", extra_headers=forever))
            await asyncio.sleep(0.3)
            check(server.metric("vllm:num_requests_running") == 2, "both run")
            for task in (call, response):
                task.cancel()
                try:
                    await task
                    check(False, "was not cancelled")
                except asyncio.CancelledError:
                    pass
            eventually(lambda: server.metric("vllm:num_requests_running") == 0, 2, "all work ends")
            eventually(lambda: server.metric("nautile_requests_cancelled_total", "client_disconnected") == 3, 2, "all three are counted as clients that left")
            # Cancelling by id, from another connection, while the stream is read.
            async for event in await client.responses.create(model="nautile", input="hi", stream=True, extra_headers=forever):
                if event.type == "response.created":
                    cancelled = await client.responses.cancel(event.response.id)
                    check(cancelled.status == "cancelled", f"{cancelled}")
                last = event
            check(last.type == "response.failed" and last.response.error.code == "cancelled", f"{last}")
            async with client.chat.completions.stream(model="nautile", messages=HI) as helper:
                check((await helper.get_final_completion()).choices[0].message.content, "async helper")
            await client.close()
        asyncio.run(leave())


def anthropic_more(_):
    import anthropic
    from pydantic import BaseModel

    class Point(BaseModel):
        x: int
        y: int
    tools = [{"name": "get_weather", "input_schema": PARAMETERS}]
    with serving() as server:
        url = f"http://127.0.0.1:{server.port}"
        client = anthropic.Anthropic(base_url=url, api_key=KEY, max_retries=0)
        asked = {"model": "claude-x", "max_tokens": 2000, "messages": HI}
        thinking = {"type": "enabled", "budget_tokens": 1024}
        with client.messages.stream(**asked, tools=tools, thinking=thinking, extra_headers=script(text="Think.</think>One moment." + CALL)) as stream:
            kinds = [event.type for event in stream]
            done = stream.get_final_message()
        check([b.type for b in done.content] == ["thinking", "text", "tool_use"] and done.stop_reason == "tool_use", f"{done.content}")
        check(done.content[0].thinking == "Think." and done.content[0].signature, "thinking and its signature")
        check({"thinking", "signature", "text", "input_json"} <= set(kinds) and kinds[-1] == "message_stop", f"{kinds}")
        count = client.messages.count_tokens(model="claude-x", messages=HI, tools=tools, thinking=thinking).input_tokens
        check(count == done.usage.input_tokens + (done.usage.cache_read_input_tokens or 0), f"{count} {done.usage}")
        again = HI + [{"role": "assistant", "content": done.content}, {"role": "user", "content": [{"type": "tool_result", "tool_use_id": done.content[-1].id, "content": [{"type": "text", "text": "sunny"}]}]}]
        check(client.messages.create(**{**asked, "messages": again}, tools=tools, thinking=thinking).content[-1].text, "next turn")
        parsed = client.messages.parse(**asked, output_format=Point, extra_headers=script(text='x</think>{"x": 1, "y": 2}'))
        check(parsed.parsed_output == Point(x=1, y=2), "parse")
        for mode, thinks in (("non_think", False), ("think_high", True), ("think_max", True)):
            kinds = [b.type for b in client.messages.create(**asked, extra_body={"reasoning_mode": mode}).content]
            check(("thinking" in kinds) == thinks, f"{mode}: {kinds}")

        # The tool runner loops by itself; only its first request gets the script with the call.
        class Once(anthropic.Anthropic):
            turn = 0

            def _prepare_options(self, options):
                Once.turn += 1
                options.headers = {**(options.headers if isinstance(options.headers, dict) else {}), **script(text="x</think>" + CALL if Once.turn == 1 else "y</think>It is sunny.")}
                return options
        asked_for = []

        @anthropic.beta_tool
        def get_weather(city: str) -> str:
            """Weather.

            Args:
                city: the city
            """
            asked_for.append(city)
            return "sunny"
        last = Once(base_url=url, api_key=KEY, max_retries=0).beta.messages.tool_runner(**asked, tools=[get_weather]).until_done()
        check(asked_for == ["Rome"] and last.content[-1].text == "It is sunny.", f"{asked_for} {last.content}")

        check([m.id for m in client.models.list()] == ["scripted"] and client.models.retrieve("scripted").display_name == "scripted", "models")
        raises(anthropic.AuthenticationError, lambda: anthropic.Anthropic(base_url=url, api_key="no", max_retries=0).messages.create(**asked))
        raises(anthropic.NotFoundError, lambda: client.messages.create(**{**asked, "model": "gpt"}))
        error = raises(anthropic.BadRequestError, lambda: client.messages.create(**{**asked, "messages": [{"role": "user", "content": "word " * 200000}]}))
        check(error.body["error"]["message"].startswith("prompt is too long: ") and error.request_id, f"{error.body}")
        raises(anthropic.OverloadedError, lambda: client.messages.create(**asked, extra_headers=script(text="a", refuse=True)))
        raises(anthropic.InternalServerError, lambda: client.messages.create(**asked, extra_headers=script(text="a b", fail_after=1)))
        raises(anthropic.NotFoundError, lambda: client.messages.batches.list())
        raises(anthropic.NotFoundError, lambda: client.models.retrieve("gpt"))
        try:
            for _event in client.messages.create(**asked, stream=True, extra_headers=script(text="a b c", fail_after=2)):
                pass
            check(False, "an error in the stream must be raised")
        except anthropic.APIStatusError as error:
            check("failed" in str(error), str(error))


TESTS = (openai_streams, openai_fields, stored_responses, openai_async, anthropic_more)
