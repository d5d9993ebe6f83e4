// Two rows, or two single runs, on the same problems. Rows are tested beforehand; single runs are tested here.
const tasks = by("tasks") ? JSON.parse(by("tasks").textContent) : [];
const minus = (text) => text.replace("-", "−");
const mean = (values) => { const known = values.filter((v) => v !== null && v !== undefined); return known.length ? known.reduce((s, v) => s + v, 0) / known.length : null; };

// Exact two-sided McNemar: a fair coin tossed n times (McNemar 1947).
function mcnemar(onlyA, onlyB) {
  const n = onlyA + onlyB, least = Math.min(onlyA, onlyB);
  let term = -n * Math.log(2), sum = 0;
  for (let k = 0; k <= least; k += 1) {
    if (k) term += Math.log((n - k + 1) / k);
    sum += Math.exp(term);
  }
  return n ? Math.min(1, 2 * sum) : 1;
}
function draws(seed) {  // mulberry32: the same numbers at every visit
  return () => { seed = (seed + 0x6D2B79F5) | 0; let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t; return ((t ^ (t >>> 14)) >>> 0) / 4294967296; };
}
// One run each: McNemar for right and wrong, else sign flips; the interval is the bootstrap's over problems, its effects
// scaled to their unbiased variance and its tails widened for few problems, as everywhere in the harness.
function single(gaps, binary) {
  const n = gaps.length, next = draws(1), times = 4000, means = new Float64Array(times);
  const difference = mean(gaps), scale = Math.sqrt(n / Math.max(n - 1, 1));
  for (let t = 0; t < times; t += 1) {
    let sum = 0;
    for (let i = 0; i < n; i += 1) sum += gaps[(next() * n) | 0] - difference;
    means[t] = difference + scale * sum / n;
  }
  means.sort();
  const quantile = (share) => { const at = share * (times - 1), i = Math.floor(at); return means[i] + (at - i) * ((means[i + 1] ?? means[i]) - means[i]); };
  let p = 1, test = "exact McNemar";
  if (binary) p = mcnemar(gaps.filter((g) => g < 0).length, gaps.filter((g) => g > 0).length);
  else {
    test = "sign flips over problems";
    let as = 1;
    for (let t = 0; t < times; t += 1) { let sum = 0; for (const gap of gaps) sum += next() < 0.5 ? gap : -gap; as += Math.abs(sum / n) >= Math.abs(difference) - 1e-12; }
    p = as / (times + 1);
  }
  const low = quantile(table.tail), high = quantile(1 - table.tail);
  const odd = (low > 0 || high < 0) === p < 0.05 ? "" : "the interval is a bootstrap's over problems, and the test decides";
  return { difference, low, high, p, test, seeds: 1, settle: "", odd };
}

