// Two methods problem by problem. Files are read as scripts, for a page on disk may not fetch; texts are set as text.
const PAGE = 40;
const source = document.getElementById("tables");
const tables = source ? JSON.parse(source.textContent) : [];
const data = new Map(), waiting = new Map();
const by = (id) => document.getElementById(id);
let rows = [], kind = "a", shown = 0;

window.boardData = (name, items) => {
  data.set("data/" + name, items);
  for (const go of waiting.get("data/" + name) || []) go(items);
  waiting.delete("data/" + name);
};
function load(file) {
  if (data.has(file)) return Promise.resolve(data.get(file));
  return new Promise((go, stop) => {
    if (waiting.has(file)) { waiting.get(file).push(go); return; }
    waiting.set(file, [go]);
    const script = document.createElement("script");
    script.src = file;
    script.onerror = () => { waiting.delete(file); stop(new Error(file + " could not be read; is the folder complete?")); };
    document.head.append(script);
  });
}
function node(tag, words, name) {
  const made = document.createElement(tag);
  if (words !== undefined && words !== null) made.textContent = words;
  if (name) made.className = name;
  return made;
}
const mean = (scores) => { const s = scores.filter((x) => x !== null); return s.length ? s.reduce((x, y) => x + y) / s.length : null; };
const scale = () => tables[by("table").value].scale;
const figure = (x) => x === null ? "none" : Number((scale().times * x).toFixed(scale().digits)).toString();

function fill() {
  const table = tables[by("table").value];
  for (const id of ["a", "b"]) {
    by(id).replaceChildren(...table.rows.map((row, i) => {
      const option = node("option", row.label);
      option.value = i;
      return option;
    }));
  }
  by("a").value = 0;
  by("b").value = 1;
}
function verdict(item) {
  const score = mean(item.scores);
  const counts = scale().counts;
  const name = score === null ? "error" : !counts ? "graded" : score >= 1 ? "right" : score <= 0 ? "wrong" : "partly";
  return node("span", name + (item.scores.length > 1 || name === "graded" ? " " + figure(score) : ""), "tag " + name);
}
function side(label, item) {
  const made = node("div"), head = node("h4", label);
  head.append(verdict(item));
  const text = node("pre", item.text);
  made.append(head, text, node("p", item.reason, "small muted"));
  if (item.extracted !== null) { const p = node("p", "graded: ", "small muted"); p.append(node("code", item.extracted)); made.append(p); }
  return made;
}
function card(row, a, b) {
  const item = node("li", null, "item"), details = node("details"), summary = node("summary"), body = node("div", null, "body pair");
  summary.append(node("span", row.id, "id"), node("span", "A " + figure(row.x), "tag"), node("span", "B " + figure(row.y), "tag"), node("span", row.a.reason, "why"));
  details.append(summary, body);
  details.addEventListener("toggle", () => {
    if (details.open && !body.firstChild) body.append(side("A · " + a.label, row.a), side("B · " + b.label, row.b));
  });
  item.append(details);
  return item;
}
function list(restart) {
  const table = tables[by("table").value], a = table.rows[by("a").value], b = table.rows[by("b").value];
  const wanted = rows.filter((row) => kind === "all" || row.kind === kind);
  if (restart) { by("items").replaceChildren(); shown = 0; }
  by("items").append(...wanted.slice(shown, shown + PAGE).map((row) => card(row, a, b)));
  shown = Math.min(shown + PAGE, wanted.length);
  by("more").hidden = shown >= wanted.length;
  for (const button of all("button", by("which"))) button.setAttribute("aria-pressed", String(button.value === kind));
}
async function compare() {
  const place = by("table").value, table = tables[place];
  const a = table.rows[by("a").value], b = table.rows[by("b").value];
  const now = [place, by("a").value, by("b").value].join("-");
  history.replaceState(null, "", "#" + now);
  by("said").textContent = "reading …";
  let left, right;
  try { [left, right] = await Promise.all([load(a.file), load(b.file)]); }
  catch (error) { by("said").textContent = error.message; return; }
  if (now !== [by("table").value, by("a").value, by("b").value].join("-")) return;  // chosen anew meanwhile
  const shared = Object.keys(left).filter((id) => Object.hasOwn(right, id));
  rows = shared.map((id) => {
    const x = mean(left[id].scores), y = mean(right[id].scores);
    const kind = x === null || y === null || x === y ? "same" : x > y === scale().higher_is_better ? "a" : "b";
    return { id, x, y, a: left[id], b: right[id], kind };
  });
  const count = { a: 0, b: 0, same: 0, all: rows.length };
  for (const row of rows) count[row.kind] += 1;
  const both = rows.filter((row) => row.x !== null && row.y !== null);
  const gap = both.reduce((sum, row) => sum + row.y - row.x, 0) / (both.length || 1);
  by("said").textContent = "On " + rows.length + " problems, A (" + a.label + ", " + a.seeds.length + " seed" + (a.seeds.length === 1 ? "" : "s") +
    ") is better on " + count.a + ", B (" + b.label + ", " + b.seeds.length + " seed" + (b.seeds.length === 1 ? "" : "s") + ") on " + count.b +
    "; " + count.same + " are equal. B − A: " + (gap < 0 ? "−" : "+") + Math.abs(scale().times * gap).toFixed(scale().digits) + " " + scale().points + (scale().higher_is_better ? "." : ", lower is better.");
  by("command").textContent = "harness compare " + a.name + " " + b.name + " --task " + table.task;
  by("tally").replaceChildren(...["a", "same", "b"].map((key) => { const part = node("span", null, key); part.style.flexGrow = count[key]; return part; }));
  const names = { a: "A better", b: "B better", same: "equal", all: "all" };
  by("which").replaceChildren(...Object.keys(names).map((key) => {
    const button = node("button", names[key] + " " + count[key]);
    button.type = "button";
    button.value = key;
    button.addEventListener("click", () => { kind = key; list(true); });
    return button;
  }));
  if (!count[kind]) kind = count.a ? "a" : count.b ? "b" : "all";
  list(true);
}
if (tables.length) {
  const [place, a, b] = location.hash.slice(1).split("-").map(Number);
  by("table").value = tables[place] ? place : 0;
  fill();
  const held = tables[by("table").value].rows;
  if (held[a] && held[b]) { by("a").value = a; by("b").value = b; }
  by("table").addEventListener("change", () => { fill(); compare(); });
  for (const id of ["a", "b"]) by(id).addEventListener("change", compare);
  by("swap").addEventListener("click", () => { const kept = by("a").value; by("a").value = by("b").value; by("b").value = kept; compare(); });
  by("more").addEventListener("click", () => list(false));
  by("choose").addEventListener("submit", (event) => event.preventDefault());
  compare();
}
