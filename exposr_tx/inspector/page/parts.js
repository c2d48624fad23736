// What the page is made of: elements, and values as they are read by people.
//
// What visitors and targets have sent is only ever put into text nodes, and the src of images:
// never into markup.

// An element with properties and children; strings become text nodes, empty children nothing.
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

export function bytes(size) {
  if (size < 1000) return `${size} B`;
  if (size < 1e6) return `${(size / 1e3).toFixed(size < 1e4 ? 1 : 0)} kB`;
  return `${(size / 1e6).toFixed(size < 1e7 ? 1 : 0)} MB`;
}

export function duration(ms) {
  if (ms === null) return "";
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  return ms < 10000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

export function timings(x) {
  const parts = Object.entries(x.timings).filter(([, ms]) => ms !== null);
  if (!parts.length) return "";
  const total = parts.reduce((sum, [, ms]) => sum + ms, 0) || 1;
  const bar = element("div", { className: "bar" });
  for (const [name, ms] of parts) {
    const span = element("span", { className: name });
    span.style.width = `${(100 * ms) / total}%`;
    bar.append(span);
  }
  const said = parts.map(([name, ms]) => `${name} ${duration(ms)}`).join(", ");
  bar.setAttribute("role", "img");
  bar.setAttribute("aria-label", `Timings: ${said}`);
  return element(
    "div",
    {},
    bar,
    element(
      "div",
      { className: "legend" },
      parts.map(([name, ms]) => element("span", {}, element("i", { className: name }), `${name} ${duration(ms)}`)),
    ),
  );
}

export function pairs(list) {
  const rows = list.map(([name, value]) =>
    element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, value)),
  );
  return element("table", {}, element("tbody", {}, rows));
}

export function bodyFacts(part) {
  return [bytes(part.size), part.type, part.coding].filter(Boolean).join(", ");
}

export function body(part) {
  const made = [];
  if (part.kept < part.size) made.push(note(`Only the first ${bytes(part.kept)} were kept.`));
  if (part.problem) made.push(note(part.problem));
  if (part.kind === "image") {
    made.push(element("img", { className: "picture", src: part.image, alt: "The body, an image" }));
  } else if (part.kind === "form") {
    made.push(pairs(part.form));
  } else if (part.kind === "bytes") {
    made.push(element("pre", { className: "hex" }, hex(part.base64)));
    if (part.left) made.push(note("The rest is not shown here; Save the body has all that was kept."));
  } else if (part.text) {
    made.push(element("pre", {}, part.kind === "json" ? indented(part.text) : part.text));
  }
  return made;
}

export const note = (text) => element("p", { className: "note" }, text);

const MOST_LETTERS = 4e6; // beyond, brackets in brackets keep a browser busy for half a minute

// JSON on many lines, with each number and string as it was written; as it is where it is none,
// or would become too long.
function indented(text) {
  try {
    JSON.parse(text.replace(/^\uFEFF/, ""));
  } catch {
    return text;
  }
  const tokens = text.match(/"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g);
  const lines = [];
  let depth = 0;
  let line = "";
  let letters = 0;
  const turn = () => {
    letters += line.length + 1;
    lines.push(line);
    line = "  ".repeat(Math.min(depth, 30));
  };
  for (const [at, token] of tokens.entries()) {
    if (letters > MOST_LETTERS) return text;
    if (token === "{" || token === "[") {
      depth += 1;
      line += token;
      if (!"}]".includes(tokens[at + 1])) turn();
    } else if (token === "}" || token === "]") {
      depth -= 1;
      if (!"{[".includes(tokens[at - 1])) turn();
      line += token;
    } else if (token === ",") {
      line += token;
      turn();
    } else {
      line += token === ":" ? ": " : token;
    }
  }
  return [...lines, line].join("\n");
}

export function hex(base64) {
  const data = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const lines = [];
  for (let at = 0; at < data.length; at += 16) {
    const part = [...data.slice(at, at + 16)];
    const numbers = part.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
    const letters = part.map((byte) => (byte > 31 && byte < 127 ? String.fromCharCode(byte) : "·")).join("");
    lines.push(`${at.toString(16).padStart(6, "0")}  ${numbers.padEnd(47)}  ${letters}`);
  }
  return lines.join("\n");
}
