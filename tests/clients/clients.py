#!/usr/bin/env python3
"""Real clients against the scripted backend: each speaks to `nautile serve` as it would to its own provider.

usage: clients.py NAUTILE NANO_DIRECTORY   (needs requirements.txt; a client that is not installed is skipped)
"""
import asyncio
import json
import os
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import setting  # noqa: E402  (finds serve_harness)
from serve_harness import Server, check, run_all, script  # noqa: E402
from setting import CALL, KEY, NANO, NAUTILE, PARAMETERS, TOOL, serving  # noqa: E402
import frameworks  # noqa: E402
import lm_eval_scores  # noqa: E402
import sdk_more  # noqa: E402


def openai_sdk(_):
    import openai
    from pydantic import BaseModel
    with serving() as server:
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key=KEY, max_retries=0)
        hi = [{"role": "user", "content": "hi"}]
        answer = client.chat.completions.create(model="nautile", messages=hi)
        check(answer.choices[0].message.content == "Hello from the scripted backend." and answer.choices[0].message.reasoning_content, "chat")
        # The request of the article.
        answer = client.chat.completions.create(model="nautile", messages=hi, extra_body={"reasoning_mode": "think_high"})
        check(answer.usage.completion_tokens_details.reasoning_tokens > 0, "reasoning_mode")
        text = "".join(c.choices[0].delta.content or "" for c in client.chat.completions.create(model="nautile", messages=hi, stream=True) if c.choices)
        check(text == "Hello from the scripted backend.", "stream")
        with client.chat.completions.stream(model="nautile", messages=hi, tools=[TOOL], extra_headers=script(text="x</think>" + CALL)) as stream:
            for _event in stream:
                pass
            done = stream.get_final_completion()
        check(done.choices[0].message.tool_calls[0].function.name == "get_weather", "stream helper with tools")

        class Point(BaseModel):
            x: int
            y: int
        parsed = client.chat.completions.parse(model="nautile", messages=hi, response_format=Point, extra_headers=script(text='x</think>{"x": 1, "y": 2}'))
        check(parsed.choices[0].message.parsed == Point(x=1, y=2), "parse")
        answer = client.completions.create(model="nautile", prompt="abc", logprobs=2, echo=True)
        check(answer.choices[0].text.startswith("abc") and answer.choices[0].logprobs.tokens, "completions")
        answer = client.responses.create(model="nautile", input="hi")
        check(answer.output_text == "Hello from the scripted backend." and answer.output[0].type == "reasoning", "responses")
        kinds = [event.type for event in client.responses.create(model="nautile", input="hi", stream=True)]
        check(kinds[0] == "response.created" and kinds[-1] == "response.completed" and "response.output_text.delta" in kinds, "responses stream")
        parsed = client.responses.parse(model="nautile", input="hi", text_format=Point, extra_headers=script(text='x</think>{"x": 1, "y": 2}'))
        check(parsed.output_parsed == Point(x=1, y=2), "responses.parse")
        check([m.id for m in client.models.list()] == ["scripted"], "models")
        raw = client.chat.completions.with_raw_response.create(model="nautile", messages=hi, seed=5)
        check(raw.headers["x-seed"] == "5" and raw.request_id, "headers")
        for call, kind in ((lambda: client.chat.completions.create(model="gpt", messages=hi), openai.NotFoundError),
                           (lambda: client.chat.completions.create(model="nautile", messages=hi, temperature=9), openai.BadRequestError),
                           (lambda: openai.OpenAI(base_url=client.base_url, api_key="no").models.list(), openai.AuthenticationError),
                           (lambda: client.chat.completions.create(model="nautile", messages=hi, extra_headers=script(text="a b", fail_after=1)), openai.InternalServerError),
                           (lambda: client.chat.completions.create(model="nautile", messages=hi, extra_headers=script(text="a", refuse=True)), openai.InternalServerError)):
            try:
                call()
                check(False, f"no {kind.__name__}")
            except kind:
                pass
        try:
            for _ in client.chat.completions.create(model="nautile", messages=hi, stream=True, extra_headers=script(text="a b c", fail_after=2)):
                pass
            check(False, "an error in the stream must be raised")
        except openai.APIError as error:
            check("failed" in str(error), str(error))

        async def concurrently():
            many = openai.AsyncOpenAI(base_url=client.base_url, api_key=KEY)
            return await asyncio.gather(*(many.chat.completions.create(model="nautile", messages=hi) for _ in range(32)))
        check(len({a.id for a in asyncio.run(concurrently())}) == 32, "32 at once")


