// The chat: the conversation and its settings, sending, and what the keyboard and the buttons do.
//
// The conversation lives in `chat.messages`, is kept in this browser (localStorage) and nowhere else. How a message
// looks is reply.js; talking to the server is api.js; the status view is status.js.
import {chat as complete, getJson, key, newId, ServerError} from "./api.js";
import {assistantView, userView, explain} from "./reply.js";
import * as status from "./status.js";

const $ = (id) => document.getElementById(id);
const kChat = "nautile.chat", kSettings = "nautile.settings";

function stored(name, fallback) {
  try {
    return {...fallback, ...JSON.parse(localStorage.getItem(name) ?? "{}")};
  } catch {
    return fallback;
  }
}

function keep(name, value) {
  try {
    localStorage.setItem(name, JSON.stringify(value));
  } catch {
    notice("This browser's storage is full: the conversation goes on, but will not be here after a reload.");
  }
}

// role user: {content}; assistant: {content, reasoning, calls: [{id, name, text, result}], usage, times, finish, error, mode};
// tool results stand in the calls they answer.
const chat = stored(kChat, {messages: []});
if (!Array.isArray(chat.messages)) chat.messages = [];
const settings = stored(kSettings, {mode: "", system: "", temperature: "", seed: "", maxTokens: "", tools: ""});
let model = null, running = null;  // running: {abort, id, view, message}
const views = [];  // one for each message

const save = () => keep(kChat, chat);

// ---- the model and its modes

const kModes = {
  non_think: ["Non-think", "Answers at once"],
  think_low: ["Think low", "Thinks a little first"],
  think_high: ["Think high", "Thinks first"],
  think_max: ["Think max", "Thinks as long as it takes, then checks"],
};

function showModes(modes) {
  const before = modes.includes(settings.mode) ? settings.mode : modes.includes("think_high") ? "think_high" : modes[0];
  const group = $("modes");
  group.replaceChildren(group.querySelector("legend"));
  for (const mode of modes) {
    const label = document.createElement("label"), input = document.createElement("input");
    const [name, title] = kModes[mode] ?? [mode, ""];
    Object.assign(input, {type: "radio", name: "mode", value: mode, checked: mode === before});
    input.addEventListener("change", () => {
      settings.mode = mode;
      keep(kSettings, settings);
      $("text").focus();
    });
    label.title = title;
    const text = document.createElement("span");
    const [first, ...rest] = name.split(" ");
    if (rest.length > 0) {
      const prefix = document.createElement("span");
      prefix.className = "prefix";
      prefix.textContent = first + " ";
      text.append(prefix, rest.join(" "));
    } else {
      text.append(name);
    }
    label.append(input, text);
    group.append(label);
  }
}

const chosenMode = () => document.querySelector("input[name=mode]:checked")?.value;

const kSuggestions = {
  nano: ["What is 48 + 75?", "Sort 42, 7, 19, 88.", "Reverse the word plate.", "What is 34 * 27?"],
  other: ["Explain how a nautilus dives and rises.", "Write a SQL query for the five best customers of each month.",
          "Compare mutexes and channels in a small table.", "Draft a kind reply that says no to a meeting."],
};

function showModel(found) {
  model = found;
  $("model").textContent = found.id.split("/").pop();
  $("model").title = `${found.id}: a context of ${status.count(found.context_length)} tokens`;
  document.title = "Nautile · " + found.id.split("/").pop();
  showModes(found.reasoning_modes ?? ["non_think", "think_high", "think_max"]);
  const list = found.id === "nano" ? kSuggestions.nano : kSuggestions.other;
  if (found.id === "nano") {
    $("welcome-note").textContent = "This is nano, a tiny model that ships with Nautile: sums, sorting, words and small talk are what it learned.";
  }
  $("suggestions").replaceChildren(...list.map((text) => {
    const item = document.createElement("li"), button = document.createElement("button");
    button.type = "button";
    button.textContent = text;
    button.addEventListener("click", () => submit(text));
    item.append(button);
    return item;
  }));
}

