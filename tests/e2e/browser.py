"""A headless Chromium, driven over the DevTools protocol through a pipe. Standard library only."""
import base64
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import threading
import time


def find_browser():
    """The browser's program, or None."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """One browser with one page. `requests` holds every URL it asked for, `console` every error it had to say."""

    def __init__(self, program, width=1280, height=800, scale=1):
        self.profile = tempfile.TemporaryDirectory(prefix="browser-")
        out_read, out_write = os.pipe()
        in_read, in_write = os.pipe()
        # The browser reads commands from descriptor 3 and answers on 4.
        for_child = [os.dup(in_read), os.dup(out_write)]
        while min(for_child) < 5:
            for_child = [os.dup(fd) for fd in for_child]

        def child():
            os.dup2(for_child[0], 3)
            os.dup2(for_child[1], 4)

        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run", "--disable-extensions",
                 "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
                 f"--user-data-dir={self.profile.name}", f"--window-size={width},{height}", "about:blank"]
        self.process = subprocess.Popen([program, *flags], pass_fds=(3, 4), preexec_fn=child,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for fd in (in_read, out_write, *for_child):
            os.close(fd)
        self.write = os.fdopen(in_write, "wb", buffering=0)
        self.read = os.fdopen(out_read, "rb", buffering=0)
        self.lock = threading.Condition()
        self.answers, self.next_id = {}, 1
        self.requests, self.console = [], []
        self.ended = False
        threading.Thread(target=self._listen, daemon=True).start()
        self.session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.size(width, height, scale)

    def _listen(self):
        rest = b""
        while True:
            more = self.read.read(1 << 16)
            if not more:
                break
            rest += more
            while b"\0" in rest:
                text, rest = rest.split(b"\0", 1)
                self._took(json.loads(text))
        with self.lock:
            self.ended = True
            self.lock.notify_all()

    def _took(self, message):
        with self.lock:
            if "id" in message:
                self.answers[message["id"]] = message
                self.lock.notify_all()
                return
            method, params = message.get("method"), message.get("params", {})
            if method == "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            elif method == "Network.webSocketCreated":
                self.requests.append(params["url"])
            elif method == "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                self.console.append(details.get("exception", {}).get("description") or details["text"])
            elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
                self.console.append(" ".join(str(a.get("value", a.get("description", ""))) for a in params["args"]))
            elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                self.console.append(params["entry"]["text"] + " " + params["entry"].get("url", ""))

    def call(self, method, timeout=30, **params):
        with self.lock:
            number = self.next_id
            self.next_id += 1
        message = {"id": number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        self.write.write(json.dumps(message).encode() + b"\0")
        deadline = time.time() + timeout
        with self.lock:
            while number not in self.answers:
                left = deadline - time.time()
                if self.ended or left <= 0:
                    raise AssertionError(f"the browser did not answer {method}")
                self.lock.wait(left)
            answer = self.answers.pop(number)
        if "error" in answer:
            raise AssertionError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def size(self, width, height, scale=1, mobile=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=mobile)

    def prefer(self, **features):
        """prefer(color_scheme="dark") and the like."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-" + k.replace("_", "-"), "value": v} for k, v in features.items()])

    def headers(self, more):
        """On every request from now on."""
        self.call("Network.setExtraHTTPHeaders", headers=more)

    def open(self, url):
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def js(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise AssertionError(f"{expression}: {details.get('exception', {}).get('description', details['text'])}")
        return answer["result"].get("value")

    def wait(self, expression, seconds=20):
        deadline = time.time() + seconds
        while time.time() < deadline:
            try:
                value = self.js(f"(() => {{ const v = ({expression}); return v instanceof Node || v; }})()")
            except AssertionError as error:  # between two documents there is nothing to ask
                if self.ended or "Cannot find" not in str(error) and "context" not in str(error) and "null" not in str(error):
                    raise
                value = None
            if value:
                return value
            time.sleep(0.02)
        raise AssertionError(f"not within {seconds} s: {expression}")

    def type(self, text):
        self.call("Input.insertText", text=text)

    def press(self, key, shift=False, control=False):
        codes = {"Enter": 13, "Escape": 27, "Tab": 9, "ArrowUp": 38, "End": 35, "O": 79, "/": 191}
        params = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key], "modifiers": (8 if shift else 0) | (2 if control else 0)}
        if key == "Enter":
            params["text"] = "\r"
        self.call("Input.dispatchKeyEvent", type="keyDown", **params)
        params.pop("text", None)
        self.call("Input.dispatchKeyEvent", type="keyUp", **params)

    def click(self, selector):
        """A real click, at the middle of what is shown there."""
        at = self.js(f"""(() => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: "nearest"}});
            const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2, r.width * r.height]; }})()""")
        if at[2] == 0:
            raise AssertionError(f"{selector} is not shown")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], button="left", clickCount=1)

    def screenshot(self, path):
        data = self.call("Page.captureScreenshot", format="png")["data"]
        pathlib.Path(path).write_bytes(base64.b64decode(data))

    def close(self):
        if self.process.poll() is None:
            try:
                session, self.session = self.session, None
                self.call("Browser.close", timeout=5)
            except (AssertionError, OSError):
                pass
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.write.close()
        for _ in range(20):  # its helpers may still be writing there
            try:
                self.profile.cleanup()
                break
            except OSError:
                time.sleep(0.1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
