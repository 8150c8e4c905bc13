// Talking to the server: the key, JSON, and a chat completion as a stream of events.

const kKeyName = "nautile.key";

export const key = {
  get: () => sessionStorage.getItem(kKeyName) ?? localStorage.getItem(kKeyName) ?? "",
  set(value, remember) {
    sessionStorage.removeItem(kKeyName);
    localStorage.removeItem(kKeyName);
    if (value) (remember ? localStorage : sessionStorage).setItem(kKeyName, value);
  },
  remembered: () => localStorage.getItem(kKeyName) !== null,
};

// What went wrong, in the server's words: status 0 is no answer at all.
export class ServerError extends Error {
  constructor(status, error, retryAfter) {
    super(error?.message ?? "");
    this.status = status;
    this.code = error?.code ?? "";
    this.extra = error ?? {};
    this.retryAfter = retryAfter;
  }
}

function headers(more) {
  const made = {...more};
  if (key.get()) made.Authorization = "Bearer " + key.get();
  return made;
}

async function send(path, options) {
  let response;
  try {
    response = await fetch(path, {cache: "no-store", credentials: "omit", ...options});
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError(0);
  }
  if (response.ok) return response;
  let body = null;
  try {
    body = await response.json();
  } catch { /* an answer without a body */ }
  throw new ServerError(response.status, body?.error, Number(response.headers.get("retry-after")) || 0);
}

export async function getJson(path, signal) {
  return (await send(path, {headers: headers(), signal})).json();
}

// The data lines of a server-sent stream, as they come. Chunks may cut lines, and characters, anywhere.
export async function* dataLines(stream) {
  const reader = stream.getReader();
  const decoder = new TextDecoder();
  let rest = "", data = [];
  try {
    for (;;) {
      const {value, done} = await reader.read();
      rest += done ? decoder.decode() : decoder.decode(value, {stream: true});
      const lines = rest.split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line === "") {
          if (data.length > 0) yield data.join("\n");
          data = [];
        } else if (line.startsWith("data:")) {
          data.push(line.slice(line[5] === " " ? 6 : 5));
        }
      }
      if (done) return;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

// One chat completion. Calls on.reasoning(text), on.content(text), on.call(index, {id, name, text}), on.usage(usage) and
// on.finish(reason); throws ServerError, or AbortError when `signal` ends it, which also ends the work on the server.
export async function chat(body, requestId, signal, on) {
  const response = await send("/v1/chat/completions", {
    method: "POST",
    headers: headers({"Content-Type": "application/json", "X-Request-Id": requestId}),
    body: JSON.stringify({...body, stream: true, stream_options: {include_usage: true, continuous_usage_stats: true}}),
    signal,
  });
  on.open?.(response);
  let whole = false;
  for await (const data of dataLines(response.body)) {
    if (data === "[DONE]") {
      whole = true;
      break;
    }
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ServerError(200, chunk.error);
    if (chunk.usage) on.usage(chunk.usage);
    const choice = chunk.choices?.[0];
    if (!choice) continue;
    const delta = choice.delta ?? {};
    if (delta.reasoning_content) on.reasoning(delta.reasoning_content);
    if (delta.content) on.content(delta.content);
    for (const call of delta.tool_calls ?? []) {
      on.call(call.index, {id: call.id, name: call.function?.name, text: call.function?.arguments ?? ""});
    }
    if (choice.finish_reason) on.finish(choice.finish_reason);
  }
  if (!whole) throw new ServerError(0);
}

export const newId = () => "ui-" + Array.from(crypto.getRandomValues(new Uint8Array(12)), (b) => b.toString(16).padStart(2, "0")).join("");
