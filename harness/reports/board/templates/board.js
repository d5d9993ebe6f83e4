"use strict";
// Sorting, filters and switches. Everything is on the page already; this only orders and hides.
function all(selector, root) { return Array.from((root || document).querySelectorAll(selector)); }

function sortBy(header) {
  const table = header.closest("table"), index = Array.from(header.parentNode.children).indexOf(header);
  const text = header.querySelector("button").dataset.kind === "text";
  const before = header.getAttribute("aria-sort");
  const up = before ? before !== "ascending" : text;
  for (const other of header.parentNode.children) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", up ? "ascending" : "descending");
  const body = table.querySelector("tbody.sorted");
  const value = (row) => row.children[index].dataset.value;
  const rows = Array.from(body.rows).sort((a, b) => {
    const x = value(a), y = value(b);
    if (x === "" || y === "") return (x === "") - (y === "");  // what is missing comes last either way
    const order = text ? x.localeCompare(y) : Number(x) - Number(y);
    return up ? order : -order;
  });
  body.append(...rows);
}
for (const button of all("thead button")) button.addEventListener("click", () => sortBy(button.closest("th")));

function switchTo(group, value) {
  const name = group.dataset.shows;
  for (const button of all("button", group)) button.setAttribute("aria-pressed", String(button.value === value));
  for (const shown of all("[data-" + name + "]")) shown.toggleAttribute("data-off", shown.dataset[name] !== value);
  filter();
}
for (const group of all("[data-shows]"))
  group.addEventListener("click", (event) => { const b = event.target.closest("button"); if (b) switchTo(group, b.value); });

function filter() {
  const form = document.getElementById("filters");
  const wanted = form ? Object.fromEntries(new FormData(form)) : {};
  const part = (wanted.method || "").trim().toLowerCase();
  let tables = 0, rows = 0;
  for (const board of all(".board")) {
    const keys = ["task", "family", "world", "protocol", "kind"];
    let fits = keys.every((key) => !wanted[key] || board.dataset[key] === wanted[key]);
    if (board.dataset.method !== undefined) fits = fits && board.dataset.method.toLowerCase().includes(part);
    if (board.matches("section")) {
      let found = 0;
      for (const row of all("tbody tr", board)) {
        const match = row.querySelector("th").dataset.value.toLowerCase().includes(part);
        row.hidden = !match;
        found += match;
      }
      fits = fits && found > 0;
      if (fits) { tables += 1; rows += found; }
    } else if (board.matches("tr") && fits) rows += 1;
    board.hidden = !fits || board.hasAttribute("data-off");
  }
  for (const figure of all("figure[data-metric]")) figure.hidden = figure.hasAttribute("data-off");
  for (const part of all(".reported")) part.hidden = !all("tr.board", part).some((row) => !row.hidden);
  const pareto = document.getElementById("pareto");
  if (pareto) pareto.hidden = !all("figure", pareto).some((one) => !one.hidden);
  const said = document.getElementById("shown");
  if (said) said.textContent = tables + (tables === 1 ? " table, " : " tables, ") + rows + (rows === 1 ? " row" : " rows");
}
const filters = document.getElementById("filters");
if (filters) {
  filters.addEventListener("input", filter);
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("reset", () => setTimeout(filter));
}
for (const button of all(".legend button")) button.addEventListener("click", () => {
  const on = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", String(on));
  for (const line of all("#curves g[id$='-c" + button.value + "'],#curves g[id$='-r" + button.value + "']"))
    line.classList.toggle("dim", !on);
});
filter();
