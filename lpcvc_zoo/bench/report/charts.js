// Both charts. Plotly reads some HTML in texts, so every text of a row is escaped on its way there.
const CONFIG = { displaylogo: false, responsive: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };
const MARGIN = { l: 56, r: 14, t: 16, b: 50 };
const NARROW = 520; // pixels; below it the names of bars stand above them, as they do where they would take half of the width

const escaped = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

function theme() {
  const css = getComputedStyle(document.documentElement);
  const colour = (name) => css.getPropertyValue(`--${name}`).trim();
  return { ink: colour("ink"), soft: colour("soft"), grid: colour("grid"), card: colour("card"), alarm: colour("alarm") };
}

function layout(width, height, look, more) {
  return {
    width, height, margin: MARGIN, showlegend: false, hovermode: "closest", dragmode: "zoom",
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "system-ui, sans-serif", size: 12, color: look.ink },
    hoverlabel: { bgcolor: look.card, bordercolor: look.soft, font: { color: look.ink, size: 12 }, align: "left" },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: look.soft, activecolor: look.ink },
    ...more,
  };
}

function hover(row) {
  const lines = [
    `<b>${escaped(row.name)}</b>`,
    `${escaped(row.family)}, ${row.trained ? escaped(row.weights.split("@")[0]) : "untrained"}, ${escaped(row.full.precision)}`,
    ...(known(row.total_ms) ? [
      `total ${ms(row.total_ms)} ms`,
      `image ${ms(row.image_ms)} ms${known(row.preprocess_ms) ? `, of which preprocessing ${ms(row.preprocess_ms)} ms` : ""}`,
      `text ${ms(row.text_ms)} ms`,
    ] : []),
    ...(known(row.moved_mb) ? [
      `compiler's static estimate for ${escaped(row.moved_on)}, nothing ran:`,
      `${ms(row.moved_mb)} MB moved in the NPU's memory, ${ms(row.dram_mb)} MB in DRAM`,
    ] : []),
    known(row.recall) ? `recall ${recallText(row)}`
      : known(row.height) ? `recall not measured; drawn at chance, ${row.height.toFixed(3)}` : "recall not measured",
    `${fixed(1)(row.params_m)} M parameters, ${fixed(2)(row.gmacs)} GMACs`,
    `files ${fixed(1)(row.file_mb)} MB, peak memory ${fixed(0)(row.memory_mb)} MB`,
    `worst cosine to torch ${fixed(7)(row.parity)}`,
    `${escaped(row.full.contract)}, ${escaped(row.full.target)}, ${escaped(row.full.device)}`,
  ];
  if (row.error) lines.push(escaped(row.error.slice(0, 120)));
  return lines.join("<br>");
}

function drawScatter(rows, group, log, least) {
  const host = byId("scatter"), look = theme(), best = front(rows);
  const drawn = rows.filter((row) => known(row.cost) && known(row.height)).sort((a, b) => a.cost - b.cost);
  if (!drawn.length) return nothing(host, why(group, `Nothing to draw: no model is shown that has ${group && group.static ? "an estimate" : "a latency"} and a recall or a chance level.`));
  const scored = drawn.some((row) => known(row.recall));
  const size = { width: host.clientWidth, height: Math.max(least, Math.min(540, Math.max(380, host.clientWidth * 0.72))) };
  const narrow = size.width < NARROW, scale = scales(drawn, group, log, size);
  const traces = [{
    x: best.map((row) => row.cost), y: best.map((row) => row.recall), mode: "lines", hoverinfo: "skip",
    line: { shape: "hv", color: look.ink, width: 1.6 }, name: "Pareto front",
  }];
  const several = precisions(drawn);
  traces.push(...several.map(joined));
  for (const family of DATA.families) {
    const mine = drawn.filter((row) => row.family === family.name);
    if (mine.length) traces.push(points(family, mine, look));
  }
  byId("front-key").hidden = best.length < 2;
  byId("precisions-key").hidden = !several.length;
  const lines = references(group, scored, look, scale);
  const named = scored ? { texts: bestNames(best, drawn, scale, look), shapes: [] } : allNames(drawn, scale, look);
  Plotly.react(host, traces, layout(size.width, size.height, look, {
    xaxis: {
      type: log ? "log" : "linear", range: scale.x, tickvals: log ? ticks(scale.x) : undefined, gridcolor: look.grid,
      title: { text: axisTitle(group, narrow, log), standoff: 8 }, zeroline: false,
    },
    yaxis: { range: scale.y, title: { text: escaped(group.metric) + (scored && !narrow ? ", 95 % interval" : "") }, gridcolor: look.grid, zeroline: false },
    shapes: [...lines.shapes, ...named.shapes],
    annotations: [...lines.texts, ...named.texts],
  }), CONFIG);
  clickable(host);
}

