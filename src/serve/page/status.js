// The status view: what the engine does now and did over the last minutes, from GET /v1/status once a second.
//
// Rates are differences of counters between two samples, so a quiet server shows zero. Sampling goes on, less often,
// while the view is closed, so that it opens with a past; it rests while the page is hidden. The charts show as much of the
// past as there is, one minute to five.
import {getJson, ServerError} from "./api.js";

const kWindowS = 300, kLeastWindowS = 60, kOpenMs = 1000, kClosedMs = 3000;
const kSvg = "http://www.w3.org/2000/svg";

const samples = [];  // {t, prefill, decode, running, waiting, memory}
const listeners = [];
let last = null, timer = 0, isOpen = false;

export const onStatus = (listener) => listeners.push(listener);
export const current = () => last;

export function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (n >= 1024 && unit < units.length - 1) n /= 1024, ++unit;
  return (n >= 100 || unit === 0 ? n.toFixed(0) : n.toFixed(1)) + " " + units[unit];
}

// 202,763 as "203K" where there is little room.
const kCompact = new Intl.NumberFormat("en-US", {notation: "compact", maximumSignificantDigits: 3});
const brief = (n) => (n < 10000 ? count(n) : kCompact.format(n));

export const count = (n) => Math.round(n).toLocaleString("en-US");

export function rate(n) {
  return n === 0 ? "0" : n >= 100 ? count(n) : n >= 9.95 ? n.toFixed(0) : n.toFixed(1);
}

export function duration(s) {
  if (s < 10) return s.toFixed(1) + " s";
  if (s < 60) return s.toFixed(0) + " s";
  if (s < 3600) return Math.floor(s / 60) + " min";
  if (s < 86400) return Math.floor(s / 3600) + " h " + Math.floor((s % 3600) / 60) + " min";
  return Math.floor(s / 86400) + " d " + Math.floor((s % 86400) / 3600) + " h";
}

function take(status) {
  const now = performance.now() / 1000, e = status.engine;
  const sample = {t: now, running: e.running, waiting: e.waiting, memory: e.memory_bytes, prefill: 0, decode: 0};
  if (last && last.status && status.uptime_s > last.status.uptime_s) {
    const before = last.status.engine, span = status.uptime_s - last.status.uptime_s;
    sample.prefill = Math.max(0, e.prefilled_tokens - before.prefilled_tokens) / span;
    sample.decode = Math.max(0, e.output_tokens - before.output_tokens) / span;
  } else {
    samples.length = 0;  // another server: its counters began anew
  }
  samples.push(sample);
  while (samples.length > 0 && samples[0].t < now - kWindowS - 5) samples.shift();
  last = {status, error: null, sample};
}

export async function poll() {
  clearTimeout(timer);
  try {
    take(await getJson("/v1/status"));
  } catch (error) {
    last = {status: null, error: error instanceof ServerError ? error : new ServerError(0), sample: null};
  }
  for (const listener of listeners) listener(last);
  draw();
  clearTimeout(timer);
  if (!document.hidden && last.error?.status !== 401) timer = setTimeout(poll, isOpen ? kOpenMs : kClosedMs);
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) poll();
});

export function setOpen(open) {
  isOpen = open;
  if (open) poll();
}

// ---- drawing

