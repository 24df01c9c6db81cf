"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

// Every text of the data enters the page through textContent, never as HTML.
function make(tag, words = "", attributes = {}) {
  const element = document.createElement(tag);
  if (words !== "") element.textContent = words;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}
// A token in a picture: a word without its "▁", and "·" before a piece that continues one.
function plain(name) {
  if (name.startsWith("▁")) return name.slice(1) || name;
  return /^[\p{L}\p{N}]/u.test(name) ? `·${name}` : name;
}
function text(words) { return make("bdi", words); }
function token(name) { return text(plain(name)); }
function put(element, ...children) { element.replaceChildren(...children); return element; }
function number(x, digits = 3) { return x.toFixed(digits).replace("-", "−"); }
function style(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }
function rgb(hex) { return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)); }
function blend(from, to, share) { return `rgb(${from.map((x, i) => Math.round(x + (to[i] - x) * share)).join(",")})`; }

function bytes(base64) { return Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)).buffer; }
for (const a of data.attention) {
  const whole = a.bits === 16 ? new Uint16Array(bytes(a.data)) : new Uint8Array(bytes(a.data));
  const most = 2 ** a.bits - 1, size = a.rows.length * a.cols.length;
  a.weight = (layer, head, i, j) => {
    if (head !== "all") return whole[(layer * a.heads + head) * size + i * a.cols.length + j] / most;
    let sum = 0;
    for (let h = 0; h < a.heads; h++) sum += whole[(layer * a.heads + h) * size + i * a.cols.length + j];
    return sum / most / a.heads;
  };
}

// A heat map: rows and columns with names, numbers under the pointer, and a cell that arrow keys move.
class Heat {
  constructor(host, view) {
    this.view = view;
    this.canvas = make("canvas", "", { tabindex: 0, role: "img" });
    this.rows = make("div", "", { class: "rows", "aria-hidden": "true" });
    this.cols = make("div", "", { class: "cols", "aria-hidden": "true" });
    this.output = make("output", "", { "aria-live": "polite" });
    const grid = make("div", "", { class: "grid" });
    grid.append(make("div", "", { class: "rows" }), this.cols, this.rows, this.canvas);
    const scroll = make("div", "", { class: "scroll" });
    scroll.append(grid);
    this.figure = make("figure", "", { class: "heat" });
    this.figure.append(scroll, this.output);
    host.append(this.figure);
    this.canvas.addEventListener("pointermove", (event) => this.point(event));
    this.canvas.addEventListener("pointerdown", (event) => this.point(event));
    this.canvas.addEventListener("pointerleave", () => this.show(null));
    this.canvas.addEventListener("blur", () => this.show(null));
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    this.width = host.clientWidth;
    this.layOut();
    Heat.all.push(this);
  }
  layOut() {
    const { rows, cols, width } = this.view;
    const room = Math.max(160, this.width - 110);
    this.cell = cols.length ? Math.max(15, Math.min(26, Math.floor(room / width)))
      : Math.max(2, Math.min(12, Math.floor(room / width)));
    this.high = cols.length ? Math.max(20, this.cell) : 20;
    put(this.rows, ...rows.map((name) => {
      const label = make("span", "", { style: `height:${this.high}px` });
      label.append(token(name));
      return label;
    }));
    put(this.cols, ...cols.map((name) => {
      const label = make("span", "", { style: `width:${this.cell}px` });
      label.append(token(name));
      return label;
    }));
    this.canvas.setAttribute("aria-label", `${this.view.name}: ${rows.length} rows, ${width} columns. Arrow keys move.`);
    this.at = null;
    this.draw();
  }
  draw() {
    const { rows, width, value, most, signed } = this.view;
    const ratio = window.devicePixelRatio || 1, wide = width * this.cell, tall = rows.length * this.high;
    this.canvas.width = wide * ratio; this.canvas.height = tall * ratio;
    this.canvas.style.width = `${wide}px`; this.canvas.style.height = `${tall}px`;
    const pen = this.canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const ground = rgb(style("--panel")), cool = rgb(style("--accent")), warm = rgb(style("--warm"));
    const gap = this.cell > 8 ? 1 : 0;
    for (let i = 0; i < rows.length; i++) for (let j = 0; j < width; j++) {
      const x = value(i, j) / most;
      pen.fillStyle = blend(ground, signed && x < 0 ? warm : cool, Math.min(1, Math.abs(x)) ** 0.7);
      pen.fillRect(j * this.cell, i * this.high, this.cell - gap, this.high - 1);
    }
    pen.strokeStyle = style("--line");
    pen.strokeRect(.5, .5, wide - 1, tall - 1);
    if (this.at) {
      pen.strokeStyle = style("--ink"); pen.lineWidth = 2;
      pen.strokeRect(this.at[1] * this.cell + .5, this.at[0] * this.high + .5, Math.max(2, this.cell - gap - 1), this.high - 2);
    }
  }
  point(event) {
    const box = this.canvas.getBoundingClientRect();
    this.show([Math.floor((event.clientY - box.top) / this.high), Math.floor((event.clientX - box.left) / this.cell)]);
  }
  key(event) {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    const [i, j] = this.at || [-step[0], -step[1]];
    this.show([i + step[0], j + step[1]]);
  }
  show(at) {
    const { rows, cols, width, value } = this.view;
    if (at) at = [Math.max(0, Math.min(rows.length - 1, at[0])), Math.max(0, Math.min(width - 1, at[1]))];
    this.at = at;
    this.draw();
    [...this.rows.children].forEach((label, i) => label.classList.toggle("hot", !!at && i === at[0]));
    [...this.cols.children].forEach((label, j) => label.classList.toggle("hot", !!at && j === at[1]));
    if (!at) return put(this.output);
    const column = cols.length ? token(cols[at[1]]) : make("span", `dimension ${at[1]}`);
    put(this.output, token(rows[at[0]]), make("span", cols.length ? " → " : ", "), column,
      make("span", `: ${number(value(at[0], at[1]), this.view.digits ?? 4)}`));
  }
}
Heat.all = [];

