// Markdown to DOM nodes, for text that a model wrote: nothing in it ever becomes markup.
//
// Every node is made by createElement and every text by createTextNode; links go to http, https and mailto alone, and
// pictures are shown as links, so that no text can make the page ask anybody for anything. It covers what models write:
// headings, lists, tables, quotes, fenced code, bold, italic, strike, code, links. What it does not know stays text.
//
// No text makes it slow either: every expression here has one way to match at a place, and spans look ahead kSpanReach
// characters at most.

const kFence = /^ {0,3}(`{3,}|~{3,})[ \t]*([^`\s]*)(?:\s[^`]*)?$/;
const kHeading = /^ {0,3}(#{1,6})[ \t]+(.*)$/;
const kRule = /^ {0,3}([-*_])([ \t]*\1){2,}[ \t]*$/;
const kItem = /^( *)([-*+]|\d{1,9}[.)])([ \t]+|$)(.*)$/;
const kQuote = /^ {0,3}> ?(.*)$/;
const kTableRule = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(\|[ \t]*:?-+:?[ \t]*)*(?:\|[ \t]*)?$/;
const kMaxDepth = 8;

function element(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

// The blocks of a text: {kind, lines, ...}. A block knows nothing of those after it, so a growing text changes only its
// last ones.
export function blocks(text) {
  const lines = text.split("\n");
  const made = [];
  let at = 0;
  while (at < lines.length) {
    const line = lines[at];
    if (line.trim() === "") {
      ++at;
      continue;
    }
    const fence = kFence.exec(line);
    if (fence) {
      const body = [];
      ++at;
      const closing = new RegExp("^ {0,3}" + fence[1][0] + "{" + fence[1].length + ",}[ \\t]*$");
      while (at < lines.length && !closing.test(lines[at])) body.push(lines[at++]);
      const closed = at < lines.length;
      ++at;
      made.push({kind: "code", language: fence[2], source: body.join("\n"), closed});
      continue;
    }
    const heading = kHeading.exec(line);
    if (heading) {
      made.push({kind: "heading", level: heading[1].length, source: withoutClosing(heading[2])});
      ++at;
      continue;
    }
    if (kRule.test(line)) {
      made.push({kind: "rule", source: ""});
      ++at;
      continue;
    }
    if (kQuote.test(line)) {
      const body = [];
      while (at < lines.length && kQuote.test(lines[at])) body.push(kQuote.exec(lines[at++])[1]);
      made.push({kind: "quote", source: body.join("\n")});
      continue;
    }
    if (kItem.test(line)) {
      const body = [];
      while (at < lines.length) {
        const blank = lines[at].trim() === "";
        if (!blank && !kItem.test(lines[at]) && !/^\s/.test(lines[at])) {
          if (body[body.length - 1].trim() === "") break;  // a new paragraph; without a blank it goes on lazily
          if (kFence.test(lines[at]) || kHeading.test(lines[at]) || kRule.test(lines[at]) || kQuote.test(lines[at])) break;
        }
        if (kRule.test(lines[at])) break;
        body.push(lines[at++]);
      }
      made.push({kind: "list", source: body.join("\n").trimEnd()});
      continue;
    }
    if (line.includes("|") && at + 1 < lines.length && lines[at + 1].includes("-") && kTableRule.test(lines[at + 1]) &&
        cells(line).length === cells(lines[at + 1]).length) {
      const body = [];
      while (at < lines.length && lines[at].trim() !== "" && lines[at].includes("|")) body.push(lines[at++]);
      made.push({kind: "table", source: body.join("\n")});
      continue;
    }
    const body = [];
    while (at < lines.length && lines[at].trim() !== "" && !kFence.test(lines[at]) && !kHeading.test(lines[at]) &&
           !kRule.test(lines[at]) && !kQuote.test(lines[at]) && !(kItem.test(lines[at]) && body.length > 0) &&
           !(body.length > 0 && lines[at].includes("|") && kTableRule.test(lines[at + 1] ?? "") && (lines[at + 1] ?? "").includes("|"))) {
      body.push(lines[at++]);
    }
    made.push({kind: "paragraph", source: body.join("\n")});
  }
  return made;
}

// "Title ##" is "Title".
function withoutClosing(heading) {
  const text = heading.trimEnd();
  let end = text.length;
  while (end > 0 && text[end - 1] === "#") --end;
  return end === 0 || /\s/.test(text[end - 1]) ? text.slice(0, end).trimEnd() : text;
}

function cells(line) {
  let text = line.trim();
  if (text.startsWith("|")) text = text.slice(1);
  if (text.endsWith("|") && !text.endsWith("\\|")) text = text.slice(0, -1);
  return text.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function table(source) {
  const lines = source.split("\n");
  const align = cells(lines[1]).map((cell) => (cell.endsWith(":") ? (cell.startsWith(":") ? "center" : "right") : ""));
  const row = (name, line) => {
    const made = element("tr");
    const found = cells(line);
    for (let i = 0; i < align.length; ++i) {
      const cell = element(name, align[i], ...inline(found[i] ?? ""));
      if (name === "th") cell.scope = "col";
      made.append(cell);
    }
    return made;
  };
  const body = element("tbody", "", ...lines.slice(2).map((line) => row("td", line)));
  const made = element("div", "table", element("table", "", element("thead", "", row("th", lines[0])), body));
  made.tabIndex = 0;  // so that a wide one scrolls from the keyboard
  return made;
}

function list(source, depth) {
  const lines = source.split("\n");
  const first = kItem.exec(lines[0]);
  const ordered = /\d/.test(first[2]);
  const made = element(ordered ? "ol" : "ul");
  if (ordered && parseInt(first[2], 10) !== 1) made.start = parseInt(first[2], 10);
  let body = [], indent = 0, loose = false;
  const flush = () => {
    if (body.length === 0) return;
    const item = element("li");
    const inner = blocks(body.join("\n"));
    inner.forEach((block, i) => {
      if (i === 0 && block.kind === "paragraph" && !loose) {
        item.append(...inline(task(item, block.source)));
      } else {
        item.append(render(block, depth + 1));
      }
    });
    made.append(item);
    body = [];
  };
  for (const line of lines) {
    const found = kItem.exec(line);
    if (found && found[1].length < first[1].length + 2 && (body.length === 0 || found[1].length < indent)) {
      flush();
      indent = found[1].length + found[2].length + Math.min(Math.max(found[3].length, 1), 4);
      body.push(found[4]);
    } else {
      const space = /^ */.exec(line)[0].length;
      body.push(line.slice(Math.min(space, indent)));
    }
  }
  flush();
  return made;
}

// "[x] done" at the start of an item.
function task(item, source) {
  const found = /^\[([ xX])\] (.*)$/s.exec(source);
  if (!found) return source;
  item.className = "task";
  const box = element("input");
  box.type = "checkbox";
  box.disabled = true;
  box.checked = found[1] !== " ";
  item.append(box);
  return found[2];
}

function code(block) {
  const head = element("div", "code-head", element("span", "", block.language || "text"));
  const copy = element("button", "copy", "Copy");
  copy.type = "button";
  head.append(copy);
  const body = element("pre", "", element("code", "", block.source));
  body.tabIndex = 0;
  const made = element("div", "code", head, body);
  copy.addEventListener("click", () => copyText(body.textContent, copy));
  return made;
}

export async function copyText(text, button) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {  // over plain http on another host there is no clipboard; the old way still works
    const area = element("textarea", "offscreen");
    area.value = text;
    document.body.append(area);
    area.select();
    button.textContent = document.execCommand("copy") ? "Copied" : "Not allowed";
    area.remove();
    button.focus();
  }
  setTimeout(() => (button.textContent = before), 1200);
}

export function render(block, depth = 0) {
  if (depth > kMaxDepth) return element("p", "", block.source);
  switch (block.kind) {
    case "code": return code(block);
    case "heading": return element("h" + Math.min(block.level + 2, 6), "", ...inline(block.source));
    case "rule": return element("hr");
    case "quote": return element("blockquote", "", ...blocks(block.source).map((inner) => render(inner, depth + 1)));
    case "list": return list(block.source, depth);
    case "table": return table(block.source);
    default: return element("p", "", ...inline(block.source));
  }
}

// Inline spans, leftmost first. Anything unclosed stays as it was written.
const kSpanReach = 1500;
const kInside = `[\\s\\S]{0,${kSpanReach}}?`;
const kSpan = new RegExp([
  "(?<escape>\\\\[\\\\`*_{}\\[\\]()#+\\-.!|~<>])",
  "(?<tick>`{1,9})(?<code>[^`]|[^`]" + kInside + "[^`])\\k<tick>(?!`)",
  "\\*\\*(?<bold>\\S|\\S" + kInside + "\\S)\\*\\*(?!\\*)",
  "(?<![\\p{L}\\p{N}_])__(?<bold2>\\S|\\S" + kInside + "\\S)__(?![\\p{L}\\p{N}_])",
  "\\*(?<italic>[^\\s*]|[^\\s*]" + kInside + "[^\\s*])\\*(?!\\*)",
  "(?<![\\p{L}\\p{N}_])_(?<italic2>[^\\s_]|[^\\s_]" + kInside + "[^\\s_])_(?![\\p{L}\\p{N}_])",
  "~~(?<strike>\\S|\\S" + kInside + "\\S)~~",
  "(?<image>!?)\\[(?<label>[^\\[\\]]{0,1500})\\]\\((?<target>[^\\s()]{1,1500}(?:\\([^\\s()]{0,300}\\))?)(?:[ \\t]{1,9}\"[^\"]{0,300}\")?\\)",
  "(?<bare>https?:\\/\\/[^\\s<>()\\[\\]\"'`]+[^\\s<>()\\[\\]\"'`.,;:!?])",
].join("|"), "gu");

