// What is shown now, and what changes it.
const ALL = "all";
const state = { group: 0, search: "", weights: ALL, off: new Set(), sort: "total_ms", down: false, open: new Set(), log: true };

function words(row) {
  const { full } = row;
  const texts = [row.name, row.entry, row.family, row.weights.split("@")[0], full.contract, full.target, full.device, full.precision, row.error];
  for (const pair of Object.entries(full.versions)) texts.push(pair.join(" "));
  return texts.filter(known).join("\n").toLowerCase();
}
for (const row of DATA.rows) row.words = words(row);

function visible() {
  const terms = state.search.toLowerCase().split(/\s+/).filter(Boolean);
  return DATA.rows.filter((row) => (state.group === ALL || row.group === state.group)
    && (state.weights === ALL || row.trained === (state.weights === "trained"))
    && !state.off.has(row.family) && terms.every((term) => row.words.includes(term)));
}

// Only rows of one comparison may be drawn together.
const charted = () => (state.group === ALL ? [] : visible());

function drawCharts() {
  const group = DATA.groups[state.group];
  const height = drawBars(charted(), group);
  const besides = byId("bars").closest("figure").offsetTop === byId("scatter").closest("figure").offsetTop;
  drawScatter(charted(), group, state.log, besides ? Math.min(height, 720) : 0);
}

function draw() {
  drawTable();
  drawCharts();
}

function drawWords() {
  const group = DATA.groups[state.group];
  byId("setting").textContent = group ? group.setting : DATA.rows.length ? "all comparisons together" : "";
  for (const name of ["findings", "caveats"]) {
    byId(name).replaceChildren(...(group ? group[name] : []).map((sentence) => make("li", {}, sentence)));
  }
  document.querySelector(".words").hidden = !group;
  const fixed = group && group.static;
  byId("against").textContent = fixed ? "Recall against the compiler's static estimate" : "Recall against latency";
  byId("preprocessing-key").hidden = fixed;
  byId("made-of").textContent = fixed ? "Where the megabytes move" : "Where the milliseconds go";
}

function familyChip(family) {
  const space = "http://www.w3.org/2000/svg", icon = document.createElementNS(space, "svg"), shape = document.createElementNS(space, "path");
  const paths = {
    circle: "M7 1a6 6 0 1 0 .01 0z", square: "M1.5 1.5h11v11h-11z", diamond: "M7 0l7 7-7 7-7-7z", "triangle-up": "M7 1l6.5 11.5H.5z",
    "triangle-down": "M7 13L.5 1.5h13z", pentagon: "M7 .5l6.5 5-2.5 8H3L.5 5.5z", hexagon: "M7 0l6 3.5v7L7 14l-6-3.5v-7z", cross: "M5 1h4v4h4v4H9v4H5V9H1V5h4z",
  };
  icon.setAttribute("viewBox", "0 0 14 14");
  icon.setAttribute("aria-hidden", "true");
  shape.setAttribute("d", paths[family.symbol]);
  shape.setAttribute("fill", family.colour);
  icon.append(shape);
  const chip = make("button", { type: "button", "aria-pressed": "true" }, icon, family.name);
  chip.addEventListener("click", () => {
    if (!state.off.delete(family.name)) state.off.add(family.name);
    chip.setAttribute("aria-pressed", String(!state.off.has(family.name)));
    draw();
  });
  return chip;
}

// The cheapest first, in what this comparison counts; any other order that was chosen stays.
function sortByCost() {
  if (!["total_ms", "moved_mb"].includes(state.sort)) return;
  const group = DATA.groups[state.group];
  state.sort = group && group.static ? "moved_mb" : "total_ms";
}

function setUp() {
  byId("headline").textContent = DATA.headline;
  document.title = `${DATA.headline} (lpcvc_zoo)`;
  byId("made").textContent = `Made by lpcvc_zoo ${DATA.header.lpcvc_zoo} at ${DATA.header.generated}. This page works offline; all numbers are inside it.`;
  byId("families").append(...DATA.families.map(familyChip));
  const choice = byId("comparison").querySelector("select");
  choice.append(...DATA.groups.map((group, place) => new Option(`${place + 1}. ${group.setting}`, place)), new Option("all, in the table only", ALL));
  byId("comparison").hidden = DATA.groups.length < 2;
  choice.addEventListener("change", () => {
    state.group = choice.value === ALL ? ALL : Number(choice.value);
    sortByCost();
    drawWords();
    draw();
  });
  byId("weights").addEventListener("change", (event) => { state.weights = event.target.value; draw(); });
  byId("search").addEventListener("input", (event) => { state.search = event.target.value; draw(); });
  byId("reset").addEventListener("click", reset);
  byId("csv").addEventListener("click", () => download("results.csv", "text/csv", csv(sorted(visible()))));
  byId("json").addEventListener("click", () => download("results.json", "application/json", json(sorted(visible()))));
  for (const kind of ["log", "linear"]) byId(kind).addEventListener("click", () => chooseAxis(kind === "log"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawCharts);
  followWidth();
}

function reset() {
  Object.assign(state, { search: "", weights: ALL });
  state.off.clear();
  byId("search").value = "";
  byId("weights").value = ALL;
  for (const chip of byId("families").children) chip.setAttribute("aria-pressed", "true");
  draw();
}

function chooseAxis(log) {
  state.log = log;
  byId("log").setAttribute("aria-pressed", String(log));
  byId("linear").setAttribute("aria-pressed", String(!log));
  drawCharts();
}

function followWidth() {
  const scroll = document.querySelector(".scroll");
  let last = window.innerWidth;
  const fit = () => scroll.style.setProperty("--seen", `${scroll.clientWidth}px`);
  fit();
  window.addEventListener("resize", () => {
    fit();
    if (window.innerWidth !== last) requestAnimationFrame(drawCharts);
    last = window.innerWidth;
  });
}

setUp();
sortByCost();
drawHead();
drawWords();
draw();