// Choosing one of several buttons by click or by arrow keys.
function choices(host, names, chosen, choose, named = text) {
  const mark = "aria-selected";
  const buttons = names.map((name, i) => {
    const button = make("button", "", { type: "button", [mark]: i === chosen, tabindex: i === chosen ? 0 : -1, role: "tab" });
    button.append(named(name));
    button.addEventListener("click", () => pick(i));
    button.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      pick((i + step + names.length) % names.length);
    });
    return button;
  });
  function pick(i) {
    buttons.forEach((b, k) => { b.setAttribute(mark, k === i); b.tabIndex = k === i ? 0 : -1; });
    buttons[i].focus({ preventScroll: true });
    choose(i);
  }
  put(host, ...buttons);
}

// Attention: the use, the layer and head, and the picture of them.
const hints = {
  encoder: "Source words look at source words, before and after.",
  decoder: "Words of the translation look at themselves and at those before them; the mask hides the rest.",
  cross: "Words of the translation, as they are written, look at source words.",
};
const state = { kind: 0, layer: 0, head: 0, view: 0 };
const hue = (head, heads) => `hsl(${Math.round(head * 360 / heads + 215) % 360} 70% 50%)`;

function thumbnail(a, layer, head) {
  const canvas = make("canvas"), most = Math.min(32, Math.max(a.rows.length, a.cols.length));
  const high = Math.min(a.rows.length, most), wide = Math.min(a.cols.length, most);
  canvas.width = wide; canvas.height = high;
  const pen = canvas.getContext("2d"), ground = rgb(style("--panel")), ink = rgb(style("--accent"));
  for (let i = 0; i < high; i++) for (let j = 0; j < wide; j++) {
    pen.fillStyle = blend(ground, ink, a.weight(layer, head, i, j) ** 0.6);
    pen.fillRect(j, i, 1, 1);
  }
  return canvas;
}