export function inline(text, depth = 0) {
  const made = [];
  const plain = (piece) => {
    piece.split("\n").forEach((line, i) => {
      if (i > 0) made.push(element("br"));
      if (line) made.push(document.createTextNode(line));
    });
  };
  if (depth > kMaxDepth || text.length > 20000) {
    plain(text);
    return made;
  }
  let at = 0;
  for (const found of text.matchAll(kSpan)) {
    const g = found.groups;
    plain(text.slice(at, found.index));
    at = found.index + found[0].length;
    if (g.escape) {
      plain(g.escape[1]);
    } else if (g.code !== undefined) {
      made.push(element("code", "", g.code.replace(/^ (.*\S.*) $/s, "$1")));
    } else if (g.bold ?? g.bold2) {
      made.push(element("strong", "", ...inline(g.bold ?? g.bold2, depth + 1)));
    } else if (g.italic ?? g.italic2) {
      made.push(element("em", "", ...inline(g.italic ?? g.italic2, depth + 1)));
    } else if (g.strike) {
      made.push(element("del", "", ...inline(g.strike, depth + 1)));
    } else {
      const link = anchor(g.bare ?? g.target, g.bare ?? ((g.image ? "picture: " : "") + (g.label || g.target)));
      if (link) made.push(link);
      else plain(found[0]);
    }
  }
  plain(text.slice(at));
  return made;
}