function axisTitle(group, narrow, log) {
  const scale = `${log ? "log" : "linear"} scale)`;
  if (group.static) return `${narrow ? "" : "compiler's static estimate, "}MB moved (${scale}`;
  return narrow ? `latency, ms (${scale}` : `image + text latency, ms (median, ${scale}`;
}

// Rows that are one model in several precisions, as view.py defines it.
function precisions(rows) {
  const models = new Map();
  for (const row of rows) models.set(row.model, [...(models.get(row.model) || []), row]);
  return [...models.values()].filter((same) => new Set(same.map((row) => row.full.precision)).size > 1);
}

function joined(rows) {
  return {
    name: "precisions", mode: "lines", x: rows.map((row) => row.cost), y: rows.map((row) => row.height), hoverinfo: "skip",
    opacity: 0.6, line: { color: FAMILY[rows[0].family].colour, width: 1.6 },
  };
}

function points(family, rows, look) {
  return {
    name: escaped(family.name), mode: "markers", x: rows.map((row) => row.cost), y: rows.map((row) => row.height),
    hovertext: rows.map(hover), hoverinfo: "text", customdata: rows.map((row) => row.id),
    marker: { symbol: family.symbol, size: 11, opacity: 1, color: rows.map((row) => (row.trained ? family.colour : look.card)), line: { width: 1.8, color: family.colour } },
    error_y: { type: "data", symmetric: false, thickness: 1.2, width: 0, color: family.colour,
      array: rows.map((row) => (known(row.high) ? row.high - row.recall : 0)),
      arrayminus: rows.map((row) => (known(row.low) ? row.recall - row.low : 0)) },
  };
}

// Axis ranges, and where a point lands in pixels of the plot.
function scales(rows, group, log, size) {
  const times = rows.map((row) => row.cost).concat(known(group.budget_ms) ? [group.budget_ms] : []);
  const low = Math.min(...times), high = Math.max(...times);
  const top = rows.some((row) => known(row.high)) ? Math.min(1, Math.max(...rows.map((row) => row.high || 0)) * 1.12) || 1 : 1;
  const x = log ? [Math.log10(low / 1.35), Math.log10(high * 1.35)] : [0, high * 1.08], y = [-0.06 * top, top];
  const across = size.width - MARGIN.l - MARGIN.r, up = size.height - MARGIN.t - MARGIN.b;
  return {
    x, y, across, up, log,
    px: (row) => ((log ? Math.log10(row.cost) : row.cost) - x[0]) / (x[1] - x[0]) * across,
    py: (row) => (row.height - y[0]) / (y[1] - y[0]) * up,
  };
}

function ticks(range) {
  const values = [];
  for (let power = Math.floor(range[0]); power <= range[1]; power += 1) values.push(...[1, 2, 5].map((digit) => digit * 10 ** power));
  return values;
}

