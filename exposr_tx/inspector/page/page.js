// The inspector's page: a list that follows the feed, the details of one exchange, replays.

import { body, bodyFacts, bytes, duration, element, hex, note, pairs, timings } from "./parts.js";

const MOST = 500; // exchanges in the list; the client keeps no more
const $ = (id) => document.getElementById(id);
const token = takeToken();

const exchanges = new Map(); // id -> {summary, row}
const held = new Map(); // what came while the list is paused
let chosen = "";
let shown = null; // the details of the chosen one
let secrets = false;
let paused = false;
let matching = null; // ids that the filter finds; null without one
let query = 0; // counts the filter's questions, as answers may overtake each other

// The address has the token once; it is kept for reloads of this tab and taken out of sight.
function takeToken() {
  const address = new URL(location.href);
  const given = address.searchParams.get("token") || new URLSearchParams(address.hash.slice(1)).get("token");
  if (given) {
    sessionStorage.setItem("token", given);
    history.replaceState(null, "", address.pathname);
  }
  return given || sessionStorage.getItem("token") || "";
}

// -- asking ---------------------------------------------------------------------------------

const ENDED = "the client has ended";
const ended = () => {
  throw new Error(ENDED);
};

async function ask(path, options = {}) {
  const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };
  const answer = await fetch(path, { ...options, headers, cache: "no-store" }).catch(ended);
  if (!answer.ok) {
    const problem = await answer.json().catch(() => ({}));
    throw new Error(problem.message || `the client answers ${answer.status}`);
  }
  return answer;
}

const json = async (path, options) => (await ask(path, options)).json();

async function save(path, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await (await ask(path)).blob());
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// What a button or a key does; what goes wrong is told.
function doing(work) {
  return async (...given) => {
    try {
      await work(...given);
    } catch (problem) {
      tell(problem.message);
    }
  };
}

let telling = 0;
function tell(text) {
  clearTimeout(telling);
  $("notice").textContent = text;
  telling = setTimeout(() => ($("notice").textContent = ""), 6000);
}

function button(text, work, properties = {}) {
  const made = element("button", { type: "button", ...properties }, text);
  made.addEventListener("click", doing(work));
  return made;
}

// -- the list -------------------------------------------------------------------------------

function label(summary) {
  if (summary.state === "failed") return summary.status ? `${summary.status} ✕` : "failed";
  return summary.status ? String(summary.status) : "…";
}

function look(summary) {
  if (summary.state === "failed") return "failed";
  return summary.status ? `s${String(summary.status)[0]}` : "running";
}

function draw(row, summary) {
  const size = summary.frames ? `${summary.frames} msg` : bytes(summary.response_size);
  row.replaceChildren(
    element("span", { className: "method" }, summary.method),
    element(
      "span",
      { className: "path", title: summary.target },
      summary.replay_of ? element("span", { className: "badge" }, "replay") : "",
      summary.target || summary.error,
    ),
    element("span", { className: look(summary) }, label(summary)),
    element("span", {}, summary.state === "running" ? "…" : duration(summary.duration)),
    element("span", {}, size),
  );
}

function put(summary) {
  let entry = exchanges.get(summary.id);
  if (!entry) {
    const row = element("li", { className: "row", id: `x${summary.id}`, role: "option" });
    row.setAttribute("aria-selected", String(summary.id === chosen)); // it was before a new feed, too
    row.addEventListener("click", doing(() => choose(summary.id)));
    entry = { row };
    exchanges.set(summary.id, entry);
    $("list").prepend(row);
    while (exchanges.size > MOST) drop(exchanges.keys().next().value);
  }
  entry.summary = summary;
  draw(entry.row, summary);
  entry.row.hidden = !passes(summary);
  if (entry.row.hidden) doubt(summary);
  if (summary.id === chosen) refresh();
}

function drop(id) {
  exchanges.get(id)?.row.remove();
  exchanges.delete(id);
  matching?.delete(id);
}

function forget() {
  [...exchanges.keys()].forEach(drop);
  held.clear();
}

function count() {
  const visible = [...exchanges.values()].filter((entry) => !entry.row.hidden).length;
  $("empty").hidden = visible > 0;
  $("empty").textContent = exchanges.size
    ? "Nothing passes the filter."
    : "Nothing yet. Requests that come through the tunnel appear here.";
  $("pause").textContent = paused && held.size ? `Go on (${held.size} new)` : paused ? "Go on" : "Pause";
}

