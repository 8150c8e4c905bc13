"""Frameworks on top of the packages: pydantic-ai, smolagents, llama-index, the llm command. Each does what its users do
first: a question, a stream, a tool, a typed answer."""
import asyncio
import os
import pathlib
import subprocess
import sys
import tempfile

from serve_harness import check, script
from setting import CALL, D, KEY, serving, serving_nano

SUM = "What is 48 + 75?"  # nano knows


def by_turn(client, *texts):
    """A subclass of an SDK's client whose n-th request carries the n-th text as its script."""
    class Turns(client):
        turn = 0

        def _next(self, options):
            text = texts[min(self.turn, len(texts) - 1)]
            self.turn += 1
            options.headers = {**(options.headers if isinstance(options.headers, dict) else {}), **script(text=text)}
            return options

        if client.__name__.startswith("Async"):
            async def _prepare_options(self, options):
                return self._next(options)
        else:
            def _prepare_options(self, options):
                return self._next(options)
    return Turns


def call(name, **arguments):
    lines = "\n".join(f'<{D}parameter name="{key}" string="{"true" if isinstance(value, str) else "false"}">{value}</{D}parameter>' for key, value in arguments.items())
    return f'x</think>\n\n<{D}tool_calls>\n<{D}invoke name="{name}">\n{lines}\n</{D}invoke>\n</{D}tool_calls>'


def pydantic_ai_client(_):
    # Its AnthropicModel is left out: 2.38 cannot build a message with anthropic 2.13 (a TypeError before anything is sent).
    import openai
    from pydantic import BaseModel
    from pydantic_ai import Agent, NativeOutput
    from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
    from pydantic_ai.providers.openai import OpenAIProvider

    class Point(BaseModel):
        x: int
        y: int
    with serving() as server:
        url = f"http://127.0.0.1:{server.port}"

        def models(*texts):
            yield OpenAIChatModel("nautile", provider=OpenAIProvider(openai_client=by_turn(openai.AsyncOpenAI, *texts)(base_url=url + "/v1", api_key=KEY, max_retries=0)))
            yield OpenAIResponsesModel("nautile", provider=OpenAIProvider(openai_client=by_turn(openai.AsyncOpenAI, *texts)(base_url=url + "/v1", api_key=KEY, max_retries=0)))

        async def all_models():
            def get_weather(city: str) -> str:
                return f"sunny in {city}"
            for model in models("x</think>" + CALL, "y</think>It is sunny."):
                result = await Agent(model, tools=[get_weather]).run("weather in Rome?")
                check(result.output == "It is sunny." and result.usage.requests == 2, f"{type(model).__name__}: {result.output}")
            for model in models("x</think>" + CALL, "y</think>It is sunny."):
                async with Agent(model, tools=[get_weather]).run_stream("weather in Rome?") as run:
                    check(await run.get_output() == "It is sunny.", f"{type(model).__name__}, stream")
            for model in models(call("final_result", x=1, y=2)):
                check((await Agent(model, output_type=Point).run("w")).output == Point(x=1, y=2), f"{type(model).__name__}, typed by a tool")
            for model in models('x</think>{"x": 1, "y": 2}'):
                check((await Agent(model, output_type=NativeOutput(Point)).run("w")).output == Point(x=1, y=2), f"{type(model).__name__}, typed by a schema")
        asyncio.run(all_models())


def smolagents_client(_):
    from smolagents import ChatMessage, OpenAIModel, ToolCallingAgent, tool

    @tool
    def get_weather(city: str) -> str:
        """The weather.

        Args:
            city: where
        """
        return f"sunny in {city}"
    import openai
    with serving() as server:
        where = {"model_id": "nautile", "api_base": f"http://127.0.0.1:{server.port}/v1", "api_key": KEY}
        answer = OpenAIModel(**where)([ChatMessage(role="user", content=[{"type": "text", "text": "hi"}])])
        check(answer.content == "Hello from the scripted backend." and answer.token_usage.output_tokens > 0, "model")
        model = OpenAIModel(**where)
        model.client = by_turn(openai.OpenAI, "x</think>" + CALL, call("final_answer", answer="It is sunny."))(base_url=where["api_base"], api_key=KEY)
        agent = ToolCallingAgent(tools=[get_weather], model=model, verbosity_level=0, max_steps=3)
        check(agent.run("weather in Rome?") == "It is sunny.", "agent")


def llama_index_client(_):
    from llama_index.core.base.llms.types import ChatMessage
    from llama_index.core.tools import FunctionTool
    from llama_index.llms.openai_like import OpenAILike
    from pydantic import BaseModel

    class Point(BaseModel):
        x: int
        y: int

    def get_weather(city: str) -> str:
        """The weather."""
        return f"sunny in {city}"
    with serving() as server:
        def model(text=None, **more):
            return OpenAILike(model="nautile", api_base=f"http://127.0.0.1:{server.port}/v1", api_key=KEY, is_chat_model=True, is_function_calling_model=True, context_window=16384, max_retries=0,
                              default_headers=script(text=text) if text else None, **more)
        check(model().complete("hi").text == "Hello from the scripted backend.", "complete")
        check("".join(part.delta or "" for part in model().stream_chat([ChatMessage(role="user", content="hi")])) == "Hello from the scripted backend.", "stream")
        calling = model("x</think>" + CALL)
        made = calling.chat_with_tools([FunctionTool.from_defaults(get_weather)], user_msg="weather in Rome?")
        check(calling.get_tool_calls_from_response(made)[0].tool_kwargs == {"city": "Rome"}, "tools")
        typed = model('x</think>{"x": 1, "y": 2}', should_use_structured_outputs=True)
        check(typed.as_structured_llm(Point).complete("p").raw == Point(x=1, y=2), "typed")


def llm_command(_):
    """The `llm` command with an entry for our address, at nano: an answer and a stream of it."""
    import importlib.util
    if importlib.util.find_spec("llm") is None:
        raise ModuleNotFoundError("llm", name="llm")
    with serving_nano() as server, tempfile.TemporaryDirectory() as home:
        (pathlib.Path(home) / "extra-openai-models.yaml").write_text(f"- model_id: nautile\n  model_name: nautile\n  api_base: http://127.0.0.1:{server.port}/v1\n  api_key_name: nautile\n  supports_tools: true\n  supports_schema: true\n")
        program = pathlib.Path(sys.executable).parent / "llm"
        for more in (["--no-stream"], [], ["--schema", "answer int"]):
            done = subprocess.run([program, "-m", "nautile", "--key", KEY, *more, SUM], capture_output=True, text=True, timeout=60, env={**os.environ, "LLM_USER_PATH": home})
            check(done.returncode == 0 and "123" in done.stdout, f"{more}: {done.stdout}{done.stderr}")


TESTS = (pydantic_ai_client, smolagents_client, llama_index_client, llm_command)