function references(group, scored, look, scale) {
  const shapes = [], texts = [], at = (value) => (scale.log ? Math.log10(value) : value);
  const dashed = (colour) => ({ type: "line", layer: "below", line: { color: colour, width: 1.4, dash: "dash" } });
  if (known(group.chance)) {
    shapes.push({ ...dashed(look.soft), xref: "paper", x0: 0, x1: 1, y0: group.chance, y1: group.chance });
    texts.push({ xref: "paper", x: 1, y: group.chance, xanchor: "right", yanchor: "top", showarrow: false, yshift: -7,
      text: `chance level ${group.chance.toFixed(3)}${scored ? "" : ": computed, not measured"}`, font: { size: 11, color: look.soft } });
  }
  if (known(group.budget_ms)) {
    shapes.push({ ...dashed(look.alarm), yref: "paper", y0: 0, y1: 1, x0: group.budget_ms, x1: group.budget_ms });
    const right = at(group.budget_ms) > (scale.x[0] + scale.x[1]) / 2;
    texts.push({ yref: "paper", y: 1, x: at(group.budget_ms), xanchor: right ? "right" : "left", yanchor: "top", showarrow: false,
      text: `budget ${group.budget_ms} ms`, font: { size: 11, color: look.alarm } });
  }
  return { shapes, texts };
}

// Names of the front, each in the first free corner of its point; upper left first, where no better model can be.
function bestNames(best, drawn, scale, look) {
  const taken = drawn.map((row) => ({ left: scale.px(row) - 6, right: scale.px(row) + 6, bottom: scale.py(row) - 6, top: scale.py(row) + 6 }));
  const texts = [];
  for (const row of [...best].reverse()) {
    const wide = row.name.length * 6.6 + 4, x = scale.px(row), y = scale.py(row);
    for (const [across, up] of [[-1, 1], [1, -1], [1, 1], [-1, -1]]) {
      const left = across < 0 ? x - 7 - wide : x + 7, bottom = up < 0 ? y - 20 : y + 5;
      const box = { left, right: left + wide, bottom, top: bottom + 15 };
      if (left < 0 || box.right > scale.across || bottom < 0 || box.top > scale.up || taken.some((other) => meet(box, other))
        || drawn.some((other) => apart(box, scale, other) < apart(box, scale, row))) continue;
      taken.push(box);
      texts.push({ x: scale.log ? Math.log10(row.cost) : row.cost, y: row.height, text: escaped(row.name), showarrow: false, borderpad: 0,
        xanchor: across < 0 ? "right" : "left", yanchor: up < 0 ? "top" : "bottom", xshift: across * 5, yshift: up * 3, font: { size: 11.5, color: look.ink } });
      break;
    }
  }
  return texts;
}

// From a point to a box: a text is read as the name of the point nearest to it.
const apart = (box, scale, row) => Math.hypot(Math.max(box.left - scale.px(row), 0, scale.px(row) - box.right), Math.max(box.bottom - scale.py(row), 0, scale.py(row) - box.top));
const meet = (one, other) => one.left < other.right && other.left < one.right && one.bottom < other.top && other.bottom < one.top;

// Where nothing was scored all points lie on one line: their names stand upright above it, moved aside to fit.
function allNames(rows, scale, look) {
  const pitch = 16, stem = 42;
  const texts = [{ xref: "paper", yref: "paper", x: 0.5, y: 0.97, yanchor: "top", showarrow: false, font: { size: 13, color: look.soft },
    text: "No trained weights were measured here,<br>so there is no recall to compare yet." }];
  if (rows.length * pitch > scale.across) return { texts, shapes: [] };
  const places = rows.map(scale.px);
  places.forEach((place, i) => { places[i] = Math.max(place, i ? places[i - 1] + pitch : pitch / 2); });
  for (let i = places.length - 1, limit = scale.across - pitch / 2; i >= 0 && places[i] > limit; i -= 1, limit -= pitch) places[i] = limit;
  const shapes = rows.map((row, i) => {
    const y = row.height + stem / scale.up * (scale.y[1] - scale.y[0]);
    const x = places[i] / scale.across * (scale.x[1] - scale.x[0]) + scale.x[0];
    texts.push({ x, y, text: escaped(row.name), textangle: -90, showarrow: false, yanchor: "bottom", borderpad: 0, font: { size: 11, color: look.ink } });
    return { type: "line", layer: "below", line: { color: look.soft, width: 0.7 }, x0: row.cost, y0: row.height, x1: scale.log ? 10 ** x : x, y1: y };
  });
  return { texts, shapes };
}