function drawPicker() {
  const a = data.attention[state.kind], picker = byId("picker");
  picker.style.gridTemplateColumns = `max-content repeat(${a.heads + 1}, 44px)`;
  const cells = [make("span", "")];
  for (let h = 0; h < a.heads; h++) cells.push(make("span", `${h + 1}`, { class: "head-name" }));
  cells.push(make("span", "all", { class: "head-name" }));
  for (let l = 0; l < a.layers; l++) {
    cells.push(make("span", `layer ${l + 1}`));
    for (let h = 0; h <= a.heads; h++) {
      const head = h === a.heads ? "all" : h, here = l === state.layer && head === state.head;
      const button = make("button", "", {
        type: "button", "aria-pressed": here, tabindex: here ? 0 : -1, "data-layer": l, "data-head": head,
        "aria-label": `layer ${l + 1}, ${head === "all" ? "all heads" : `head ${h + 1}`}`,
      });
      button.append(thumbnail(a, l, head));
      button.addEventListener("click", () => choose(l, head));
      button.addEventListener("keydown", (event) => {
        const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
        if (!step) return;
        event.preventDefault();
        const nextHead = (h + step[1] + a.heads + 1) % (a.heads + 1);
        choose((l + step[0] + a.layers) % a.layers, nextHead === a.heads ? "all" : nextHead, true);
      });
      cells.push(button);
    }
  }
  put(picker, ...cells);
}
function choose(layer, head) {
  Object.assign(state, { layer, head });
  for (const button of byId("picker").querySelectorAll("button")) {
    const here = button.dataset.layer === `${layer}` && button.dataset.head === `${head}`;
    button.setAttribute("aria-pressed", here);
    button.tabIndex = here ? 0 : -1;
    if (here) button.focus({ preventScroll: true });
  }
  drawAttention();
}
function drawAttention() {
  const a = data.attention[state.kind], host = byId("attention-picture");
  const head = state.head === "all" ? (state.view === 0 ? "mean of all heads" : "all heads") : `head ${state.head + 1}`;
  byId("chosen").textContent = `${a.title}: layer ${state.layer + 1}, ${head}`;
  byId("kind-hint").textContent = hints[a.kind];
  Heat.all = Heat.all.filter((heat) => !host.contains(heat.figure));
  put(host);
  const value = (i, j) => a.weight(state.layer, state.head, i, j);
  if (state.view === 0) new Heat(host, { name: a.title, rows: a.rows, cols: a.cols, width: a.cols.length, value, most: 1 });
  else drawLines(host, a);
}

