#!/usr/bin/env python3
"""The page at / in a headless browser, against nano and against the scripted backend.

usage: serve_page.py NAUTILE [MODEL] [--only TEST] [--pictures FOLDER]
Needs chromium; exit 77 when there is none. MODEL is nano where it is not given. With --pictures it tests nothing and takes
the pictures of docs/images into FOLDER instead (two minutes).
"""
import argparse
import json
import pathlib
import re
import sys
import threading
import time

from browser import Browser, find_browser
from serve_harness import Server, chat, check, eventually, run_all, script

flags = argparse.ArgumentParser(usage=__doc__.split("\n")[2].removeprefix("usage: "))
flags.add_argument("nautile")
flags.add_argument("model", nargs="?")
flags.add_argument("--pictures", type=pathlib.Path)
flags.add_argument("--only", help="one test, by its name")
FLAGS = flags.parse_args()
PROGRAM = find_browser()
D = "｜DSML｜"
CALL = (f'Let me look.\n\n<{D}tool_calls>\n<{D}invoke name="get_weather">\n<{D}parameter name="city" string="true">Rome</{D}parameter>\n'
        f'<{D}parameter name="days" string="false">2</{D}parameter>\n</{D}invoke>\n</{D}tool_calls>')
TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {
    "city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]}}}]
PICTURE_TOOLS = [{"type": "function", "function": {"name": name, "description": text, "parameters": {
    "type": "object", "properties": {k: {"type": v} for k, v in fields.items()}, "required": list(fields)}}}
    for name, text, fields in (("get_weather", "Get the weather of a city.", {"city": "string"}), ("set_timer", "Set a timer.", {"minutes": "integer"}))]
DONE = "!document.querySelector('.live') && document.querySelector('.assistant:last-child .figures')?.textContent.includes('written')"
HOSTILE = ("[a](JaVaScRiPt:window.hit=1) [b](data:text/html,<script>window.hit=1</script>) [c](vbscript:x) [d](&#106;avascript:window.hit=1) "
           "<svg onload=window.hit=1> <a href=javascript:window.hit=1>e</a> javascript:window.hit=1 "
           "<img src=x onerror=\"window.hit=1\"> <script>window.hit=1</script> **bold** [go](javascript:window.hit=1) "
           "[there](https://example.com/) ![p](https://example.com/p.png)\n\n<iframe src=https://example.com></iframe>\n\n"
           "```<img/src=x/onerror=window.hit=1>\n<script>window.hit=1</script>\n```\n\n| a | b |\n| --- | ---: |\n| <b>1</b> | 2 |\n\n- one\n  - two\n- [x] three\n")


class Page(Browser):
    """The page of one server, with what every test asks at the end."""

    def __init__(self, server, path="/", headers=None, ready="document.querySelectorAll('input[name=mode]').length > 0"):
        super().__init__(PROGRAM)
        self.home = f"http://127.0.0.1:{server.port}/"
        if headers:
            self.headers(headers)
        self.open(self.home + path.lstrip("/"))
        self.wait(ready)

    def text(self, selector):
        return self.js(f"document.querySelector({json.dumps(selector)})?.textContent ?? null")

    def send(self, text):
        self.js("document.querySelector('#text').focus()")
        self.type(text)
        self.press("Enter")

    def clean(self, allowed=()):
        away = [url for url in self.requests if not url.startswith(self.home) and not url.startswith("about:")]
        check(not away, f"it asked other places: {away}")
        bad = [line for line in self.console if not any(word in line for word in allowed)]
        check(not bad, f"console: {bad}")


def answers_of_nano(nautile):
    """A conversation with the real model: streaming, thinking, figures, cache, settings, reload, status."""
    with Server(nautile, backend="engine", model=FLAGS.model) as server, Page(server) as page:
        check(page.text("#model") == "nano", "the model's name")
        check(page.js("[...document.querySelectorAll('input[name=mode]')].map(e => e.value).join()") == "non_think,think_high,think_max", "modes")
        check(page.js("document.activeElement.id") == "text", "the field has the focus")
        page.send("What is 348 + 275?")
        page.wait(DONE)
        check(page.text(".assistant .body").strip() == "623", f"the sum: {page.text('.assistant .body')}")
        check(re.match(r"Thought( for [\d.]+ s)?, \d+ tokens", page.text(".reasoning .what")), page.text(".reasoning .what"))
        check(not page.js("document.querySelector('.reasoning').open"), "thinking is folded away")
        page.click(".reasoning summary")
        page.wait("document.querySelector('.reasoning').open && document.querySelector('.thought').textContent.length > 10")
        figures = page.text(".assistant .figures")
        for part in (r"[\d,.]+ tokens/s", r"first after \d+ ms|first after [\d.]+ s", r"\d+ prompt", r"\d+ written, \d+ thinking"):
            check(re.search(part, figures), f"{part} in {figures}")
        page.click(".reasoning summary")
        page.click("input[name=mode][value=non_think]")
        page.send("What is 12 + 30?")
        page.wait("document.querySelectorAll('.assistant').length === 2 && " + DONE)
        check(page.js("document.querySelectorAll('.assistant')[1].querySelector('.reasoning').hidden"), "no thinking when not asked for")
        check("thinking" not in page.js("document.querySelectorAll('.assistant .figures')[1].textContent"), "nor tokens of it")
        check("<" not in page.js("document.querySelectorAll('.assistant .body')[1].textContent"), "no markup in the answer")

        # The last message again, edited; the answer once more.
        page.js("document.querySelectorAll('.assistant .body')[1].textContent = ''")
        page.click(".assistant.latest .last-only")
        page.wait("document.querySelectorAll('.assistant').length === 2 && " + DONE)
        page.js("document.querySelector('#text').focus()")
        page.press("ArrowUp")
        page.wait("document.querySelector('#text').value === 'What is 12 + 30?' && document.querySelectorAll('.user').length === 1")
        page.js("document.querySelector('#text').value = ''")
        page.send("Hello")
        page.wait("document.querySelectorAll('.assistant').length === 2 && " + DONE)
        before = page.js("document.querySelector('#log').innerText")
        page.open(page.home)
        page.wait("document.querySelectorAll('.assistant').length === 2")
        after = page.js("document.querySelector('#log').innerText")
        check(after == before, f"the conversation is there after a reload: {before} / {after}")

        # A prompt that repeats a long one comes from the cache, and the reply says so.
        page.click("#new")
        page.wait("document.querySelectorAll('article').length === 0 && !document.querySelector('#welcome').hidden")
        page.js("location.hash = '#status'")
        story = "The code word for the amber gate is falcon. " + "The river is wide and the boat is slow. " * 400
        page.js("window.waits = []; window.eye = new MutationObserver(() => { const w = document.querySelector('.wait:not([hidden]) p'); if (w) window.waits.push(w.textContent); }); "
                "window.eye.observe(document.querySelector('#log'), {subtree: true, childList: true, characterData: true}); "
                f"document.querySelector('#text').value = {json.dumps(story + 'What is the code word for the amber gate?')}; "
                "document.querySelector('#composer').requestSubmit()")
        page.wait(DONE, 90)
        waits = page.js("window.waits.join(' / ')")
        check("Sent" in waits, f"it says that it waits: {waits}")
        long_enough = float(page.js("JSON.parse(localStorage['nautile.chat']).messages[1].times.first_s")) > 1.5
        check(not long_enough or re.search(r"Reading the prompt: [\d,]+ of [\d,]+ tokens", waits), f"progress of a long prompt: {waits}")
        page.send("What is the code word for the amber gate?")
        page.wait("document.querySelectorAll('.assistant').length === 2 && " + DONE, 60)
        check(re.search(r"[\d,]+ prompt, [\d,]+ from cache", page.js("document.querySelectorAll('.assistant .figures')[1].textContent")), "cached tokens")

        status = server.get("/v1/status").json()
        check(abs(status["engine"]["prefilled_tokens"] + status["engine"]["cached_tokens"] - status["engine"]["prompt_tokens"]) < 200, f"computed + cached: {status}")

        # Stopped while it reads, the engine is idle within a second. A quick machine may be done before the click: another prompt then.
        running = lambda: server.get("/v1/status").json()["engine"]["running"]  # noqa: E731
        for attempt in range(10):
            page.click("#new")
            page.wait("document.querySelectorAll('article').length === 0")
            page.js(f"window.stopped = null; document.querySelector('#text').value = {json.dumps(f'{attempt} boats. ' + 'The boat is slow. ' * 1500)}; "
                    "document.querySelector('#composer').requestSubmit(); setTimeout(() => { const b = document.querySelector('#stop'); "
                    "window.stopped = b && b.offsetParent !== null && document.querySelector('.live') !== null; if (window.stopped) b.click(); }, 60)")
            page.wait("window.stopped !== null && !document.querySelector('.live')", 60)
            eventually(lambda: running() == 0, 1, "the engine is idle after a stop")
            if page.js("window.stopped === true"):
                break
        check(page.js("window.stopped === true"), "a reply was stopped")

        # The status view says what /v1/status says.
        page.wait("parseFloat(document.querySelector('#s-hits').textContent) > 10 && document.querySelectorAll('#s-decode-chart polyline').length === 1")
        status = server.get("/v1/status").json()
        check(status["state"] == "ready" and status["engine"]["cached_tokens"] > 0 and status["engine"]["prefilled_tokens"] > 4000, f"{status}")
        peak = page.js("Math.min(...document.querySelector('#s-prefill-chart polyline').getAttribute('points').split(' ').map(p => +p.split(',')[1]))")
        check(peak < 50, f"reading the prompt shows in its chart ({peak})")
        check("planned" in page.text("#s-memory"), page.text("#s-memory"))
        page.clean()


def streams_and_stops(nautile):
    text = "One thing at a time.</think>" + "word " * 400
    with Server(nautile) as server, Page(server, headers=script(text=text, token_ms=25, prefill_ms=1500)) as page:
        page.send("Say words")
        page.wait("document.querySelector('.wait:not([hidden])')")
        page.wait("document.querySelector('.reasoning.thinking .what')?.textContent.match(/^thinking … \\d+ s$/)")
        page.wait("document.querySelector('.body').textContent.includes('word word')")
        check(page.js("document.querySelector('#send').hidden && !document.querySelector('#stop').hidden"), "the button stops now")
        short = page.js("document.querySelector('.body').textContent.length")
        page.wait(f"document.querySelector('.body').textContent.length > {short} + 20")
        page.js("location.hash = '#status'")
        page.wait("document.querySelector('#s-running').textContent === '1' && document.querySelector('#s-requests').textContent.includes('writing')")
        check(server.get("/v1/status").json()["requests"][0]["id"].startswith("ui-"), "its own request, by its own name")
        page.js("document.querySelector('#text').focus()")
        page.press("Escape")
        page.wait("!document.querySelector('.live') && document.querySelector('.figures').textContent.includes('stopped by you')")
        eventually(lambda: server.get("/v1/status").json()["engine"]["running"] == 0, 1, "the server is idle after a stop")
        eventually(lambda: any(line["finish"] == "client_disconnected" for line in server.requests()), 2, "the log says so")
        page.wait("document.querySelector('#s-running').textContent === '0' && document.querySelector('#s-requests').textContent.includes('Nothing')")
        # It can be asked again, and stopped by the button while it waits.
        page.headers(script(text="x</think>y", prefill_ms=20000))
        page.click(".assistant.latest .last-only")
        page.wait("document.querySelector('.wait:not([hidden])')")
        page.click("#stop")
        page.wait("document.querySelector('.body.empty')?.textContent.includes('Stopped')")
        page.clean()


def text_stays_text(nautile):
    with Server(nautile) as server, Page(server, headers=script(text="<b>hm</b> <img src=x onerror=window.hit=1></think>" + HOSTILE, token_ms=1)) as page:
        page.send("<img src=x onerror=\"window.hit=1\">")
        page.wait(DONE)
        page.click(".reasoning summary")
        page.wait("document.querySelector('.thought').textContent.includes('<img')")
        check(page.js("document.querySelectorAll('#log img, #log script, #log iframe, #log b, #log svg, #log [onerror], #log [onload]').length") == 0, "no element of the text's own")
        check(page.js("window.hit === undefined"), "nothing ran")
        body = page.text(".body")
        for part in ('<img src=x onerror="window.hit=1">', "<script>window.hit=1</script>", "<iframe", "javascript:window.hit=1"):
            check(part in body, f"{part} is shown")
        check(page.js("[...document.querySelectorAll('.body a')].map(a => a.href + ' ' + a.rel).join()") ==
              "https://example.com/ noopener noreferrer nofollow,https://example.com/p.png noopener noreferrer nofollow,https://example.com/ noopener noreferrer nofollow", "links")
        check(page.js("document.querySelector('.body strong').textContent") == "bold", "bold")
        check(page.js("document.querySelector('.code pre').textContent") == "<script>window.hit=1</script>", "code")
        check(page.js("document.querySelector('td').textContent + document.querySelector('td.right').textContent") == "<b>1</b>2", "table")
        check(page.js("document.querySelectorAll('.body > ul > li').length === 2 && document.querySelector('.body li li').textContent") == "two", "lists")
        check(page.text(".user .text") == '<img src=x onerror="window.hit=1">', "the person's own text")
        answer = server.get("/")
        check("script-src 'self';" in answer.headers["content-security-policy"] and "unsafe" not in answer.headers["content-security-policy"], "the policy")
        # Even code that got in could not ask another host.
        blocked = page.js("fetch('https://example.com/').then(() => 'sent', () => 'blocked')")
        check(blocked == "blocked", "the policy holds")
        page.requests = [url for url in page.requests if url != "https://example.com/"]
        page.clean(allowed=("Content Security Policy", "violates"))


def tool_calls(nautile):
    with Server(nautile) as server, Page(server, headers=script(text="I need the weather.</think>" + CALL, token_ms=1)) as page:
        page.click("#open-settings")
        page.wait("document.querySelector('#settings').open")
        page.js(f"document.querySelector('#tools').value = {json.dumps(json.dumps(TOOLS))}; document.querySelector('#system').value = 'Be brief.'; "
                "document.querySelector('#temperature').value = '0'; document.querySelector('#seed').value = '7'")
        page.click("#settings .primary")
        page.wait("!document.querySelector('#settings').open && document.activeElement.id === 'text'")  # what closing does at its end
        page.send("Weather in Rome?")
        page.wait(DONE)
        check(page.text(".call .name") == "get_weather", "the call's name")
        check(page.js("document.querySelectorAll('.body.empty').length") == 0 and "without an answer" not in page.text("#log"), "a call is an answer")
        check(page.text(".call pre") == '{\n  "city": "Rome",\n  "days": 2\n}', f"arguments: {page.text('.call pre')}")
        check(D not in page.text("#log") and page.text(".body").strip() == "Let me look.", "no markup of calls in the text")
        page.headers(script(text="I need it.</think>" + CALL[CALL.index("<"):], token_ms=1))
        page.click(".assistant.latest .foot-line .last-only")
        page.wait("document.querySelectorAll('.call').length === 1 && " + DONE)
        check("without an answer" not in page.text("#log"), "a call alone is an answer too")
        page.headers(script(text="ok</think>It is sunny."))
        page.click(".answer textarea")
        page.type('{"sky": "clear"}')
        page.click(".answer .primary")
        page.wait("document.querySelectorAll('.assistant').length === 2 && " + DONE)
        check(page.js("document.querySelectorAll('.assistant .body')[1].textContent") == "It is sunny.", "it goes on after the result")
        check(page.js("document.querySelectorAll('.answer button').length === 1 && getComputedStyle(document.querySelector('.answer button')).display === 'none'"), "answered calls have no button")
        page.clean()


def when_things_go_wrong(nautile):
    noise = ("Failed to load resource",)  # the browser notes every refused request
    with Server(nautile, "--api-key", "secret") as server, Page(server, ready="document.querySelector('#settings').open") as page:
        check("API key" in page.text("#notice-text"), "it says what is missing")
        check(page.js("document.activeElement.id") == "key", "and asks for it")
        page.type("wrong")
        page.press("Enter")
        page.wait("document.querySelector('#settings').open && document.querySelector('#key').value === 'wrong'")
        page.js("document.querySelector('#key').value = 'secret'")
        page.click("#settings .primary")
        page.wait("document.querySelector('#model').textContent === 'scripted' && document.querySelector('#notice').hidden")
        page.send("hi")
        page.wait(DONE)
        check(page.js("localStorage.getItem('nautile.key') === null"), "a key is not kept unless it is wanted")
        page.headers(script(text="a</think>b c d e f", fail_after=5))
        page.send("again")
        page.wait("document.querySelector('.assistant.latest .error:not([hidden])')")
        page.headers({})
        page.click(".assistant.latest .error button")
        page.wait("document.querySelectorAll('.assistant').length === 2 && !document.querySelector('.error:not([hidden])') && " + DONE)
        page.js("document.querySelector('#text').value = 'many words '.repeat(30000); document.querySelector('#composer').requestSubmit()")
        page.wait("document.querySelector('.assistant.latest .error')?.textContent.includes('longer than the model')")
        page.click("#new")
        page.headers(script(text="a</think>" + "b " * 2000, token_ms=30))
        page.send("hi")
        page.wait("document.querySelector('.body')?.textContent.includes('b')")
        server.process.kill()
        page.wait("document.querySelector('.error')?.textContent.includes('nautile serve')")
        page.clean(allowed=noise)
    with Server(nautile, "--no-ui") as server:
        check(server.get("/").status == 404 and server.get("/ui/chat.js").status == 404, "no page with --no-ui")


def fits_and_reads(nautile):
    """No sideways scrolling from a small phone to a wide screen, in both views; names for everything that can be pressed."""
    with Server(nautile) as server, Page(server, headers=script(text="t " * 50 + "</think>" + HOSTILE + "x" * 300)) as page:
        page.send("y" * 200)
        page.wait(DONE)
        for width, height in ((320, 568), (390, 844), (768, 1024), (1280, 800), (2560, 1300)):
            page.size(width, height)
            for place in ("", "#status"):
                page.js(f"location.hash = '{place}'")
                page.wait(f"document.querySelector('#status').hidden === {'false' if place else 'true'}")
                wide = page.js("[...document.querySelectorAll('html, body, #scroll, #status, .foot, header')].filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.id || e.tagName).join()")
                check(not wide, f"{wide} scrolls sideways at {width} {place}")
        unnamed = page.js("[...document.querySelectorAll('button, input, textarea')].filter(e => !(e.textContent.trim() || e.ariaLabel || e.labels?.length || e.disabled || e.hidden)).map(e => e.outerHTML).join()")
        check(not unnamed, f"without a name: {unnamed}")
        page.prefer(color_scheme="dark", reduced_motion="reduce")
        check(page.js("getComputedStyle(document.body).backgroundColor") == "rgb(12, 21, 27)", "dark when it is asked for")
        check(page.js("getComputedStyle(document.querySelector('.pulse')).animationName") == "none", "still when it is asked for")
        page.clean()


def keyboard_alone(nautile):
    """Everything that can be pressed is reached by Tab, in order and visibly; Escape and Enter do what they say."""
    with Server(nautile) as server, Page(server, headers=script(text="hm</think>Fine.")) as page:
        page.send("hi")
        page.wait(DONE)
        check(page.js("document.querySelector('a, button, input, textarea').className") == "skip", "the way past the top comes first")
        page.js("document.querySelector('.skip').focus()")
        reached = []
        for _ in range(30):
            page.press("Tab")
            name = page.js("(e => e === document.body ? '' : e.id || e.name || e.textContent.trim() || e.tagName)(document.activeElement)")
            if not name or name in reached[:1]:
                break
            reached.append(name)
            check(page.js("(s => parseFloat(s.outlineWidth) > 0 && s.outlineStyle !== 'none' || document.activeElement.matches('textarea, input[name=mode]'))"
                          "(getComputedStyle(document.activeElement))"), f"{name} shows that it has the focus")
        for name in ("new", "open-status", "open-settings", "scroll", "Copy", "Edit", "Again", "text", "mode", "send"):
            check(name in reached, f"Tab reaches {name}: {reached}")
        page.js("document.querySelector('#open-status').focus()")
        page.press("Enter")
        page.wait("!document.querySelector('#status').hidden")
        page.press("Escape")
        page.wait("document.querySelector('#status').hidden")
        page.js("document.querySelector('#open-settings').focus()")
        page.press("Enter")
        page.wait("document.querySelector('#settings').open")
        page.press("Escape")
        page.wait("!document.querySelector('#settings').open && document.activeElement.id === 'text'")
        page.type("one")
        page.press("Enter", shift=True)
        page.type("two")
        check(page.js("document.querySelector('#text').value") == "one\ntwo", "Shift+Enter is a new line")
        page.js("document.activeElement.blur()")
        page.press("/")
        check(page.js("document.activeElement.id") == "text", "/ goes to the field")
        page.press("O", shift=True, control=True)
        page.wait("document.querySelectorAll('article').length === 0")
        page.clean()


def stays_fast(nautile):
    """Four hundred old messages cost a new reply next to nothing; no text takes long to read, however it is made."""
    reply = script(text="hm</think>" + "One word after the other, and `code` too. " * 40, token_ms=4)
    with Server(nautile, "--context", "1000000") as server, Page(server, headers=reply) as page:
        page.call("Performance.enable")

        def work():
            found = {m["name"]: m["value"] for m in page.call("Performance.getMetrics")["metrics"]}
            return found["ScriptDuration"] + found["LayoutDuration"] + found["RecalcStyleDuration"]

        def cost():
            before = work()
            page.send("Go on")
            page.wait("document.querySelector('.live')")
            page.wait(DONE, 60)
            return work() - before

        cost()
        short = cost()
        old = "Some **old** words, a [link](https://example.com/) and `code`.\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n\n```py\nprint(1)\n```\n" * 3
        messages = [m for i in range(200) for m in ({"role": "user", "content": f"Question {i}?"}, {"role": "assistant", "content": old, "reasoning": "hm", "calls": [],
                    "usage": {"prompt_tokens": 9, "completion_tokens": 9}, "times": {"writing_s": 1, "total_s": 1}, "finish": "stop"})]
        page.js(f"localStorage['nautile.chat'] = JSON.stringify({{messages: {json.dumps(messages)}}})")
        begin = time.time()
        page.open(page.home)
        page.wait("document.querySelectorAll('article').length === 400 && document.querySelectorAll('input[name=mode]').length > 0", 20)
        opened = time.time() - begin
        check(page.js("(s => s.scrollHeight - s.scrollTop - s.clientHeight < 60)(document.querySelector('#scroll'))"), "it opens at its end")
        long = cost()
        print(f"  400 messages open in {opened:.2f} s; a reply costs the browser {short:.2f} s alone, {long:.2f} s behind them", flush=True)
        check(long < 4 * short + 0.5, "a long conversation is slow")
        slow = page.js("""(async () => {
            const {Rendered} = await import("/ui/markdown.js");
            const shapes = ["**a ", "*a ", "__a ", "_a ", "~~a ", "`a ", "``a ` ", "[a", "[a](", "![", "[a](b(", "https://", "\\\\", "> ", "- ", "  - ", "|a", "# ", "#",
                            "~~~a", "```\\n", "1. ", "<b>", " ", "-|", "**", "* * ", "| - | "];
            const slow = [];
            for (const shape of shapes) {
              for (const text of [shape.repeat(19000 / shape.length), "# " + shape.repeat(6000), "~~~" + shape.repeat(6000) + "`", "a|b\\n-|-" + shape.repeat(6000) + "x"]) {
                const begin = performance.now();
                new Rendered(document.createElement("div")).show(text);
                const took = performance.now() - begin;
                if (took > 400) slow.push(JSON.stringify(text.slice(0, 12)) + " " + took.toFixed(0) + " ms");
              }
            }
            return slow.join(", ");
        })()""")
        check(not slow, f"texts that take long: {slow}")
        page.clean()


def pictures(nautile):
    """chat.png and status.png: nano at work."""
    with Server(nautile, backend="engine", model=FLAGS.model) as server, Page(server) as page:
        page.size(1240, 1050)
        page.prefer(color_scheme="light")
        page.js(f"localStorage['nautile.settings'] = JSON.stringify({{tools: {json.dumps(json.dumps(PICTURE_TOOLS))}, mode: 'think_high'}})")
        page.open(page.home)
        page.wait("document.querySelectorAll('input[name=mode]').length > 0")
        for n, text in enumerate(("What is 348 + 275?", "What is the weather in Rome?"), 1):
            page.send(text)
            page.wait(f"document.querySelectorAll('.assistant').length === {n} && " + DONE)
        page.wait("document.querySelector('.call')")
        page.click(".answer textarea")
        page.type("24")
        page.click(".answer .primary")
        page.wait("document.querySelectorAll('.assistant').length === 3 && " + DONE)
        page.click(".reasoning summary")
        page.js("document.querySelector('#text').focus(); document.querySelector('#scroll').scrollTop = 0")
        page.wait("document.getAnimations().every((a) => a.playState !== 'running') && document.querySelector('#scroll').scrollTop === 0")
        page.screenshot(FLAGS.pictures / "chat.png")

        over = threading.Event()

        def client(seed):  # long prompts, long answers and pauses, in turn
            turn = 0
            while not over.is_set():
                turn += 1
                story = f"Note {seed} of {turn // 4}. The code word for the amber gate is falcon. " + "The river is wide and the boat is slow. " * (150 + 30 * seed)
                server.post("/v1/chat/completions", chat(story + "What is the code word for the amber gate?"))
                server.post("/v1/chat/completions", chat(f"What is {100 + seed * 37 + turn} + {200 + turn * 11}?", ignore_eos=True,
                                                         max_tokens=1500 + 2500 * ((turn + seed) % 4)))
                over.wait(2 * ((turn * 7 + seed * 3) % 5) / (1 + turn % 3))

        page.js("location.hash = '#status'")
        page.size(1240, 1050)
        points = "(document.querySelector('#s-batch-chart polyline.running')?.points.numberOfItems ?? 0)"
        clients = [threading.Thread(target=client, args=(seed,)) for seed in range(6)]
        for n, thread in enumerate(clients):
            thread.start()
            page.wait(f"{points} >= {4 * n + 4}", 60)  # one after another, so that the curves climb
        page.wait(f"{points} >= 80", 240)  # curves that fill their fields
        page.wait("document.querySelectorAll('#s-requests li:not(.none)').length >= 3 && parseFloat(document.querySelector('#s-decode').textContent) > 5", 60)
        page.screenshot(FLAGS.pictures / "status.png")
        over.set()
        for thread in clients:
            thread.join()


if PROGRAM is None:
    print("no chromium: the page at / was not checked")
    sys.exit(77)
if FLAGS.pictures:
    FLAGS.pictures.mkdir(parents=True, exist_ok=True)
    run_all([pictures], FLAGS.nautile)
else:
    tests = [answers_of_nano, streams_and_stops, text_stays_text, tool_calls, when_things_go_wrong, fits_and_reads, keyboard_alone, stays_fast]
    run_all([test for test in tests if FLAGS.only in (None, test.__name__)], FLAGS.nautile)
