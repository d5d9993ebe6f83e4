"use strict";
// What all pages share: data files, sorting, views, copying. Texts of models are set as text, never as markup.
const up = document.documentElement.dataset.up;
const by = (id) => document.getElementById(id);
function all(selector, root) { return Array.from((root || document).querySelectorAll(selector)); }
function node(tag, words, name) {
  const made = document.createElement(tag);
  if (words !== undefined && words !== null) made.textContent = words;
  if (name) made.className = name;
  return made;
}

// Data files are scripts, because a page on disk may not fetch. Each hands over gzipped JSON in base64.
const files = new Map();
window.boardData = (name, inside) => { const known = files.get(name); if (known) known.arrived(inside); };
async function unpack(inside) {
  const bytes = Uint8Array.from(atob(inside), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}
function load(name) {
  if (!files.has(name)) {
    let arrived, stop;
    const inside = new Promise((go, no) => { arrived = go; stop = no; });
    files.set(name, { arrived, value: inside.then(unpack) });
    const script = document.createElement("script");
    script.src = up + "data/" + encodeURIComponent(name) + ".js";
    script.onerror = () => stop(new Error("data/" + name + ".js could not be read; is the folder complete?"));
    document.head.append(script);
  }
  return files.get(name).value;
}

// Sorting: what is missing comes last either way.
function sortBy(header) {
  const table = header.closest("table"), index = Array.from(header.parentNode.children).indexOf(header);
  const kind = header.querySelector("button").dataset.kind, before = header.getAttribute("aria-sort");
  const up = before ? before !== "ascending" : kind === "text" || kind === "rank";
  for (const other of header.parentNode.children) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", up ? "ascending" : "descending");
  const body = table.querySelector("tbody.sorted"), value = (row) => row.children[index].dataset.value;
  const rows = Array.from(body.rows).sort((a, b) => {
    const x = value(a), y = value(b);
    if (x === "" || y === "") return (x === "") - (y === "");
    const order = kind === "text" ? x.localeCompare(y) : Number(x) - Number(y);
    return up ? order : -order;
  });
  body.append(...rows);
}
for (const button of all("table.sortable thead button")) button.addEventListener("click", () => sortBy(button.closest("th")));

// Long tables begin folded; finding a method, or a link to a row, unfolds them.
for (const body of all("table.sortable tbody.sorted")) {
  if (body.rows.length <= 45) continue;
  const button = node("button", "Show all " + body.rows.length + " rows", "whole-table");
  button.type = "button";
  button.addEventListener("click", () => unfold(body));
  body.classList.add("folded");
  body.closest(".sheet").after(button);
}
function unfold(body) {
  body.classList.remove("folded");
  const button = body.closest(".sheet").nextElementSibling;
  if (button.matches(".whole-table")) button.hidden = true;
}
if (by("by-method")) by("by-method").addEventListener("input", (event) => {
  const part = event.target.value.trim().toLowerCase();
  if (part) all("tbody.folded").forEach(unfold);
  for (const row of all("table.sortable tbody tr")) row.hidden = !row.querySelector("th").dataset.value.toLowerCase().includes(part);
});

// Views: which rows are shown. The address keeps the view, and a row after it.
function showView(kind) {
  const group = by("views");
  if (!group || !all("button", group).some((b) => b.value === kind)) return;
  for (const button of all("button", group)) button.setAttribute("aria-pressed", String(button.value === kind));
  for (const part of all(".view[data-view]")) part.hidden = part.dataset.view !== kind;
  document.dispatchEvent(new Event("view"));
}
function goTo(hash) {
  const place = decodeURIComponent(hash.replace(/^#/, "")), kind = place.split("/")[0];
  if (!kind) return;
  showView(kind);
  const row = by(place);
  if (row && row.matches("tr")) {
    for (const other of all("tr.here")) other.classList.remove("here");
    row.classList.add("here");
    if (row.parentNode.matches(".folded")) unfold(row.parentNode);
    row.scrollIntoView({ block: "center" });
  }
}
if (by("views")) {
  by("views").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) { showView(button.value); history.replaceState(null, "", "#" + button.value); }
  });
}
if (document.querySelector(".view")) {
  goTo(location.hash);
  window.addEventListener("hashchange", () => goTo(location.hash));
}

// Copying a table.
async function copyText(text) {
  try { await navigator.clipboard.writeText(text); return true; } catch (error) {
    const field = node("textarea", text);
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    return done;
  }
}
for (const button of all("[data-copy]")) {
  const table = async () => (await load(button.dataset.file))[button.dataset.of][button.dataset.copy];
  // A browser lets a page copy only right after a click, so the table is read as soon as the button is near.
  for (const near of ["pointerenter", "focus"]) button.addEventListener(near, () => table().catch(() => {}));
  const before = button.textContent;
  button.addEventListener("click", async () => {
    try { button.textContent = await copyText(await table()) ? "Copied" : "Not allowed here"; }
    catch (error) { button.textContent = error.message; }
    setTimeout(() => { button.textContent = before; }, 1500);
  });
}

// A group of buttons of which one is on.
function choices(group, names, chosen, call) {
  group.replaceChildren(...names.map(([value, words]) => {
    const button = node("button", words);
    button.type = "button";
    button.value = value;
    button.setAttribute("aria-pressed", String(value === chosen));
    button.addEventListener("click", () => {
      for (const other of all("button", group)) other.setAttribute("aria-pressed", String(other === button));
      call(value);
    });
    return button;
  }));
}
// A slash goes to the search field, as on many sites; Escape empties it.
document.addEventListener("keydown", (event) => {
  const field = document.querySelector("input[type=search]");
  if (!field || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/" && !/^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName)) { event.preventDefault(); field.focus(); }
});