let table = null, ask = {};
function fill() {
  for (const id of ["a", "b"]) by(id).replaceChildren(...table.rows.flatMap((row) => {
    const whole = node("option", row.label + (row.runs.length > 1 ? ", " + row.runs.length + " seeds" : ", seed " + row.runs[0][0]));
    whole.value = "row " + row.runs[0][1];
    if (row.runs.length < 2) return [whole];
    const group = node("optgroup");
    group.label = row.label;
    group.append(whole, ...row.runs.map(([seed, run]) => { const o = node("option", row.label + ", seed " + seed); o.value = "run " + run; return o; }));
    return [group];
  }));
}
function side(value) {
  const run = value.slice(4), number = table.rows.findIndex((row) => row.runs.some((one) => one[1] === run)), row = table.rows[number];
  if (!row) return null;
  const whole = value.startsWith("row ");
  const runs = whole ? row.runs : row.runs.filter((one) => one[1] === run);
  const many = whole && row.runs.length > 1;
  return { number, whole, row, runs, run, label: row.label + (many ? "" : ", seed " + runs[0][0]) };
}
function tested(a, b, gaps, binary) {
  if (a.whole && b.whole) {
    for (const [i, j, difference, low, high, p, test, seeds, settle, odd] of table.pairs) {
      if (i === a.number && j === b.number) return { difference, low, high, p, test, seeds, settle, odd };
      if (i === b.number && j === a.number) return { difference: -difference, low: -high, high: -low, p, test, seeds, settle, odd };
    }
    return null;
  }
  return a.runs.length === 1 && b.runs.length === 1 && gaps.length ? single(gaps, binary) : null;
}
// What both trainings cost, and whether that is equal compute.
const times = (x, y) => Math.max(x, y) / Math.min(x, y);
const alike = (x, y) => Boolean(x.flops && y.flops) && times(x.flops, y.flops) <= table.tolerance;
function spent(a, b) {
  if (!a.flops || !b.flops) return "";
  const both = `Training cost ${b.cost} in B and ${a.cost} in A: `;
  return both + (alike(a, b) ? "equal compute." : `${(a.flops > b.flops ? "A" : "B")} spent ${times(a.flops, b.flops).toFixed(1)} times as much.`);
}
// The row that one is compared with first: the best of another method, of the same models and of equal compute if any.
function partner(row) {
  const others = table.rows.filter((one) => one !== row && !one.reference), [student, teacher] = row.models;
  const same = (one) => one.models[0] === student && (!teacher || !one.models[1] || one.models[1] === teacher);
  const good = (one) => 4 * (one.family !== row.family) + 2 * alike(one, row) + same(one);
  const best = Math.max(...others.map(good));
  return others.find((one) => good(one) === best) || table.rows.find((one) => one !== row);
}
async function show() {
  const a = side(by("a").value), b = side(by("b").value), now = by("a").value + "|" + by("b").value;
  ask = { a, b, now };
  history.replaceState(null, "", "#" + [["a", a], ["b", b]].map(([name, one]) => name + "=" + encodeURIComponent(one.run)).join("&") + (a.whole && b.whole ? "" : "&seeds=one"));
  by("gap").textContent = "…";
  const read = async (one) => {
    const found = await Promise.all(one.runs.map((run) => load(run[2])));
    const scores = {};
    for (const data of found) for (const [id, score] of data.scores) (scores[id] ||= []).push(score);
    const first = {};
    for (const row of found[0].rows) first[row.id] ||= row;
    return { scores, first };
  };
  let left, right, questions;
  try { [left, right, questions] = await Promise.all([read(a), read(b), table.questions ? load(table.questions) : {}]); }
  catch (error) { by("gap-words").textContent = error.message; return; }
  if (ask.now !== now) return;  // chosen anew meanwhile
  const scale = table.scale;
  const rows = Object.keys(left.first).filter((id) => Object.hasOwn(right.first, id)).map((id) => {
    const x = mean(left.scores[id] || []), y = mean(right.scores[id] || []);
    const kind = x === null || y === null || x === y ? "same" : (x > y) === scale.higher_is_better ? "a" : "b";
    return { id, x, y, kind, a: left.first[id], b: right.first[id] };
  });
  const both = rows.filter((row) => row.x !== null && row.y !== null), gaps = both.map((row) => row.y - row.x);
  const binary = both.every((row) => [0, 1].includes(row.x) && [0, 1].includes(row.y));
  const found = a.number === b.number && a.run === b.run && a.whole === b.whole ? null : tested(a, b, gaps, binary);
  const gap = found ? found.difference : mean(gaps) || 0;
  const signed = (v) => minus((v > 0 ? "+" : "") + (scale.times * v).toFixed(scale.digits)).replace(/^[+−](0(\.0+)?)$/, "$1");
  by("gap").replaceChildren(signed(gap), node("small", scale.points));
  by("gap-words").textContent = (found ? `95 % ${signed(found.low)} to ${signed(found.high)}, ` + (found.p < 0.0001 ? "p < 0.0001" : "p = " + Number(found.p.toPrecision(2))) +
    ` (${found.test}, ${found.seeds} seed${found.seeds === 1 ? "" : "s"} each)` + (found.odd ? "; " + found.odd : "") : "no test: nothing is paired here") + (scale.higher_is_better ? "" : "; lower is better");
  by("gap").parentNode.classList.toggle("sure", Boolean(found && found.p < 0.05));
  const better = (gap > 0) === scale.higher_is_better;
  by("gap").parentNode.classList.toggle("b", better); // the colour of the better side, as in the bar
  const said = (verb) => `B, ${b.label}, ${verb} A, ${a.label}.`;
  by("said").textContent = !found ? said("minus") : found.p < 0.05 ? said("is " + (better ? "better" : "worse") + " than") :
    said("is not distinguishable from") + (found.settle ? " " + found.settle[0].toUpperCase() + found.settle.slice(1) + "." : "");
  by("cost").textContent = spent(a.row, b.row);
  const count = { a: 0, b: 0, same: 0 };
  for (const row of rows) count[row.kind] += 1;
  by("tally").replaceChildren(...["a", "same", "b"].map((key) => { const made = node("span", null, key); made.style.flexGrow = count[key]; return made; }));
  by("how").textContent = a.whole && b.whole ? `The same in a terminal: harness compare ${a.row.name} ${b.row.name} --task ${table.task}` :
    "Single runs: another seed may turn the difference; compare whole rows for that.";
  by("notes").replaceChildren(...table.notes.map((words) => node("p", words, "note")));
  const names = { all: "all", a: "A better", b: "B better", same: "equal" };
  listing({
    rows, chosen: count.a + count.b ? (count.b >= count.a ? "b" : "a") : "all",
    kinds: Object.keys(names).map((key) => [key, names[key] + " " + (key === "all" ? rows.length : count[key])]),
    matches: (row, words) => [row.id, row.a.text, row.b.text, row.a.reason, row.b.reason, ...(questions[row.id] || [])].some((text) => text && text.toLowerCase().includes(words)),
    card: (row) => item(row.id, [node("span", "A " + figure(row.x, scale), "tag"), node("span", "B " + figure(row.y, scale), "tag")],
      firstLine(questions, row.a), () => {
        const head = node("dl", null, "parts"), pair = node("div", null, "pair"), texts = differing(row.a.text, row.b.text);
        head.append(...asked(questions[row.id]));
        pair.append(...[["A", a, row.a], ["B", b, row.b]].map(([letter, one, answered], i) => {
          const made = node("div"), list = node("dl", null, "parts tight");
          list.append(...answer(answered, scale, "Answer", texts[i]));
          made.append(node("h2", letter + " · " + one.label + (one.runs.length > 1 ? ", seed " + one.runs[0][0] : "")), list);
          return made;
        }));
        return [head, pair];
      }),
  });
}
async function open(file, a, b) {
  by("table").value = file;
  try { table = await load("pairs-" + file); } catch (error) { by("gap-words").textContent = error.message; return; }
  fill();
  const known = all("option", by("a")).map((option) => option.value);
  const first = tasks.find((task) => task.file === file).pair.map((run) => table.rows.find((row) => row.runs.some((one) => one[1] === run)));
  const named = (row) => "row " + row.runs[0][1];
  by("a").value = known.includes(a) ? a : named(first[0] || table.rows[0]);
  const start = side(by("a").value).row;
  by("b").value = known.includes(b) ? b : named(!known.includes(a) && first[1] || partner(start) || start);
  show();
}
if (tasks.length) {
  const asked = new URLSearchParams(location.hash.slice(1)), one = asked.get("seeds") === "one";
  const home = tasks.find((task) => Object.hasOwn(task.runs, asked.get("a"))) || tasks[0];
  // A run id names its row, or with seeds=one the run alone.
  const value = async (run) => {
    if (!run) return "";
    if (one) return "run " + run;
    const rows = (await load("pairs-" + home.file)).rows, row = rows.find((r) => r.runs.some((x) => x[1] === run));
    return row ? "row " + row.runs[0][1] : "";
  };
  by("table").addEventListener("change", () => open(by("table").value));
  for (const id of ["a", "b"]) by(id).addEventListener("change", show);
  by("swap").addEventListener("click", () => { const kept = by("a").value; by("a").value = by("b").value; by("b").value = kept; show(); });
  by("choose").addEventListener("submit", (event) => event.preventDefault());
  (async () => open(home.file, await value(asked.get("a")), await value(asked.get("b"))))();
}
