// A task: columns, costs of the figure, learning curves.
const columns = by("columns");
if (columns) columns.addEventListener("click", () => {
  const on = columns.getAttribute("aria-pressed") !== "true";
  columns.setAttribute("aria-pressed", String(on));
  for (const table of all("table.sortable")) table.classList.toggle("whole", on);
});
for (const group of all("[data-shows]")) group.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  for (const other of all("button", group)) other.setAttribute("aria-pressed", String(other === button));
  for (const shown of all("[data-" + group.dataset.shows + "]")) shown.hidden = shown.dataset[group.dataset.shows] !== button.value;
});

(async () => {
  const section = by("curves"), pick = by("metric"), silent = new Set();
  const data = await load(section.dataset.file);
  if (!data.metrics.length) {
    section.querySelector(".head").replaceChildren(node("h2", "Learning curves"));
    by("curves-sub").textContent = "No curves are kept beside these records; harness run keeps them as it records.";
    return;
  }
  let against = "tokens";
  pick.append(...data.metrics.map(([value, words]) => { const o = node("option", words); o.value = value; return o; }));
  // A view starts with the curves of its own rows; the others are one click away.
  const inView = (one) => !by("views") || one.runs.some((run) => by(document.querySelector("#views [aria-pressed=true]").value + "/" + run));
  function choose() {
    const some = data.series.some(inView);
    data.series.forEach((one, i) => {
      const on = !some || inView(one);
      if (on) silent.delete(one.label); else silent.add(one.label);
      by("legend").children[i].setAttribute("aria-pressed", String(on));
    });
  }
  function draw() {
    const series = data.series.filter((one) => !silent.has(one.label)).map((one) => ({
      ...one, points: (one.tables[pick.value] || []).map(([x, ...rest]) => [against === "tokens" ? x * one.tokens : x, ...rest]),
    }));
    const words = pick.selectedOptions[0].textContent;
    drawLines(by("chart"), series, { title: words, axis: against === "tokens" ? "tokens of training" : "optimizer step",
      height: by("chart").clientWidth > 700 ? 380 : 260, unit: pick.value === "on_policy" });
  }
  by("legend").replaceChildren(...data.series.map((one) => {
    const button = node("button", one.label, "c" + one.colour + " d" + one.dash);
    button.type = "button";
    button.setAttribute("aria-pressed", "true");
    button.append(node("span", " " + one.seeds + (one.seeds === 1 ? " seed" : " seeds"), "muted"));
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(on));
      if (on) silent.delete(one.label); else silent.add(one.label);
      draw();
    });
    return button;
  }));
  choose();
  document.addEventListener("view", () => { choose(); draw(); });
  pick.addEventListener("change", draw);
  by("against").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    against = button.value;
    for (const other of all("button", by("against"))) other.setAttribute("aria-pressed", String(other === button));
    draw();
  });
  new ResizeObserver(() => draw()).observe(section);
  draw();
})().catch((error) => { by("curves-sub").textContent = error.message; });