async function findModel() {
  try {
    showModel((await getJson("/v1/models")).data[0]);
    if (running === null) quiet();
  } catch (error) {
    if (error.status === 401) return needKey();
    $("model").textContent = error.status === 503 ? "loading…" : "not reachable";
    if (error.status === 503) notice("The model is being loaded. You can write already; it answers when it is there.");
    else notice(explain(error).text, "Try again", findModel);
    if (error.status === 503) setTimeout(findModel, 1000);
  }
}

function needKey() {
  notice("This server asks for an API key.", "Enter the key", () => openSettings("key"));
  openSettings("key");
}

// ---- notices

function notice(text, action, run) {
  $("notice-text").textContent = text;
  $("notice-action").hidden = !action;
  $("notice-action").textContent = action ?? "";
  $("notice-action").onclick = () => {
    quiet();
    run();
  };
  $("notice").hidden = false;
}

const quiet = () => ($("notice").hidden = true);
$("notice-close").addEventListener("click", quiet);
const say = (text) => ($("said").textContent = text);

// ---- the view

const scroll = $("scroll");
let follows = true;

scroll.addEventListener("scroll", () => {
  follows = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 48;
  $("down").hidden = follows;
}, {passive: true});
new ResizeObserver(() => follows && toEnd()).observe($("log"));

function toEnd() {
  scroll.scrollTop = scroll.scrollHeight;
}
$("down").addEventListener("click", () => {
  follows = true;
  toEnd();
});

function draw() {
  while (views.length > chat.messages.length) views.pop().place.remove();
  chat.messages.forEach((message, i) => {
    if (views[i]?.message === message) return views[i].update();
    views[i]?.place.remove();
    views[i] = message.role === "user" ? userView(message, actions) : assistantView(message, actions);
    views[i].update();
    if (views[i - 1]) views[i - 1].place.after(views[i].place);
    else $("log").prepend(views[i].place);
  });
  const lastUser = chat.messages.findLastIndex((message) => message.role === "user");
  views.forEach((view, i) => view.place.classList.toggle("latest", i === chat.messages.length - 1 || i === lastUser));
  $("welcome").hidden = chat.messages.length > 0;
  $("send").hidden = running !== null;
  $("stop").hidden = running === null;
  document.body.classList.toggle("busy", running !== null);
}

// ---- sending

// The conversation as the API takes it. Replies that came to nothing are left out; calls that were cut too.
function toSend() {
  const made = [];
  if (settings.system.trim()) made.push({role: "system", content: settings.system});
  for (const message of chat.messages) {
    if (message.role === "user") {
      made.push({role: "user", content: message.content});
      continue;
    }
    const calls = (message.calls ?? []).filter((call) => parses(call.text));
    if (!message.content && calls.length === 0) continue;
    const entry = {role: "assistant", content: message.content || ""};
    if (calls.length > 0) {
      entry.tool_calls = calls.map((call) => ({id: call.id, type: "function", function: {name: call.name, arguments: call.text || "{}"}}));
      if (message.reasoning) entry.reasoning_content = message.reasoning;
    }
    made.push(entry);
    for (const call of calls) made.push({role: "tool", tool_call_id: call.id, content: call.result ?? "(no result)"});
  }
  return made;
}