// The paper's picture (its Figures 3 to 5): lines between words, a colour a head.
function drawLines(host, a) {
  const high = 26, heads = state.head === "all" ? [...Array(a.heads).keys()] : [state.head];
  const box = make("div", "", { class: "lines" }), left = make("div", "", { class: "left" });
  const right = make("div", "", { class: "right" });
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const tall = Math.max(a.rows.length, a.cols.length) * high;
  svg.setAttribute("viewBox", `0 0 100 ${tall}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.style.height = `${tall}px`;
  svg.setAttribute("aria-hidden", "true");
  const output = make("output", "Point at a word to see its lines alone.", { "aria-live": "polite" });
  const lines = [];
  heads.forEach((h) => a.rows.forEach((_, i) => a.cols.forEach((__, j) => {
    const weight = a.weight(state.layer, h, i, j);
    if (weight < 0.02) return;
    const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
    const values = { x1: 0, y1: (i + .5) * high, x2: 100, y2: (j + .5) * high, stroke: hue(h, a.heads),
      "stroke-opacity": weight, "stroke-width": 2.5, "vector-effect": "non-scaling-stroke" };
    for (const [name, value] of Object.entries(values)) line.setAttribute(name, value);
    svg.append(line);
    lines.push({ line, i, j });
  })));
  const only = (side, index) => {
    for (const { line, i, j } of lines) line.style.display = index === null || (side ? j : i) === index ? "" : "none";
    if (index === null) return put(output, make("span", "Point at a word to see its lines alone."));
    const others = side ? a.rows : a.cols;
    const weights = others.map((name, k) => [name, a.weight(state.layer, state.head, side ? k : index, side ? index : k)]);
    weights.sort((x, y) => y[1] - x[1]);
    put(output, token((side ? a.cols : a.rows)[index]), make("span", side ? " is read by: " : " reads: "));
    for (const [name, weight] of weights.slice(0, 5)) {
      const entry = make("span", "", { class: "beam" });
      entry.append(token(name), make("span", ` ${number(weight)}`));
      output.append(entry);
    }
  };
  [[left, a.rows, 0], [right, a.cols, 1]].forEach(([column, names, side]) => names.forEach((name, index) => {
    const button = make("button", "", { type: "button" });
    button.append(token(name));
    for (const on of ["pointerenter", "focus", "click"]) button.addEventListener(on, () => only(side, index));
    for (const off of ["pointerleave", "blur"]) button.addEventListener(off, () => only(side, null));
    column.append(button);
  }));
  box.append(left, svg, right);
  host.append(box, output);
  if (heads.length === 1) return;
  const legend = make("div", "", { class: "legend" });
  heads.forEach((h) => {
    const entry = make("span");
    entry.append(make("i", "", { style: `background:${hue(h, a.heads)}` }), make("span", `head ${h + 1}`));
    legend.append(entry);
  });
  host.append(legend);
}

// Alignment.
function drawAlignment() {
  const a = data.attention.find((x) => x.kind === "cross"), layer = Number(byId("alignment-layer").value) - 1;
  const host = byId("alignment-picture"), weight = (i, j) => a.weight(layer, "all", i, j);
  Heat.all = Heat.all.filter((heat) => !host.contains(heat.figure));
  put(host);
  let most = 0;
  a.rows.forEach((_, i) => a.cols.forEach((__, j) => { most = Math.max(most, weight(i, j)); }));
  new Heat(host, { name: "Alignment", rows: a.rows, cols: a.cols, width: a.cols.length, value: weight, most });
  const join = (names, positions) => positions.map((p) => names[p]).join("").replaceAll("▁", "");
  const { sourceWords, targetWords } = data.alignment;
  const pairs = !sourceWords.length ? [] : targetWords.map((target) => {
    const sums = sourceWords.map((word) => {
      let sum = 0;
      for (const i of target) for (const j of word) sum += weight(i, j);
      return sum / target.length;
    });
    const best = sums.indexOf(Math.max(...sums)), entry = make("span");
    entry.append(text(join(a.rows, target)), make("span", " ← "), text(join(a.cols, sourceWords[best])));
    return entry;
  });
  put(byId("alignment-words"), ...pairs);
}

// The next word.
function drawStep(index) {
  const step = data.steps[index], bars = make("div", "", { class: "bars" });
  const place = step.rank === 1 ? "the most probable" : `number ${step.rank} by probability`;
  const told = make("p");
  told.append(make("span", `Step ${index + 1} wrote `), token(step.written),
    make("span", `, ${place}, with ${number(step.probability)}.`));
  for (const [name, probability, chosen] of step.top) {
    const bar = make("i", "", { style: `width:${Math.max(0.3, probability * 100)}%` });
    if (chosen) bar.className = "chosen";
    bars.append(token(name), bar, make("span", number(probability)));
  }
  const table = make("table"), head = make("tr");
  for (const name of ["beam", "log-probability", "continuations: probability, log-probability of the whole"])
    head.append(make("th", name));
  table.append(head);
  for (const beam of step.beams) {
    const row = make("tr", "", beam.winning ? { class: "winner" } : {}), first = make("td"), last = make("td");
    first.append(text(beam.prefix || "(start)"));
    for (const [name, probability, score, fate] of beam.choices) {
      const entry = make("span", "", { class: `beam ${fate}`, title: fate });
      entry.append(token(name), make("span", ` ${number(probability)}, ${number(score, 2)}`));
      last.append(entry);
    }
    row.append(first, make("td", number(beam.score, 3), { class: "number" }), last);
    table.append(row);
  }
  const scroll = make("div", "", { class: "scroll" });
  scroll.append(table);
  put(byId("step"), told, bars, make("h3", "Beams alive at this step"), scroll,
    make("p", "Bold: the path that won. Underlined: kept for the next step; double: a finished rival. Grey: dropped.", { class: "hint" }));
}

function drawHypotheses() {
  byId("why").textContent = data.why.replace(/-(?=\d)/g, "−");
  const table = byId("hypotheses"), head = make("tr");
  for (const name of ["", "translation", "log-probability", "tokens", "penalty", "score"]) head.append(make("th", name));
  put(table, head);
  data.hypotheses.forEach((h, i) => {
    const row = make("tr", "", i ? {} : { class: "winner" }), cell = make("td");
    cell.append(text(h.text));
    row.append(make("td", `${i + 1}`), cell);
    for (const [x, digits] of [[h.total, 3], [h.length, 0], [h.penalty, 3], [h.score, 3]])
      row.append(make("td", number(x, digits), { class: "number" }));
    table.append(row);
  });
}

// The walk.
function drawWalk() {
  const contents = byId("contents"), stops = byId("stops");
  data.walk.forEach((stop, index) => {
    const link = make("a", stop.term, { href: `#stop-${stop.key}` }), entry = make("li");
    entry.append(link);
    contents.append(entry);
    const article = make("article", "", { id: `stop-${stop.key}` }), title = make("h3", `${index + 1}. ${stop.term}`);
    title.append(make("span", stop.korean, { lang: "ko" }), make("small", stop.section));
    article.append(title, make("p", stop.says));
    if (stop.key === "text") article.append(make("p", data.text, { class: "sentence", dir: "auto" }));
    for (const [file, line, code] of stop.lines) {
      const pre = make("pre");
      pre.append(make("b", `${file}:${line}  `), make("code", code));
      article.append(pre);
    }
    stops.append(article);
    for (const exhibit of stop.exhibits) drawExhibit(article, exhibit);
  });
}
function drawExhibit(host, exhibit) {
  const whole = exhibit.numbers ? exhibit.numbers.flat() : new Int16Array(bytes(exhibit.data));
  const unit = exhibit.numbers ? 1 : exhibit.scale / 32767;
  const value = (i, j) => whole[i * exhibit.width + j] * unit;
  const caption = make("figcaption", "", {});
  const part = exhibit.width < exhibit.all ? `; the first ${exhibit.width} of ${exhibit.all} columns` : "";
  caption.append(make("b", exhibit.name), make("span", ` ${exhibit.shape}${part}`));
  host.append(caption);
  if (exhibit.is_written) return drawNumbers(host, exhibit, value);
  const heat = new Heat(host, { name: exhibit.name, rows: exhibit.rows, cols: exhibit.cols, width: exhibit.width, value,
    most: exhibit.scale, signed: true });
  if (exhibit.cols.length) return;
  const first = make("p", "", { class: "first" });
  const some = [...Array(Math.min(6, exhibit.width)).keys()].map((j) => number(value(0, j)));
  first.append(token(exhibit.rows[0]), make("span", ` = (${some.join(", ")}, …)`));
  heat.figure.append(first);
}
function drawNumbers(host, exhibit, value) {
  const table = make("table"), scroll = make("div", "", { class: "scroll" }), names = make("tr");
  const ids = "numbers" in exhibit, digits = ids ? 0 : 3;
  if (!ids) names.append(make("th", ""));
  for (const name of exhibit.cols) {
    const cell = make("th");
    cell.append(ids ? text(name) : token(name));
    names.append(cell);
  }
  table.append(names);
  exhibit.rows.forEach((name, i) => {
    const row = make("tr"), first = make("td");
    first.append(token(name));
    if (!ids) row.append(first);
    exhibit.cols.forEach((_, j) => row.append(make("td", number(value(i, j), digits), { class: "number" })));
    table.append(row);
  });
  scroll.append(table);
  host.append(scroll);
}

