// Lists of problems: what one item shows, searching, and words that differ between two answers.
const PAGE = 40;
function part(name, words, kind) {
  if (words === undefined || words === null || words === "") return [];
  const value = node("dd");
  value.append(words instanceof Node ? words : node("pre", words));
  return [node("dt", name, kind), value];
}
function tag(kind, score, scale) {
  const words = kind === "partly" || kind === "graded" ? kind + " " + figure(score, scale) : kind;
  return node("span", words, "tag " + kind);
}
function figure(value, scale) {
  return value === null || value === undefined ? "none" : Number((scale.times * value).toFixed(scale.digits)).toString();
}
// What a judge wrote, or the test that failed: the reason is the evidence where there is no longer text.
function verdict(row, scale) {
  const made = node("p");
  made.append(tag(row.kind, row.score, scale), " ", node("span", row.reason || ""));
  return made;
}
function asked(question) {
  return question ? [...part("Prompt", question[0]), ...part("Reference", question[1])] : [];
}
function answer(row, scale, name, text) {
  return [...part(name || "Answer", text || row.text), ...part("Extracted", row.extracted === row.text ? "" : row.extracted),
    ...part("Verdict", verdict(row, scale)), ...part("Judge", row.words)];
}
// The beginning of a question, without what all questions of a task begin and end with, nor the lines of its template,
// which many of them have.
function firstLine(questions, row) {
  const question = questions[row.id], text = (question ? own(questions, question[0]) : row.text).trim();
  return text.length > 160 ? text.slice(0, 160) + "…" : text;
}
const lines = new Map();
function own(questions, prompt) {
  const [start, end] = common(questions), cut = (one) => one.slice(start, one.length - end);
  if (!lines.has(questions)) {
    const counts = new Map();
    for (const [one] of Object.values(questions)) for (const line of new Set(cut(one).split("\n"))) counts.set(line, (counts.get(line) || 0) + 1);
    lines.set(questions, counts);
  }
  const counts = lines.get(questions), many = Math.max(2, Object.keys(questions).length / 20);
  return cut(prompt).split("\n").filter((line) => counts.get(line) <= many).join(" ").trim() || cut(prompt);
}
const ends = new Map();
function common(questions) {
  if (!ends.has(questions)) {
    const prompts = Object.values(questions).map((question) => question[0]), one = prompts[0];
    let start = prompts.length > 1 ? one.length : 0, end = start;
    for (const prompt of prompts) while (start && !prompt.startsWith(one.slice(0, start))) start -= 1;
    for (const prompt of prompts) while (end && !prompt.endsWith(one.slice(one.length - end))) end -= 1;
    // Whole words, and of a beginning only what is long enough to be no part of the question.
    start = start < 24 ? 0 : Math.max(0, one.slice(0, start).search(/\S*$/));
    end = start + end < one.length ? one.slice(one.length - end).replace(/^\S*/, "").length : 0;
    ends.set(questions, [start, end]);
  }
  return ends.get(questions);
}
// One item; its body is made when it is opened.
function item(id, marks, why, fill) {
  const made = node("li", null, "item"), details = node("details"), summary = node("summary"), body = node("div", null, "body");
  summary.append(node("span", id, "id"), ...marks, node("span", why, "why"));
  details.append(summary, body);
  details.addEventListener("toggle", () => { if (details.open && !body.firstChild) body.append(...fill()); });
  made.append(details);
  return made;
}
// The arrow keys go from the item in focus to the next or the one before; if it is open, that one opens instead of it.
function arrows(list, more) {
  list.onkeydown = (event) => {
    const here = event.target.closest("summary")?.parentNode.parentNode;
    if (here?.parentNode !== list || !["ArrowDown", "ArrowUp"].includes(event.key)) return;
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    if (event.key === "ArrowDown" && !here.nextSibling && !more.hidden) more.click();
    const there = event.key === "ArrowDown" ? here.nextSibling : here.previousSibling;
    event.preventDefault();
    if (!there) return;
    const [from, to] = [here.firstChild, there.firstChild];
    to.open = from.open;
    from.open = false;
    to.firstChild.focus();
    to.scrollIntoView({ block: to.open ? "start" : "nearest" });
  };
}
// A list with buttons by kind and a search: `matches(row, words)` says whether a row holds them.
function listing({ rows, kinds, chosen, card, matches }) {
  let kind = chosen, wanted = [], shown = 0;
  const field = by("search"), list = by("list");
  function more() {
    list.append(...wanted.slice(shown, shown + PAGE).map(card));
    shown = Math.min(shown + PAGE, wanted.length);
    by("more").hidden = shown >= wanted.length;
  }
  function show() {
    const words = field.value.trim().toLowerCase();
    wanted = rows.filter((row) => (kind === "all" || row.kind === kind) && (!words || matches(row, words)));
    list.replaceChildren();
    shown = 0;
    more();
    by("count").textContent = wanted.length + " of " + rows.length;
  }
  choices(by("kinds"), kinds, chosen, (value) => { kind = value; show(); });
  field.oninput = show;
  by("more").onclick = more;
  arrows(list, by("more"));
  show();
}
// Words of two texts that are in one and not in the other, by the longest common run of words.
function differing(a, b) {
  const x = a.match(/\s+|[^\s\w]|\w+/g) || [], y = b.match(/\s+|[^\s\w]|\w+/g) || [];
  let start = 0, ends = 0;
  while (start < x.length && start < y.length && x[start] === y[start]) start += 1;
  while (ends < x.length - start && ends < y.length - start && x[x.length - 1 - ends] === y[y.length - 1 - ends]) ends += 1;
  const p = x.slice(start, x.length - ends), q = y.slice(start, y.length - ends);
  const keep = [new Set(), new Set()];
  if (p.length * q.length <= 4e6) {
    const w = q.length + 1, best = new Uint16Array((p.length + 1) * w);
    for (let i = p.length - 1; i >= 0; i -= 1) for (let j = q.length - 1; j >= 0; j -= 1)
      best[i * w + j] = p[i] === q[j] ? best[(i + 1) * w + j + 1] + 1 : Math.max(best[(i + 1) * w + j], best[i * w + j + 1]);
    for (let i = 0, j = 0; i < p.length && j < q.length;) {
      if (p[i] === q[j]) { keep[0].add(i); keep[1].add(j); i += 1; j += 1; }
      else if (best[(i + 1) * w + j] >= best[i * w + j + 1]) i += 1; else j += 1;
    }
  }
  return [[x, p, keep[0]], [y, q, keep[1]]].map(([whole, middle, common]) => {
    const made = node("pre"), plain = [];
    const flush = () => { if (plain.length) made.append(plain.splice(0).join("")); };
    whole.forEach((word, at) => {
      const place = at - start;
      if (place < 0 || place >= middle.length || common.has(place) || !word.trim()) { plain.push(word); return; }
      flush();
      made.append(node("mark", word));
    });
    flush();
    return made;
  });
}