function parses(text) {
  if (!text) return true;
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

function request() {
  const body = {model: model?.id ?? "nautile", messages: toSend()};
  const mode = chosenMode();
  if (mode) body.reasoning_mode = mode;
  if (settings.temperature !== "") body.temperature = Number(settings.temperature);
  if (settings.seed !== "") body.seed = Number(settings.seed);
  if (settings.maxTokens !== "") body.max_tokens = Number(settings.maxTokens);
  const tools = toolList();
  if (tools?.length > 0) body.tools = tools;
  return body;
}

function toolList() {
  if (!settings.tools.trim()) return null;
  try {
    const list = JSON.parse(settings.tools);
    return Array.isArray(list) ? list : [list];
  } catch {
    return null;
  }
}

async function reply() {
  if (running) return;
  quiet();
  const message = {role: "assistant", content: "", reasoning: "", calls: [], mode: chosenMode(), times: {sent: performance.now()}};
  const body = request();
  chat.messages.push(message);
  running = {abort: new AbortController(), id: newId(), message};
  follows = true;
  draw();
  const view = views[views.length - 1];
  const t = message.times;
  view.start();
  say("Waiting for the reply");
  const first = () => {
    if (t.first) return;
    t.first = performance.now();
    view.changed();
  };
  const watch = watchProgress(running, view);
  let lastSave = performance.now();
  try {
    await withPatience(running, view, () => complete(body, running.id, running.abort.signal, {
      open: () => (t.opened = performance.now()),
      usage: (usage) => {
        message.usage = usage;
        view.changed();
      },
      reasoning: (text) => {
        first();
        t.thinking ??= performance.now();
        message.reasoning += text;
        view.changed();
      },
      content: (text) => {
        first();
        if (t.thinking) t.thought ??= performance.now();
        t.last = performance.now();
        message.content += text;
        view.changed();
        if (t.last - lastSave > 2000) {
          save();
          lastSave = t.last;
        }
      },
      call: (index, piece) => {
        first();
        if (t.thinking) t.thought ??= performance.now();
        const call = (message.calls[index] ??= {id: "", name: "", text: ""});
        if (piece.id) call.id = piece.id;
        if (piece.name) call.name = piece.name;
        call.text += piece.text;
        view.changed();
      },
      finish: (reason) => (message.finish = reason),
    }));
    say("The reply is complete");
  } catch (error) {
    if (error.name === "AbortError") {
      message.finish = "stopped";
      say("Stopped");
    } else {
      const why = error instanceof ServerError ? error : new ServerError(0);
      if (why.status === 401) needKey();
      message.error = explain(why, model);
      say(message.error.text);
    }
  }
  clearTimeout(watch.timer);
  watch.over = true;
  t.end = performance.now();
  if (t.thinking) t.thought ??= t.end;
  message.times = settled(message);
  running = null;
  view.end();
  save();
  draw();
  status.poll();
}

// Clock readings are of this page's life only; what is kept are spans, in seconds.
function settled(message) {
  const t = message.times, s = (a, b) => (a && b ? (b - a) / 1000 : null);
  return {first_s: s(t.sent, t.first), thinking_s: s(t.thinking, t.thought), writing_s: s(t.first, t.end), total_s: s(t.sent, t.end)};
}

// A server that is loading or full is asked again by itself; the person may stop it.
async function withPatience(run, view, attempt) {
  for (let tries = 0;; ++tries) {
    try {
      return await attempt();
    } catch (error) {
      const loading = error.status === 503 && error.code === "model_loading";
      const full = (error.status === 429 || error.status === 503) && error.code !== "rate_limit_exceeded" && error.code !== "server_draining";
      if (!(error instanceof ServerError) || !(loading || full) || tries >= (loading ? 600 : 20)) throw error;
      view.progress({text: loading ? "The model is still being loaded" : "The server is full; trying again"});
      await new Promise((resolve, reject) => {
        const stop = () => reject(new DOMException("", "AbortError"));
        run.abort.signal.addEventListener("abort", stop, {once: true});
        setTimeout(() => {
          run.abort.signal.removeEventListener("abort", stop);
          resolve();
        }, loading ? 1000 : 1000 * Math.min(Math.max(error.retryAfter, 1), 15));
      });
    }
  }
}

// Until the first token: where in the queue, how much of the prompt has been read.
function watchProgress(run, view) {
  const watch = {timer: 0, over: false};
  const look = async () => {
    try {
      const found = await getJson("/v1/status");
      if (watch.over || run.message.times.first) return;
      const mine = found.requests.find((request) => request.id === run.id);
      if (mine?.phase === "queued") {
        view.progress({text: found.engine.waiting > 1 ? `In the queue with ${found.engine.waiting - 1} more` : "In the queue"});
      } else if (mine?.phase === "prefill") {
        view.progress({done: mine.cached_tokens + mine.prefilled_tokens, cached: mine.cached_tokens, all: mine.prompt_tokens});
      }
    } catch { /* the request itself will say what is wrong */ }
    if (!watch.over && !run.message.times.first) watch.timer = setTimeout(look, 350);
  };
  watch.timer = setTimeout(look, 250);
  return watch;
}

function stop() {
  running?.abort.abort();
}

function submit(text) {
  if (running || !text.trim()) return;
  const last = chat.messages[chat.messages.length - 1];
  if (last?.role === "user") chat.messages.pop();
  chat.messages.push({role: "user", content: text});
  save();
  reply();
}

const actions = {
  regenerate() {
    if (running) return;
    const last = chat.messages[chat.messages.length - 1];
    if (last?.role === "assistant") chat.messages.pop();
    reply();
  },
  // Puts the last thing the person said back into the field, and takes what followed away.
  edit() {
    if (running) return;
    const at = chat.messages.findLastIndex((message) => message.role === "user");
    if (at < 0) return;
    $("text").value = chat.messages[at].content;
    chat.messages.length = at;
    save();
    draw();
    grow();
    $("text").focus();
    $("text").setSelectionRange($("text").value.length, $("text").value.length);
  },
  // Results of tool calls, once the person has filled them in.
  answerCalls() {
    if (!running) reply();
  },
  save,
};

// ---- the field

function grow() {
  const text = $("text");
  text.rows = 1;
  const line = parseFloat(getComputedStyle(text).lineHeight) || 24;
  text.rows = Math.min(12, Math.max(1, Math.round((text.scrollHeight - 16) / line)));
}

$("text").addEventListener("input", grow);
$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("composer").requestSubmit();
  } else if (event.key === "ArrowUp" && $("text").value === "" && !running && chat.messages.length > 0) {
    event.preventDefault();
    actions.edit();
  }
});
$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  if (running) return;
  const text = $("text").value;
  if (!text.trim()) return;
  $("text").value = "";
  grow();
  submit(text);
});
$("stop").addEventListener("click", () => {
  stop();
  $("text").focus();
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !$("settings").open) {
    if (running) stop();
    else if (!$("status").hidden) location.hash = "";
  } else if (event.key.toLowerCase() === "o" && event.shiftKey && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    newChat();
  } else if (event.key === "/" && !/^(TEXTAREA|INPUT)$/.test(document.activeElement.tagName)) {
    event.preventDefault();
    $("text").focus();
  }
});