function drawAll() {
  Heat.all = [];
  byId("text").textContent = data.text;
  byId("translation").textContent = data.translation || "(empty: the model ended at once)";
  const f = data.facts;
  byId("facts").textContent = `${f.encoder_layers} encoder and ${f.decoder_layers} decoder layers, d_model ${f.d_model}, ` +
    `d_ff ${f.d_ff}, ${f.num_heads} heads, d_k ${f.d_k}, d_v ${f.d_v}, a vocabulary of ${f.vocab_size.toLocaleString("en")} tokens, ` +
    `${f.parameters.toLocaleString("en")} parameters`;
  choices(byId("kinds"), data.attention.map((a) => a.title), state.kind, (i) => {
    state.kind = i;
    const a = data.attention[i];
    state.layer = Math.min(state.layer, a.layers - 1);
    drawPicker();
    drawAttention();
  });
  choices(byId("views"), ["Heat map", "Lines between words"], state.view, (i) => { state.view = i; drawAttention(); });
  drawPicker();
  drawAttention();
  const select = byId("alignment-layer"), layers = data.attention.find((a) => a.kind === "cross").layers;
  put(select, ...[...Array(layers).keys()].map((l) => make("option", `${l + 1}`, { value: l + 1 })));
  select.value = `${data.alignment.layer}`;
  select.addEventListener("change", drawAlignment);
  drawAlignment();
  choices(byId("steps"), data.written, 0, drawStep, token);
  drawStep(0);
  drawHypotheses();
  drawWalk();
}
function recolour() { drawPicker(); for (const heat of Heat.all) heat.draw(); }

byId("theme").addEventListener("click", () => {
  const root = document.documentElement, dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = root.dataset.theme || (dark ? "dark" : "light");
  root.dataset.theme = now === "dark" ? "light" : "dark";
  recolour();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
let waiting;
window.addEventListener("resize", () => {
  clearTimeout(waiting);
  waiting = setTimeout(() => {
    for (const heat of Heat.all) {
      heat.width = heat.figure.parentElement.clientWidth;
      heat.layOut();
    }
  }, 150);
});
drawAll();