// By what the list shows; what is within is looked at by the client, see search() and judge().
function passes(summary) {
  if (matching === null || matching.has(summary.id)) return true;
  const status = String(summary.status || "");
  const near = [summary.method.toLowerCase(), summary.state, status, status && `${status[0]}xx`];
  const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  return words.every((word) => near.includes(word) || summary.target.toLowerCase().includes(word));
}

async function search() {
  const words = $("filter").value.trim();
  const mine = ++query;
  matching = words ? new Set() : null;
  if (words) {
    const found = await json(`api/exchanges?q=${encodeURIComponent(words)}`);
    if (mine !== query) return;
    matching = new Set(found.exchanges.map((summary) => summary.id));
  }
  for (const { row, summary } of exchanges.values()) row.hidden = !passes(summary);
  count();
}

let typing = 0;
for (const kind of ["input", "search"]) {
  // Escape clears the field without an input.
  $("filter").addEventListener(kind, () => {
    clearTimeout(typing);
    typing = setTimeout(doing(search), 200);
  });
}

// What comes while there is a filter, and does not pass it by what the list shows.
let unjudged = Infinity; // the first id of it
function doubt(summary) {
  if (unjudged === Infinity) setTimeout(doing(judge), 300);
  unjudged = Math.min(unjudged, Number(summary.id));
}

async function judge() {
  const from = unjudged;
  const mine = query;
  unjudged = Infinity;
  const words = $("filter").value.trim();
  if (matching === null || !words) return;
  const found = await json(`api/exchanges?q=${encodeURIComponent(words)}&from=${from}`);
  if (mine !== query) return;
  for (const { id } of found.exchanges) {
    matching.add(id);
    if (exchanges.has(id)) exchanges.get(id).row.hidden = false;
  }
  count();
}

function pause() {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", String(paused));
  if (!paused) {
    held.forEach(put);
    held.clear();
  }
  count();
}

// -- the feed -------------------------------------------------------------------------------

function live(state, text) {
  $("live").className = state;
  $("live").textContent = text;
}

function take(event) {
  if (event.cleared) forget();
  for (const summary of event.exchanges) {
    if (paused) held.set(summary.id, summary);
    else put(summary);
  }
  while (held.size > MOST) held.delete(held.keys().next().value);
  if (event.missed) tell(`${event.missed} exchanges came and went too quickly to be shown`);
  count();
}

async function listen() {
  const answer = await ask("api/events");
  live("on", "live");
  about();
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read().catch(ended);
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) if (event.startsWith("data: ")) take(JSON.parse(event.slice(6)));
  }
}