function newChat() {
  stop();
  chat.messages = [];
  save();
  draw();
  quiet();
  $("text").focus();
}
$("new").addEventListener("click", newChat);

// ---- settings

const kFields = {system: "system", temperature: "temperature", seed: "seed", "max-tokens": "maxTokens", tools: "tools"};

function openSettings(focus) {
  for (const [id, name] of Object.entries(kFields)) $(id).value = settings[name];
  $("key").value = key.get();
  $("remember").checked = key.remembered();
  checkTools();
  if (!$("settings").open) $("settings").showModal();
  $(typeof focus === "string" ? focus : "system").focus();
}

function checkTools() {
  const wrong = $("tools").value.trim() && !parses($("tools").value);
  $("tools-error").textContent = wrong ? "This is not JSON yet, so no tools are sent." : "";
}

$("open-settings").addEventListener("click", openSettings);
$("tools").addEventListener("input", checkTools);
$("settings").addEventListener("click", (event) => event.target === $("settings") && $("settings").close());
$("settings").addEventListener("close", () => {
  for (const [id, name] of Object.entries(kFields)) settings[name] = $(id).validity.valid ? $(id).value : settings[name];
  keep(kSettings, settings);
  const before = key.get();
  key.set($("key").value.trim(), $("remember").checked);
  if (key.get() !== before || model === null) {
    quiet();
    findModel();
    status.poll();
  }
  $("text").focus();
});

// ---- the status view: #status, so that it can be linked to

function showStatus() {
  const open = location.hash === "#status";
  $("status").hidden = !open;
  document.body.classList.toggle("with-status", open);
  $("open-status").setAttribute("aria-expanded", open);
  status.setOpen(open);
}

$("open-status").addEventListener("click", () => (location.hash = location.hash === "#status" ? "" : "status"));
$("close-status").addEventListener("click", () => (location.hash = ""));
addEventListener("hashchange", showStatus);

status.onStatus((now) => {
  const pulse = $("pulse"), busy = now.status && now.status.engine.running + now.status.engine.waiting > 0;
  pulse.dataset.state = now.status ? (busy ? "busy" : now.status.state) : "failed";
  $("pulse-text").textContent = busy && now.sample.decode >= 0.5 ? status.rate(now.sample.decode) + " tok/s" : "Status";
});

draw();
toEnd();
showStatus();
findModel();
if (location.hash !== "#status") status.poll();
