// Line charts: a few series over one axis, drawn as SVG in the width at hand, with the values under the pointer.
const SVG = "http://www.w3.org/2000/svg";
const DASH = ["", "6 2", "2 2", "6 2 2 2"];
function shape(tag, facts, words) {
  const made = document.createElementNS(SVG, tag);
  for (const key in facts) made.setAttribute(key, facts[key]);
  if (words !== undefined) made.textContent = words;
  return made;
}
// A number in at most four digits with a prefix: 12.3 k.
function short(value) {
  const size = Math.abs(value);
  for (const [least, prefix] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]])
    if (size >= least) return Number((value / least).toPrecision(3)) + " " + prefix;
  return size && size < 0.001 ? value.toExponential(1) : String(Number(value.toPrecision(3)));
}
// Up to `most` round values between two ends.
function ticks(low, high, most) {
  const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.8);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at += 1) found.push(at * step);
  return found;
}
// series: [{label, colour, dash, points: [[x, mean, low, high], …]}]. Empty series are left out.
function drawLines(place, series, { title, axis, height = 190, unit = false }) {
  const wide = Math.max(240, Math.round(place.clientWidth || 320)), left = 46, right = 10, top = 8, bottom = axis ? 36 : 22;
  const shown = series.filter((one) => one.points.length);
  const svg = shape("svg", { viewBox: `0 0 ${wide} ${height}`, class: "chart", role: "img", "aria-label": title + (axis ? " over " + axis : "") });
  place.replaceChildren(svg);
  if (!shown.length) return svg;
  const points = shown.flatMap((one) => one.points), xs = points.map((p) => p[0]);
  let low = Math.min(...points.map((p) => p[2] ?? p[1])), high = Math.max(...points.map((p) => p[3] ?? p[1]));
  if (unit) { low = Math.min(low, 0); high = Math.max(high, 1); }
  if (high - low < 1e-12) { low -= Math.abs(low) * 0.1 || 0.5; high += Math.abs(high) * 0.1 || 0.5; }
  const first = Math.min(0, ...xs), last = Math.max(...xs) || 1;
  const x = (v) => left + (v - first) / (last - first) * (wide - left - right);
  const y = (v) => height - bottom - (v - low) / (high - low) * (height - top - bottom);
  for (const at of ticks(low, high, height > 200 ? 6 : 4)) {
    svg.append(shape("line", { x1: left, x2: wide - right, y1: y(at), y2: y(at), class: "grid" }));
    svg.append(shape("text", { x: left - 6, y: y(at) + 4, "text-anchor": "end" }, short(at)));
  }
  for (const at of ticks(first, last, wide > 500 ? 7 : 4))
    svg.append(shape("text", { x: Math.min(x(at), wide - right - 8), y: height - bottom + 16, "text-anchor": "middle" }, short(at)));
  if (axis) svg.append(shape("text", { x: wide - right, y: height - 4, "text-anchor": "end", class: "name" }, axis));
  for (const one of shown) {
    const group = shape("g", { class: "c" + one.colour, "data-label": one.label });
    if (one.points.some((p) => p[3] > p[2]))
      group.append(shape("path", { class: "range", d: "M" + one.points.map((p) => `${x(p[0]).toFixed(1)} ${y(p[3]).toFixed(1)}`).join("L") +
        "L" + one.points.toReversed().map((p) => `${x(p[0]).toFixed(1)} ${y(p[2]).toFixed(1)}`).join("L") + "Z" }));
    const line = one.points.length > 1 ? shape("path", { class: "line", "stroke-dasharray": DASH[one.dash || 0],
      d: "M" + one.points.map((p) => `${x(p[0]).toFixed(1)} ${y(p[1]).toFixed(1)}`).join("L") }) :
      shape("circle", { class: "point", cx: x(one.points[0][0]), cy: y(one.points[0][1]), r: 3.5 });
    group.append(line, shape("title", {}, one.label));
    svg.append(group);
  }
  return svg;
}