// A name in lines of so many characters at most, broken between words where that can be.
const folded = (name, most) => name.match(new RegExp(`.{1,${most}}(?:\\s|$)|.{1,${most}}`, "gs"));

// Returns its height in pixels.
function drawBars(rows, group) {
  const host = byId("bars"), look = theme();
  const drawn = rows.filter((row) => row.parts).sort((a, b) => a.cost - b.cost);
  if (!drawn.length) return nothing(host, why(group, "Nothing to draw: no model is shown that was measured."));
  const width = host.clientWidth, places = drawn.map((_, i) => i), longest = Math.max(...drawn.map((row) => row.cost));
  const beside = 14 + 6.4 * Math.max(...drawn.map((row) => row.name.length)); // pixels that names beside the bars take
  const narrow = width < NARROW || beside > width / 2;
  const margin = { ...MARGIN, l: narrow ? 10 : beside, t: narrow ? 24 : MARGIN.t }, room = width - margin.l - margin.r;
  const above = drawn.map((row) => folded(row.name, Math.floor(room / 6.2)));
  const pitch = narrow ? 25 + 13 * Math.max(...above.map((lines) => lines.length)) : 25, height = pitch * drawn.length + margin.t + margin.b;
  const colours = drawn.map((row) => FAMILY[row.family].colour);
  const looks = [{ color: colours }, { color: colours, pattern: { shape: "/", size: 6, fillmode: "overlay", fgcolor: colours, bgcolor: look.card, solidity: 0.4 } }, { color: colours, opacity: 0.45 }];
  const traces = ["image encoder", "preprocessing in the image graph", "text encoder"].map((name, part) => ({
    type: "bar", orientation: "h", name, x: drawn.map((row) => row.parts[part]), y: places, width: narrow ? 15 / pitch : 0.66,
    marker: { ...looks[part], line: { width: 0 } }, hovertext: drawn.map(hover), hoverinfo: "text", customdata: drawn.map((row) => row.id),
  }));
  Plotly.react(host, traces, layout(width, height, look, {
    margin, barmode: "stack",
    xaxis: { range: [0, longest * room / Math.max(room - 62, room / 3)], title: { text: group.static ? "compiler's static estimate, MB moved" : "latency, ms (median)", standoff: 8 }, gridcolor: look.grid, zeroline: false },
    yaxis: { range: [drawn.length - 0.4, -0.7], tickvals: narrow ? [] : places, ticktext: drawn.map((row) => escaped(row.name)), showgrid: false, zeroline: false, fixedrange: true,
      ticks: "outside", ticklen: 5, tickcolor: "rgba(0,0,0,0)" },
    annotations: [
      ...drawn.map((row, i) => ({ x: row.cost, y: i, xanchor: "left", showarrow: false, xshift: 2, text: `<b>${ms(row.cost)}</b> ${group.static ? "MB" : "ms"}`, font: { size: 11.5, color: look.ink } })),
      ...(narrow ? above.map((lines, i) => ({ x: 0, y: i, xanchor: "left", yanchor: "bottom", showarrow: false, yshift: 7, align: "left", text: lines.map(escaped).join("<br>"), font: { size: 11, color: look.ink } })) : []),
    ],
  }), CONFIG);
  clickable(host);
  return height;
}

function why(group, reason) {
  if (group) return reason;
  return DATA.rows.length ? "Choose one comparison above to see its chart." : "Nothing has been measured yet.";
}

function nothing(host, reason) {
  Plotly.purge(host);
  host.replaceChildren(make("p", { class: "empty" }, reason));
  return 0;
}

function clickable(host) {
  const first = host.firstElementChild;
  if (first && first.classList.contains("empty")) first.remove();
  host.removeAllListeners("plotly_click");
  host.on("plotly_click", (event) => {
    const id = event.points[0].customdata;
    if (known(id)) showRow(id);
  });
}