async function follow() {
  if (!token) {
    live("off", "open the address that the client prints, with its token");
    return;
  }
  for (;;) {
    try {
      await listen();
      live("off", ENDED);
    } catch (problem) {
      live("off", problem.message);
    }
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

async function about() {
  const { tunnels } = await json("api/about");
  $("about").textContent = tunnels.join(", ");
  document.title = tunnels.length ? `${tunnels.join(", ")} – Inspector` : "Inspector";
}

// -- details --------------------------------------------------------------------------------

const path = (id, more = "") => `api/exchanges/${id}${more}`;

async function choose(id) {
  if (!exchanges.has(id)) return;
  exchanges.get(chosen)?.row.setAttribute("aria-selected", "false");
  chosen = id;
  const { row } = exchanges.get(id);
  row.setAttribute("aria-selected", "true");
  row.scrollIntoView({ block: "nearest" });
  $("list").setAttribute("aria-activedescendant", row.id);
  await load();
  $("details").scrollTop = 0;
}

async function load() {
  const id = chosen;
  const found = await json(path(id, secrets ? "?secrets=show" : ""));
  if (id !== chosen) return;
  shown = { ...found, messages: shown?.id === id ? shown.messages : null };
  render();
  if (found.status === 101) await messages();
}

// An exchange that is looked at has changed: once more when the last look is over.
let looking = false;
let again = false;
async function refresh() {
  again = true;
  if (looking) return;
  looking = true;
  while (again) {
    again = false;
    try {
      if (shown?.id === chosen && shown.status === 101 && shown.state === "running") await messages();
      else await load();
    } catch {
      break; // it is kept no more
    }
  }
  looking = false;
}

function render() {
  const x = shown;
  const about = [
    `${new Date(x.started * 1000).toLocaleTimeString()}`,
    x.visitor && `from ${x.visitor}`,
    x.tunnel && `by ${x.tunnel}`,
    x.replay_of && `replay of ${x.replay_of}`,
  ].filter(Boolean);
  const replayable = { disabled: Boolean(x.replayable), title: x.replayable ? `Not possible: ${x.replayable}` : "" };
  $("details").replaceChildren(
    element("h2", {}, `${x.method} ${x.target}`.trim() || "No request"),
    element("p", { className: "facts" }, element("b", { className: look(x) }, answerLine(x)), ` · ${about.join(" · ")}`),
    x.error ? element("p", { className: "error" }, x.error) : "",
    element(
      "div",
      { className: "tools" },
      button("Replay", replay, { ...replayable, id: "replay" }),
      button("Edit and replay", edit, { ...replayable, id: "edit" }),
      button("Copy as curl", copy, { id: "curl" }),
      button("Download HAR", () => save(har(x.id), `exposr-${x.id}.har`), { id: "har" }),
      toggle(),
    ),
    timings(x),
    element("section", { id: "messages", hidden: x.status !== 101 }),
    element(
      "div",
      { className: "sides" },
      side("Request", x.request, x.id, "request"),
      x.response ? side("Response", x.response, x.id, "response") : "",
    ),
  );
  if (x.messages) drawMessages();
}

function answerLine(x) {
  if (x.response) return x.response.line.replace(/^HTTP\/\S+ /, "");
  return x.state === "running" ? "waiting for the answer" : "no answer";
}

function toggle() {
  const made = button(secrets ? "Hide secrets" : "Show secrets", async () => {
    secrets = !secrets;
    if (shown) shown.messages = null; // they are to be read anew as well
    await load();
  });
  made.setAttribute("aria-pressed", String(secrets));
  return made;
}

function side(title, part, id, which) {
  return element(
    "section",
    {},
    element("h3", {}, title),
    part.query?.length ? [element("h4", {}, "Query"), pairs(part.query)] : [],
    element("h4", {}, "Headers"),
    pairs(part.fields),
    part.body.size ? [element("h4", {}, `Body, ${bodyFacts(part.body)}`), ...body(part.body)] : [],
    part.body.kept
      ? element("p", { className: "note" }, button("Save the body", () => save(path(id, `/${which}-body`), `${id}-${which}.bin`)))
      : "",
    part.trailers.length ? [element("h4", {}, "Trailers"), pairs(part.trailers)] : [],
  );
}

// -- messages of a websocket ----------------------------------------------------------------

async function messages() {
  const id = chosen;
  const known = shown.messages;
  const after = known?.next ?? 0;
  const found = await json(path(id, `/frames?after=${after}${secrets ? "&secrets=show" : ""}`));
  if (shown.id !== id) return;
  if (shown.messages !== known) return messages(); // others have come meanwhile, or all are read anew
  const before = known?.frames ?? [];
  shown.messages = { ...found, frames: [...before, ...found.frames].slice(-1000) };
  drawMessages();
}

function drawMessages() {
  const { frames, lost } = shown.messages;
  const head = ["Direction", "Time", "Kind", "Size", "Message"];
  const rows = frames.map((frame) =>
    element(
      "tr",
      {},
      element("td", {}, frame.sent ? "▲ to target" : "▼ to visitor"),
      element("td", {}, duration(frame.at)),
      element("td", {}, frame.kind),
      element("td", {}, bytes(frame.size)),
      element("td", {}, frame.base64 === undefined ? frame.text : hex(frame.base64), frame.whole ? "" : " …"),
    ),
  );
  $("messages").replaceChildren(
    element("h3", {}, `Messages, ${frames.length + lost}`),
    lost ? note(`The first ${lost} are not kept any more.`) : "",
    element(
      "table",
      { className: "frames" },
      element("thead", {}, element("tr", {}, head.map((name) => element("th", { scope: "col" }, name)))),
      element("tbody", {}, rows),
    ),
  );
}

// -- replay ---------------------------------------------------------------------------------

async function send(asked) {
  const made = await json("api/replay", { method: "POST", body: JSON.stringify(asked) });
  if (!exchanges.has(made.id)) put(made);
  count();
  await choose(made.id);
  tell(`Sent again, as ${made.id}`);
}

async function replay() {
  if (shown && !shown.replayable) await send({ id: shown.id });
}

// The body in the editor as it was; whether its lines end in CR LF, which an editor takes away; and
// whether it was decoded, so that it is not to be sent as it came.
let unedited = "";
let returns = false;
let decoded = false;
const framing = new Set(["content-length", "transfer-encoding", "trailer", "expect"]);

async function edit() {
  if (!shown || shown.replayable) return;
  const whole = await json(path(shown.id, "?secrets=show"));
  const { fields, body: part } = whole.request;
  const editable = part.text !== undefined && part.kept === part.size && !part.problem;
  // A body that was shown decoded is sent as it is shown.
  const left = new Set(editable && part.coding ? [...framing, "content-encoding"] : framing);
  $("edit-method").value = whole.method;
  $("edit-target").value = whole.target;
  $("edit-fields").value = fields
    .filter(([name]) => !left.has(name.toLowerCase()))
    .map(([name, value]) => `${name}: ${value}`)
    .join("\n");
  $("edit-body").value = editable ? part.text : "";
  unedited = $("edit-body").value;
  returns = editable && part.text.includes("\r\n");
  decoded = editable && Boolean(part.coding);
  $("edit-body").disabled = part.size > 0 && !editable;
  $("edit-note").textContent = $("edit-body").disabled
    ? "The body is no text that can be edited here; it is sent as it was."
    : "The length is made anew. What a signature covers does not hold any more once it is changed." +
      (returns && /[\r\n]/.test(part.text.replaceAll("\r\n", ""))
        ? " Lines of this body end in different ways; all will end in CR LF once it is changed."
        : "");
  $("edit-problem").textContent = "";
  $("editor").dataset.id = whole.id;
  $("editor").showModal();
  $("edit-target").focus();
}

function edited() {
  const headers = $("edit-fields").value.split("\n").filter((line) => line.trim()).map((line) => {
    const at = line.indexOf(":");
    if (at < 1) throw new Error(`${line}: must be like Name: value`);
    return [line.slice(0, at).trim(), line.slice(at + 1).trim()];
  });
  const changes = { method: $("edit-method").value, target: $("edit-target").value, headers };
  const text = $("edit-body").value;
  if (text !== unedited || decoded) changes.body = returns ? text.replaceAll("\n", "\r\n") : text;
  return changes;
}

$("editor").querySelector("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("edit-problem").textContent = "";
  $("edit-send").disabled = true; // pressed twice, or a key held down, it is sent once
  try {
    await send({ id: $("editor").dataset.id, edited: edited() });
    $("editor").close();
  } catch (problem) {
    $("edit-problem").textContent = problem.message; // here, as the dialog lies over the rest
  } finally {
    $("edit-send").disabled = false;
  }
});
$("edit-cancel").addEventListener("click", () => $("editor").close());

// -- copies ---------------------------------------------------------------------------------

const har = (id) => (id ? path(id, "/har") : "api/har") + (secrets ? "?secrets=show" : "");

async function copy() {
  if (!shown) return;
  const line = await (await ask(path(shown.id, "/curl"))).text();
  await navigator.clipboard.writeText(line);
  tell("Copied. The line holds the request's secrets.");
}

// -- keys and buttons -----------------------------------------------------------------------

function step(by) {
  const visible = [...$("list").children].filter((row) => !row.hidden);
  const at = visible.findIndex((row) => row.id === `x${chosen}`);
  const next = visible[at < 0 ? 0 : Math.min(Math.max(at + by, 0), visible.length - 1)];
  return next && choose(next.id.slice(1));
}

const keys = {
  ArrowDown: () => step(1),
  ArrowUp: () => step(-1),
  j: () => step(1),
  k: () => step(-1),
  r: replay,
  e: edit,
  c: copy,
  p: pause,
  "/": () => $("filter").focus(),
  Enter: () => $("details").focus(),
};
// A key that is held down goes on choosing; nothing else is meant to happen thirty times a second.
const steps = new Set(["ArrowDown", "ArrowUp", "j", "k"]);

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("editor").open) return;
  if (event.target.matches("input, textarea")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const scrolls = event.key.startsWith("Arrow") && $("details").contains(event.target);
  const presses = event.key === "Enter" && event.target.matches("button");
  if (!(event.key in keys) || scrolls || presses) return;
  event.preventDefault();
  if (!event.repeat || steps.has(event.key)) doing(keys[event.key])();
});

$("pause").addEventListener("click", pause);
$("clear").addEventListener("click", doing(() => ask("api/exchanges", { method: "DELETE" })));
$("all-har").addEventListener("click", doing(() => save(har(""), "exposr.har")));

follow();