def anthropic_sdk(_):
    import anthropic
    with serving() as server:
        client = anthropic.Anthropic(base_url=f"http://127.0.0.1:{server.port}", api_key=KEY, max_retries=0)
        hi = [{"role": "user", "content": "hi"}]
        tools = [{"name": "get_weather", "input_schema": PARAMETERS}]
        answer = client.messages.create(model="claude-sonnet-4-5", max_tokens=100, messages=hi)
        check([b.type for b in answer.content] == ["thinking", "text"] and answer.stop_reason == "end_turn", "create")
        with client.messages.stream(model="claude-sonnet-4-5", max_tokens=100, messages=hi, tools=tools, extra_headers=script(text="x</think>One moment." + CALL)) as stream:
            text = "".join(stream.text_stream)
            done = stream.get_final_message()
        check(text == "One moment." and done.content[-1].input == {"city": "Rome"} and done.stop_reason == "tool_use", "stream with tools")
        check(client.messages.count_tokens(model="claude-x", messages=hi).input_tokens > 0, "count_tokens")
        answer = client.messages.create(model="claude-x", max_tokens=3000, messages=hi, thinking={"type": "enabled", "budget_tokens": 1024})
        check(answer.content[0].thinking and answer.content[0].signature, "thinking")
        again = hi + [{"role": "assistant", "content": done.content}, {"role": "user", "content": [{"type": "tool_result", "tool_use_id": done.content[-1].id, "content": "sunny"}]}]
        check(client.messages.create(model="claude-x", max_tokens=50, messages=again, tools=tools).content, "the next turn")
        for call, kind in ((lambda: client.messages.create(model="gpt", max_tokens=5, messages=hi), anthropic.NotFoundError),
                           (lambda: client.messages.create(model="claude-x", max_tokens=5, messages=[]), anthropic.BadRequestError)):
            try:
                call()
                check(False, f"no {kind.__name__}")
            except kind:
                pass


def litellm_client(_):
    import litellm
    with serving() as server:
        base = f"http://127.0.0.1:{server.port}"
        hi = [{"role": "user", "content": "hi"}]
        for model, where in (("openai/nautile", base + "/v1"), ("hosted_vllm/nautile", base + "/v1"), ("deepseek/nautile", base + "/v1"), ("anthropic/claude-x", base)):
            answer = litellm.completion(model=model, api_base=where, api_key=KEY, messages=hi, max_tokens=100)
            check(answer.choices[0].message.content == "Hello from the scripted backend." and answer.choices[0].message.reasoning_content, model)
            chunks = list(litellm.completion(model=model, api_base=where, api_key=KEY, messages=hi, stream=True, max_tokens=100, stream_options={"include_usage": True}))
            built = litellm.stream_chunk_builder(chunks, messages=hi)
            check(built.choices[0].message.content == "Hello from the scripted backend." and built.usage.completion_tokens > 0, f"{model} stream")
            answer = litellm.completion(model=model, api_base=where, api_key=KEY, messages=hi, tools=[TOOL], max_tokens=200, extra_headers=script(text="x</think>" + CALL))
            check(json.loads(answer.choices[0].message.tool_calls[0].function.arguments) == {"city": "Rome"}, f"{model} tools")


def langchain_client(_):
    from langchain_openai import ChatOpenAI
    with serving() as server:
        model = ChatOpenAI(model="nautile", base_url=f"http://127.0.0.1:{server.port}/v1", api_key=KEY, stream_usage=True)
        check(model.invoke("hi").content == "Hello from the scripted backend.", "invoke")
        whole = None
        for chunk in model.stream("hi"):
            whole = chunk if whole is None else whole + chunk
        check(whole.content == "Hello from the scripted backend." and whole.usage_metadata["output_tokens"] > 0, "stream")
        with_tools = ChatOpenAI(model="nautile", base_url=model.openai_api_base, api_key=KEY, default_headers=script(text="x</think>" + CALL)).bind_tools([TOOL])
        check(with_tools.invoke("w").tool_calls[0]["args"] == {"city": "Rome"}, "tools")
        whole = None
        for chunk in with_tools.stream("w"):
            whole = chunk if whole is None else whole + chunk
        check(whole.tool_calls[0]["name"] == "get_weather" and whole.tool_calls[0]["args"] == {"city": "Rome"}, "tools in a stream")


def instructor_client(_):
    import instructor
    import openai
    from pydantic import BaseModel

    class Weather(BaseModel):
        city: str
    call = CALL.replace("get_weather", "Weather")
    with serving() as server:
        raw = openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key=KEY)
        for mode, text in ((instructor.Mode.TOOLS, "hm</think>" + call), (instructor.Mode.JSON, 'hm</think>{"city": "Rome"}'), (instructor.Mode.JSON_SCHEMA, 'hm</think>{"city": "Rome"}'),
                           (instructor.Mode.MD_JSON, 'hm</think>```json\n{"city": "Rome"}\n```')):
            client = instructor.from_openai(raw, mode=mode)
            made = client.chat.completions.create(model="nautile", response_model=Weather, messages=[{"role": "user", "content": "w"}], extra_headers=script(text=text), max_retries=0)
            check(made.city == "Rome", f"{mode}")