function anchor(target, label) {
  let url;
  try {
    url = new URL(target);
  } catch {
    return null;
  }
  if (!["http:", "https:", "mailto:"].includes(url.protocol)) return null;
  const made = element("a", "", label);
  made.href = url.href;
  made.target = "_blank";
  made.rel = "noopener noreferrer nofollow";
  made.title = url.href;
  return made;
}

// A place where a growing text is shown: show() changes only the blocks that differ from the last time.
export class Rendered {
  constructor(place) {
    this.place = place;
    this.clear();
  }
  // Something else was put there: the next show() draws all of it.
  clear() {
    this.text = null;
    this.keys = ["\u0000"];
  }
  show(text) {
    if (text === this.text) return;
    this.text = text;
    const made = blocks(text);
    const keys = made.map((block) => [block.kind, block.level ?? block.language ?? "", block.source].join("\u0000"));
    let same = 0;
    while (same < keys.length && same < this.keys.length && keys[same] === this.keys[same]) ++same;
    // Code that grows keeps its node, so that its place and a selection in it stay.
    const last = this.place.children[same];
    if (last && made[same]?.kind === "code" && last.className === "code" && keys.length === this.keys.length) {
      last.querySelector("pre code").textContent = made[same].source;
      last.querySelector(".code-head span").textContent = made[same].language || "text";
      ++same;
    }
    while (this.place.children.length > same) this.place.lastElementChild.remove();
    for (let i = same; i < made.length; ++i) this.place.append(render(made[i]));
    this.keys = keys;
  }
}