function svg(name, attributes, ...children) {
  const made = document.createElementNS(kSvg, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// A whole number just above, so that the scale does not jump with every sample.
function ceiling(n) {
  if (n <= 1) return 1;
  const magnitude = 10 ** Math.floor(Math.log10(n));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].find((step) => step * magnitude >= n) * magnitude;
}

const kWidth = 320, kHeight = 84, kTop = 6, kBottom = 4;

// How far back the charts reach, in whole steps of half a minute.
function windowS(now) {
  const past = samples.length > 0 ? now - samples[0].t : 0;
  return Math.min(kWindowS, Math.max(kLeastWindowS, 30 * Math.ceil(past / 30)));
}

// series: [{pick, className}]; `unit` stands behind the scale's top.
function chart(place, series, label, unit) {
  const now = performance.now() / 1000, span = windowS(now);
  const shown = samples.filter((sample) => sample.t >= now - span - 3);
  const top = ceiling(Math.max(1, ...shown.flatMap((sample) => series.map((one) => one.pick(sample)))));
  const x = (t) => kWidth * (1 - (now - t) / span);
  const y = (value) => kHeight - kBottom - (kHeight - kTop - kBottom) * Math.min(1, value / top);
  const made = svg("svg", {viewBox: `0 0 ${kWidth} ${kHeight}`, preserveAspectRatio: "none", role: "img", "aria-label": label});
  for (const part of [0, 0.5, 1]) {
    const at = y(top * part).toFixed(1);
    made.append(svg("line", {x1: 0, x2: kWidth, y1: at, y2: at, class: part === 0 ? "axis" : "grid"}));
  }
  const line = span > 120 ? 60 : span > 60 ? 30 : 15;
  for (let past = line; past < span; past += line) {
    const at = x(now - past).toFixed(1);
    made.append(svg("line", {x1: at, x2: at, y1: kTop, y2: kHeight - kBottom, class: "grid"}));
  }
  for (const one of series) {
    if (shown.length < 2) continue;
    const points = shown.map((sample) => `${x(sample.t).toFixed(1)},${y(one.pick(sample)).toFixed(1)}`);
    const first = x(shown[0].t).toFixed(1), end = x(shown[shown.length - 1].t).toFixed(1), base = kHeight - kBottom;
    made.append(svg("polygon", {points: `${first},${base} ${points.join(" ")} ${end},${base}`, class: "area " + one.className}));
    made.append(svg("polyline", {points: points.join(" "), class: "line " + one.className}));
  }
  const scale = document.createElement("span");
  scale.className = "top";
  scale.textContent = count(top) + unit;
  place.replaceChildren(made, scale);
}

function showAgo() {
  const span = windowS(performance.now() / 1000);
  const text = span < 120 && span > 60 ? `${span} s ago` : span % 60 === 0 ? `${span / 60} min ago` : `${Math.floor(span / 60)}½ min ago`;
  for (const place of document.querySelectorAll("#status .ago")) place.textContent = text;
}

function set(id, text) {
  const place = document.getElementById(id);
  if (place.textContent !== text) place.textContent = text;
}

function draw() {
  const panel = document.getElementById("status");
  panel.classList.toggle("stale", !last?.status);
  if (!last?.status) {
    set("s-state", last?.error?.status === 401 ? "a key is needed" : last?.error ? "not reachable" : "…");
    document.getElementById("s-state").dataset.state = "failed";
    return;
  }
  const {status, sample} = last, e = status.engine;
  set("s-state", status.state);
  document.getElementById("s-state").dataset.state = status.state;
  set("s-model", status.model);
  set("s-about", `Nautile ${status.version} · up ${duration(status.uptime_s)} · context ${count(e.context_tokens)} tokens`);
  if (!isOpen) return;
  set("s-running", `${e.running}`);
  set("s-slots", `of ${e.max_sequences}`);
  set("s-waiting", `${e.waiting}`);
  const parts = [[e.prefilling, "reading"], [e.running - e.prefilling, "writing"]].filter(([n]) => n > 0);
  set("s-phase", parts.map(([n, what]) => `${n} ${what}`).join(", ") || "idle");
  const share = e.prompt_tokens > 0 ? e.cached_tokens / e.prompt_tokens : 0;
  set("s-hits", e.prompt_tokens > 0 ? (100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0) + "%" : "–");
  set("s-hits-note", e.prompt_tokens > 0 ? `${brief(e.cached_tokens)} of ${brief(e.prompt_tokens)} tokens` : "no prompt yet");
  const drafted = e.drafted_tokens > 0;
  set("s-drafts", drafted ? ((100 * e.accepted_tokens) / e.drafted_tokens).toFixed(0) + "%" : "–");
  set("s-drafts-note", drafted ? `${brief(e.accepted_tokens)} of ${brief(e.drafted_tokens)} drafts` : "no drafts so far");

  set("s-decode", rate(sample.decode));
  set("s-prefill", rate(sample.prefill));
  set("s-batch", `${e.running}`);
  set("s-batch-note", e.waiting > 0 ? `running + ${e.waiting} waiting` : "running");
  const place = (id) => document.getElementById(id);
  chart(place("s-decode-chart"), [{pick: (s) => s.decode, className: "decode"}],
    `Tokens written per second over the last minutes, now ${rate(sample.decode)}`, "/s");
  chart(place("s-prefill-chart"), [{pick: (s) => s.prefill, className: "prefill"}],
    `Prompt tokens read per second over the last minutes, now ${rate(sample.prefill)}`, "/s");
  const waited = samples.some((s) => s.waiting > 0) ? [{pick: (s) => s.running + s.waiting, className: "waiting"}] : [];
  chart(place("s-batch-chart"), [...waited, {pick: (s) => s.running, className: "running"}], `Requests over the last minutes, now ${e.running} running, ${e.waiting} waiting`, "");
  showAgo();

  memory(e);
  requests(status.requests);
}

function memory(e) {
  const plan = e.memory_budget_bytes, cache = Math.min(e.cache_bytes, e.memory_bytes), states = e.memory_bytes - cache;
  set("s-memory", plan > 0 ? `${bytes(e.memory_bytes)} of ${bytes(plan)} planned` : bytes(e.memory_bytes));
  const bar = svg("svg", {viewBox: "0 0 1000 20", preserveAspectRatio: "none", role: "img",
                          "aria-label": `${bytes(states)} in running sequences, ${bytes(cache)} in cached prefixes, of ${bytes(plan)}`});
  const scale = plan > 0 ? 1000 / Math.max(plan, e.memory_bytes) : 0;
  bar.append(svg("rect", {x: 0, y: 0, width: 1000, height: 20, class: "free"}));
  bar.append(svg("rect", {x: 0, y: 0, width: Math.max(states * scale, states > 0 ? 3 : 0), height: 20, class: "states"}));
  bar.append(svg("rect", {x: states * scale, y: 0, width: Math.max(cache * scale, cache > 0 ? 3 : 0), height: 20, class: "cache"}));
  document.getElementById("s-memory-bar").replaceChildren(bar);
  set("s-states", bytes(states));
  set("s-cache", bytes(cache));
  set("s-disk", e.disk_bytes > 0 ? `· ${bytes(e.disk_bytes)} more on disk` : "");
}

function requests(list) {
  const place = document.getElementById("s-requests");
  const rows = list.slice(0, 32).map((request) => {
    const row = document.createElement("li");
    const done = request.cached_tokens + request.prefilled_tokens;
    const what = {
      queued: `waiting · ${count(request.prompt_tokens)} prompt tokens`,
      prefill: `reading ${count(done)} of ${count(request.prompt_tokens)}`,
      decode: `writing · ${count(request.output_tokens)} tokens`,
      ended: "done",
    }[request.phase];
    const name = document.createElement("span");
    name.textContent = what;
    const age = document.createElement("span");
    age.className = "age";
    age.textContent = duration(request.age_s);
    const bar = document.createElement("progress");
    bar.max = Math.max(1, request.prompt_tokens);
    bar.value = request.phase === "prefill" ? done : 0;
    bar.className = request.phase;
    row.append(name, age);
    if (request.phase === "prefill" || request.phase === "queued") row.append(bar);  // how long an answer gets nobody knows
    return row;
  });
  if (rows.length === 0) {
    const row = document.createElement("li");
    row.className = "none";
    row.textContent = "Nothing is running.";
    rows.push(row);
  }
  place.replaceChildren(...rows);
}
