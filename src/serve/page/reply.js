// How messages look: the person's, and the model's with its thinking, tool calls and figures.
//
// A view has `place` (its element), update(), and for replies start(), changed(), progress() and end(). Drawing happens
// once a frame however fast tokens come.
import {copyText, Rendered} from "./markdown.js";
import {count, duration, rate} from "./status.js";

function element(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

function button(text, className, run) {
  const made = element("button", className, text);
  made.type = "button";
  made.addEventListener("click", () => run(made));
  return made;
}

export function userView(message, actions) {
  const text = element("div", "text", message.content);
  const place = element("article", "user", element("h3", "offscreen", "You"), text,
    element("div", "buttons", button("Copy", "", (self) => copyText(message.content, self)), button("Edit", "last-only", actions.edit)));
  return {message, place, update() {}};
}

// A line for a person: what happened and what to do.
export function explain(error, model) {
  const context = error.extra?.n_ctx ?? model?.context_length;
  switch (true) {
    case error.status === 0:
      return {text: "The server stopped answering. Check that nautile serve is still running, then try again.", retry: true};
    case error.status === 401:
      return {text: "The server does not know this API key. Enter another one in the settings.", retry: true};
    case error.code === "context_length_exceeded":
      return {text: `This conversation is longer than the model's context${context ? ` of ${count(context)} tokens` : ""}. ` +
                    "Start a new chat, or edit your last message to make it shorter.", retry: false};
    case error.code === "rate_limit_exceeded":
      return {text: `This key has reached its limit. Try again in ${error.retryAfter || 60} seconds.`, retry: true};
    case error.code === "server_draining":
      return {text: "The server is shutting down. Try again once it is back.", retry: true};
    case error.status === 429 || error.status === 503 || error.status === 529:
      return {text: "The server is full. Try again in a moment.", retry: true};
    case error.status === 504:
      return {text: "This took longer than the server allows. A shorter question, or less thinking, may fit.", retry: true};
    case error.status === 403:
      return {text: "The server does not answer under this address. Start it with --allowed-hosts and this page's host name.", retry: false};
    case error.status >= 500 || error.code === "internal_error":
      return {text: "Something broke inside the server. Try again; its log says more.", retry: true, detail: error.message};
    default:
      return {text: error.message || "The reply broke off.", retry: true, detail: error.code};
  }
}

export function assistantView(message, actions) {
  const summaryText = element("span", "what"), snippet = element("span", "snippet");
  const thought = element("div", "thought");
  const reasoning = element("details", "reasoning", element("summary", "", summaryText, snippet), thought);
  const body = element("div", "body"), calls = element("div", "calls"), error = element("div", "error");
  const wait = element("div", "wait");
  const figures = element("p", "figures");
  const buttons = element("div", "buttons",
    button("Copy", "", (self) => copyText(message.content, self)), button("Again", "last-only", actions.regenerate));
  const foot = element("div", "foot-line", figures, buttons);
  const place = element("article", "assistant", element("h3", "offscreen", "Reply"), reasoning, body, calls, wait, error, foot);
  const rendered = new Rendered(body), renderedThought = new Rendered(thought);
  const callViews = [];
  let live = false, frame = 0, ticker = 0, shownThought = null, waitState = null;

  reasoning.addEventListener("toggle", () => showThought());

  function showThought() {
    if (!reasoning.open || shownThought === message.reasoning) return;
    shownThought = message.reasoning;
    const atEnd = thought.scrollHeight - thought.scrollTop - thought.clientHeight < 24;
    renderedThought.show(message.reasoning);
    if (live && atEnd) thought.scrollTop = thought.scrollHeight;
  }

  function showReasoning() {
    reasoning.hidden = !message.reasoning;
    if (!message.reasoning) return;
    const t = message.times ?? {};
    const thinking = live && !t.thought;
    const seconds = live ? ((t.thought ?? performance.now()) - t.thinking) / 1000 : t.thinking_s;
    reasoning.classList.toggle("thinking", thinking);
    const tokens = message.usage?.completion_tokens_details?.reasoning_tokens;
    const span = !(seconds >= (thinking ? 0 : 0.05)) ? "" : thinking ? ` ${Math.floor(seconds)} s` : ` for ${duration(seconds)}`;
    summaryText.textContent = (thinking ? "thinking …" : "Thought") + span + (!thinking && tokens ? `, ${count(tokens)} tokens` : "");
    snippet.textContent = thinking ? message.reasoning.trimEnd().split("\n").pop().slice(-160) : "";
    showThought();
  }

  function showWait() {
    const t = message.times ?? {};
    wait.hidden = !live || Boolean(t.first);
    if (wait.hidden) return;
    const seconds = Math.floor((performance.now() - t.sent) / 1000);
    const state = waitState;
    const after = seconds >= 2 ? ` · ${seconds} s` : "";
    if (state?.all) {
      // What the cache held costs nothing, so the rate is of what has been computed.
      const computed = state.done - state.cached, share = state.done / state.all;
      const speed = state.since && performance.now() > state.since ? (1000 * (computed - state.from)) / (performance.now() - state.since) : 0;
      const left = speed > 0 && state.done < state.all ? (state.all - state.done) / speed : 0;
      wait.querySelector("p").textContent = `Reading the prompt: ${count(state.done)} of ${count(state.all)} tokens` +
        (left >= 1.5 ? ` · about ${duration(left)} left` : after);
      const bar = wait.querySelector("progress");
      bar.hidden = false;
      bar.value = share;
    } else {
      wait.querySelector("p").textContent = (state?.text ?? "Sent") + after;
      wait.querySelector("progress").hidden = true;
    }
  }

  function showCalls() {
    (message.calls ?? []).forEach((call, i) => {
      if (!callViews[i]) {
        callViews[i] = callView(call, message, actions);
        calls.append(callViews[i].place);
      }
      callViews[i].update(live);
    });
    calls.hidden = callViews.length === 0;
  }

  function showFigures() {
    const u = message.usage, t = message.times ?? {};
    const parts = [];
    if (u && !live) {
      const cached = u.prompt_tokens_details?.cached_tokens ?? 0, reasoned = u.completion_tokens_details?.reasoning_tokens ?? 0;
      // A short reply comes all at once: then only the whole time says something.
      const speed = t.writing_s >= 0.25 ? (u.completion_tokens - 1) / t.writing_s : t.total_s > 0 ? u.completion_tokens / t.total_s : 0;
      if (speed > 0) parts.push([rate(speed) + " tokens/s", "The speed of writing, as this page saw it"]);
      if (t.first_s) parts.push([`first after ${t.first_s < 1 ? Math.round(1000 * t.first_s) + " ms" : duration(t.first_s)}`, "Time to the first token"]);
      parts.push([`${count(u.prompt_tokens)} prompt` + (cached > 0 ? `, ${count(cached)} from cache` : ""), "Prompt tokens, and those whose state the prefix cache already held"]);
      parts.push([`${count(u.completion_tokens)} written` + (reasoned > 0 ? `, ${count(reasoned)} thinking` : ""), "Tokens of the reply, and those of them that were thinking"]);
    } else if (live && t.first && u) {
      const seconds = (performance.now() - t.first) / 1000;
      if (seconds > 0.3 && u.completion_tokens > 2) parts.push([rate((u.completion_tokens - 1) / seconds) + " tokens/s", ""]);
      parts.push([`${count(u.completion_tokens)} written`, ""]);
    }
    if (message.finish === "length") parts.push(["cut at the limit of length", "Raise the longest reply in the settings, or ask it to go on"]);
    if (message.finish === "stopped") parts.push(["stopped by you", ""]);
    figures.replaceChildren(...parts.map(([text, title]) => {
      const made = element("span", "", text);
      if (title) made.title = title;
      return made;
    }));
  }

  function showError() {
    error.hidden = !message.error;
    if (!message.error) return;
    error.replaceChildren(element("p", "", message.error.text));
    if (message.error.detail) error.append(element("p", "note", message.error.detail));
    if (message.error.retry) error.append(button("Try again", "last-only", actions.regenerate));
  }

  function update() {
    cancelAnimationFrame(frame);
    frame = 0;
    place.classList.toggle("live", live);
    showReasoning();
    rendered.show(message.content);
    showCalls();
    showWait();
    showError();
    showFigures();
    const nothing = !live && !message.error && !message.content && !message.calls?.length;
    body.classList.toggle("empty", nothing);
    if (nothing) {
      body.replaceChildren(element("p", "note", message.finish === "stopped" ? "Stopped before a word." : message.finish === "length"
        ? "The limit of length was reached while thinking. Raise it in the settings." : "The model ended its turn without an answer."));
      rendered.clear();
    }
    foot.hidden = live && !message.times?.first;
    buttons.hidden = live;
  }

  return {
    message, place, update,
    start() {
      live = true;
      wait.replaceChildren(element("p"), element("progress"));
      ticker = setInterval(() => {
        showReasoning();
        showWait();
      }, 250);
      update();
    },
    changed() {
      frame ||= requestAnimationFrame(update);
    },
    progress(state) {
      if (state.all && !waitState?.all) Object.assign(state, {since: performance.now(), from: state.done - state.cached});
      else if (state.all) Object.assign(state, {since: waitState.since, from: waitState.from});
      waitState = state;
      showWait();
    },
    end() {
      live = false;
      clearInterval(ticker);
      update();
    },
  };
}

// One tool call: its name, its arguments as they come and pretty once they are whole, and a field for the result.
function callView(call, message, actions) {
  const name = element("code", "name"), args = element("code"), state = element("span", "note");
  const result = element("textarea", "mono");
  result.rows = 1;
  result.placeholder = "What the tool answered";
  result.setAttribute("aria-label", "Result of the tool call");
  const send = button("Send result", "primary last-only", () => {
    for (const one of message.calls) one.result ??= "";
    actions.save();
    actions.answerCalls();
  });
  const answer = element("div", "answer", element("span", "tag", "Result"), result, send);
  const place = element("section", "call", element("header", "", element("span", "tag", "Tool call"), name, state), element("pre", "", args), answer);
  result.addEventListener("input", () => {
    call.result = result.value;
    actions.save();
  });
  return {
    place,
    update(live) {
      name.textContent = call.name;
      let pretty = null;
      try {
        pretty = JSON.stringify(JSON.parse(call.text || "{}"), null, 2);
      } catch { /* not whole yet, or cut */ }
      args.replaceChildren(...(live || pretty === null ? [call.text] : coloured(pretty)));
      state.textContent = live ? "…" : pretty === null ? "cut before its end" : "";
      answer.hidden = live || pretty === null;
      if (document.activeElement !== result) result.value = call.result ?? "";
    },
  };
}

const kToken = /("(?:[^"\\]|\\.)*")(\s*:)?|\b(true|false|null)\b|(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)/g;

function coloured(json) {
  const made = [];
  let at = 0;
  for (const found of json.matchAll(kToken)) {
    made.push(json.slice(at, found.index));
    at = found.index + found[0].length;
    const kind = found[1] ? (found[2] ? "key" : "string") : found[3] ? "word" : "number";
    made.push(element("span", kind, found[1] ?? found[0]));
    if (found[2]) made.push(found[2]);
  }
  made.push(json.slice(at));
  return made;
}
