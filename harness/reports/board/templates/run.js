// A run: its curves, its problems, its card.
(async () => {
  const place = by("problems");
  const [data, questions] = await Promise.all([load(place.dataset.file),
    place.dataset.questions ? load(place.dataset.questions) : {}]);

  // Curves: a small chart for each logged quantity.
  const logged = [...new Set(data.points.flatMap((point) => Object.keys(point)))].filter((name) => !data.besides.includes(name) && data.points.some((point) => point[name]));
  const known = Object.keys(data.names);
  logged.sort((a, b) => (known.includes(a) ? known.indexOf(a) : 99) - (known.includes(b) ? known.indexOf(b) : 99) || a.localeCompare(b));
  if (logged.length) {
    by("figures").replaceChildren(...logged.map((name) => {
      const figure = node("figure"), words = data.names[name] || name.replaceAll("_", " ");
      figure.append(node("figcaption", words[0].toUpperCase() + words.slice(1)), node("div"));
      return figure;
    }));
    const draw = () => logged.forEach((name, i) => {
      const points = data.points.filter((p) => p[name] !== undefined && p[name] !== null).map((p) => [p.step, p[name]]);
      drawLines(by("figures").children[i].lastChild, [{ label: name, colour: 0, points }],
        { title: data.names[name] || name.replaceAll("_", " "), height: 150, unit: name === "on_policy" });
    });
    draw();
    new ResizeObserver(draw).observe(by("figures"));
  }

  // Token weights: how many tokens have how much of the mean weight.
  if (data.weights.words) {
    by("weights").hidden = false;
    for (const [name, words] of data.weights.words) by("weights-words").append(node("dt", name), node("dd", words));
    const edges = data.weights.edges, most = Math.max(...data.weights.shares, 0);
    by("weights-chart").append(...data.weights.shares.map((share, i) => {
      const row = node("div", null, "share"), bar = node("span", null, "fill");
      const name = i === 0 ? "below " + edges[0] : i === edges.length ? "from " + edges[i - 1] : edges[i - 1] + " to " + edges[i];
      bar.style.width = (100 * share / (most || 1)) + "%";
      row.append(node("span", name, "of"), bar, node("span", (100 * share).toFixed(0) + " %", "muted"));
      return row;
    }), node("p", "share of tokens by their weight over the mean", "muted small"));
  }

  // The card and the exact prompt, folded.
  const fold = (name, inside) => { const made = node("details"); made.append(node("summary", name), inside); return made; };
  if (data.equation) by("card").append(fold("Method", node("pre", data.equation)));
  if (data.prompt) { const text = node("pre", data.prompt); text.id = "prompt"; by("card").append(fold("The exact prompt of the first problem", text)); }
  for (const [group, pairs] of data.facts) {
    const list = node("dl");
    for (const [name, value] of pairs) list.append(node("dt", name), node("dd", String(value)));
    by("card").append(fold(group, list));
  }

  // Problems.
  const rows = data.rows, counts = { all: rows.length };
  for (const row of rows) counts[row.kind] = (counts[row.kind] || 0) + 1;
  const kinds = ["all", "wrong", "partly", "right", "graded", "error"].filter((kind) => counts[kind]);
  if (data.left) { by("left").hidden = false; by("left").textContent = data.left + " more would make this page too heavy; they are in the file."; }
  listing({
    rows, chosen: "all", kinds: kinds.map((kind) => [kind, kind + " " + counts[kind]]),
    matches: (row, words) => [row.id, row.text, row.extracted, row.reason, ...(questions[row.id] || [])].some((text) => text && text.toLowerCase().includes(words)),
    card: (row) => {
      const question = questions[row.id], marks = [tag(row.kind, row.score, data.scale)];
      if (row.finish && row.finish !== "stop") marks.push(node("span", row.finish, "tag warn"));
      const made = item(row.id + (row.sample ? " #" + row.sample : ""), marks, firstLine(questions, row), () => {
        const list = node("dl", null, "parts");
        list.append(...asked(question), ...answer(row, data.scale));
        return [list, node("p", row.tokens + " tokens, ended by " + (row.finish || "stop"), "muted small")];
      });
      made.dataset.kind = row.kind;
      made.firstChild.addEventListener("toggle", () => { if (made.firstChild.open) history.replaceState(null, "", "#problem=" + encodeURIComponent(row.id)); });
      made.dataset.id = row.id;
      return made;
    },
  });

  // A link to a problem opens it.
  const asked_for = new URLSearchParams(location.hash.slice(1)).get("problem");
  if (asked_for !== null && rows.some((row) => row.id === asked_for)) {
    let found;
    while (!(found = all("#list > li").find((one) => one.dataset.id === asked_for)) && !by("more").hidden) by("more").click();
    if (found) { found.firstChild.open = true; found.scrollIntoView({ block: "center" }); }
  }
})().catch((error) => { by("count").textContent = error.message; });