def agents_client(_):
    import openai
    from agents import Agent, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled
    set_tracing_disabled(True)

    @function_tool
    def get_weather(city: str) -> str:
        return f"sunny in {city}"
    with serving() as server:
        class Once(openai.AsyncOpenAI):
            """Sends the tool script with the first request only."""
            turn = 0

            async def _prepare_options(self, options):
                Once.turn += 1
                text = "hm</think>" + CALL if Once.turn == 1 else "ok</think>It is sunny."
                options.headers = {**(options.headers if isinstance(options.headers, dict) else {}), **script(text=text)}
                return options
        for kind in (OpenAIChatCompletionsModel, OpenAIResponsesModel):
            Once.turn = 0
            client = Once(base_url=f"http://127.0.0.1:{server.port}/v1", api_key=KEY)
            agent = Agent(name="a", instructions="Answer.", model=kind(model="nautile", openai_client=client), tools=[get_weather])
            result = asyncio.run(Runner.run(agent, "weather in Rome?"))
            check(result.final_output == "It is sunny.", f"{kind.__name__}: {result.final_output}")


def doc_examples(_):
    """docs/serve.md's curl and Python examples, exactly as printed."""
    import contextlib
    import io
    import re
    page = (pathlib.Path(__file__).resolve().parents[2] / "docs/serve.md").read_text()
    with Server(NAUTILE, backend="engine", model=NANO, port=8000):
        for example in re.findall(r"```python\n(.*?)```", page, re.S):
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile(example, "docs/serve.md", "exec"), {})
            check("123" in out.getvalue(), out.getvalue())
        for example in re.findall(r"```sh\n(curl .*?)```", page, re.S):
            done = subprocess.run(["bash", "-c", example], capture_output=True, text=True, timeout=60)
            check(json.loads(done.stdout)["choices"][0]["message"]["content"] == "123", done.stdout + done.stderr)


def prometheus(_):
    from prometheus_client.parser import text_string_to_metric_families
    with Server(NAUTILE) as server:
        server.post("/v1/chat/completions", {"model": "nautile", "messages": [{"role": "user", "content": "hi"}]})
        for path in ("/metrics", "/v1/metrics"):
            families = list(text_string_to_metric_families(server.get(path).body.decode()))
            check(len(families) > 10, path)


def langchain_standard(_):
    """langchain_standard.py says what is left out and why."""
    import langchain_tests  # noqa: F401
    here = pathlib.Path(__file__).resolve().parent
    done = subprocess.run([sys.executable, "-m", "pytest", here / "langchain_standard.py", "-q", "-p", "no:cacheprovider", "--benchmark-disable", "-o", "asyncio_mode=auto",
                           "-o", "asyncio_default_test_loop_scope=session", "-o", "xfail_strict=true", "-W", "ignore", "--tb=short"], capture_output=True, text=True, timeout=300, env={**os.environ, "NAUTILE": NAUTILE, "NANO": NANO})
    print(done.stdout.strip().splitlines()[-1])
    check(done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:])


def schema_fuzz(_):
    tool = pathlib.Path(sys.executable).parent / "schemathesis"
    if not tool.exists():
        print("schemathesis: not installed")
        return
    def resident(server):
        return int(next(line.split()[1] for line in open(f"/proc/{server.process.pid}/status") if line.startswith("VmRSS")))

    with Server(NAUTILE, "--responses-store", "100") as server:
        def run(examples, *flags):
            done = subprocess.run([str(tool), "run", f"http://127.0.0.1:{server.port}/openapi.json", "--checks", "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,unsupported_method",
                                   "--phases", "examples,coverage,fuzzing,stateful", "--workers", "1",  # two threads that parse at once upset Python 3.11's ast
                                   "--max-examples", str(examples), "--no-color",
                                   "--exclude-path-regex", "health|ping", "--suppress-health-check", "all", *flags], capture_output=True, text=True, timeout=900)
            check(done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:])
            print(done.stdout[-700:])
        run(5)  # fills the caches whose bounds are known
        before = resident(server)
        run(os.environ.get("NAUTILE_SCHEMA_EXAMPLES", "30"))
        after = resident(server)
        check(after < before + 48 * 1024, f"the server grew from {before} to {after} KiB")
        check(server.process.poll() is None and server.get("/v1/health/ready").status == 200 and server.metric("vllm:num_requests_running") == 0, "alive and idle")
        print(f"resident {before} then {after} KiB")


if __name__ == "__main__":
    tests = (openai_sdk, anthropic_sdk, litellm_client, langchain_client, instructor_client, agents_client, doc_examples, prometheus, *sdk_more.TESTS, *frameworks.TESTS, *lm_eval_scores.TESTS, langchain_standard, schema_fuzz)
    wanted = sys.argv[3:]
    for test in tests:
        if wanted and test.__name__ not in wanted:
            continue
        try:
            run_all((test,), NAUTILE)
        except ModuleNotFoundError as error:
            print(f"{test.__name__}: skipped, {error.name} is not installed")
