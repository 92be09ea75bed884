// The table: one line a model, sorted by any column, each with its details below on request.
const ESTIMATED = new Set(DATA.rows.map((row) => row.moved_on).filter(known)); // devices
const COLUMNS = [
  { key: "name", title: "Model", text: true, cell: nameCell },
  { key: "family", title: "Family", text: true, cell: familyCell },
  { key: "weights", title: "Weights", text: true, cell: (row) => (row.trained ? row.weights.split("@")[0] : "untrained") },
  { key: "recall", title: "Recall\n95 % interval", cell: recallCell },
  { key: "total_ms", title: "Total\nms", cell: (row) => ms(row.total_ms) },
  { key: "moved_mb", title: `Static MB,\n${ESTIMATED.size === 1 ? [...ESTIMATED][0] : "moved"}`, cell: movedCell },
  { key: "image_ms", title: "Image\nms", cell: (row) => ms(row.image_ms) },
  { key: "preprocess_ms", title: "of which\nprepr., ms", cell: (row) => ms(row.preprocess_ms) },
  { key: "text_ms", title: "Text\nms", cell: (row) => ms(row.text_ms) },
  { key: "params_m", title: "Params\nM", cell: (row) => fixed(1)(row.params_m) },
  { key: "gmacs", title: "Compute\nGMACs", cell: (row) => fixed(2)(row.gmacs) },
  { key: "file_mb", title: "Files\nMB", cell: (row) => fixed(1)(row.file_mb) },
  { key: "memory_mb", title: "Peak mem.\nMB", cell: (row) => fixed(0)(row.memory_mb) },
  { key: "parity", title: "Worst cosine\nto torch", cell: (row) => fixed(7)(row.parity) },
].filter((column) => column.key !== "moved_mb" || ESTIMATED.size);

function nameCell(row, best) {
  const button = make("button", { type: "button", "aria-expanded": state.open.has(row.id) }, row.name);
  button.addEventListener("click", () => toggle(row.id));
  const cell = make("span", {}, button);
  if (best.has(row.id)) cell.append(make("span", { class: "tag front", title: "On the Pareto front of what is shown" }, "front"));
  if (row.error) cell.append(make("span", { class: "tag alarm" }, "failed"));
  return cell;
}

function familyCell(row) {
  const dot = make("span", { class: "dot" });
  dot.style.background = FAMILY[row.family].colour;
  return make("span", {}, dot, row.family);
}

// Of the same model on the compiler's device, which is seldom where the latency was measured.
function movedCell(row) {
  return known(row.moved_mb) ? make("span", { title: `compiler's static estimate for ${row.moved_on}; nothing ran` }, ms(row.moved_mb)) : DASH;
}

function recallCell(row) {
  if (!known(row.recall)) return DASH;
  return make("span", {}, row.recall.toFixed(3), make("span", { class: "range" }, ` [${row.low.toFixed(3)}, ${row.high.toFixed(3)}]`));
}

// Missing values come last in either direction.
function sorted(rows) {
  const key = state.sort, sign = state.down ? -1 : 1;
  return [...rows].sort((a, b) => {
    if (!known(a[key]) || !known(b[key])) return known(b[key]) - known(a[key]) || a.id - b.id;
    const order = typeof a[key] === "number" ? a[key] - b[key] : String(a[key]).localeCompare(String(b[key]), "en", { numeric: true });
    return sign * order || a.id - b.id;
  });
}

function drawHead() {
  const line = make("tr");
  for (const column of COLUMNS) {
    const button = make("button", { type: "button" }, column.title);
    button.addEventListener("click", () => {
      state.down = state.sort === column.key && !state.down;
      state.sort = column.key;
      drawTable();
    });
    line.append(make("th", { scope: "col", class: column.text ? "text" : "", "data-key": column.key }, button));
  }
  document.querySelector("thead").append(line);
}

function drawTable() {
  const rows = sorted(visible()), best = new Set(charted().length ? front(charted()).map((row) => row.id) : []);
  for (const head of document.querySelectorAll("thead th")) {
    const mine = head.dataset.key === state.sort;
    head.setAttribute("aria-sort", mine ? (state.down ? "descending" : "ascending") : "none");
  }
  const focused = document.activeElement?.closest?.("tr.model")?.id;
  document.querySelector("tbody").replaceChildren(...rows.flatMap((row) => lines(row, best)));
  if (focused) byId(focused)?.querySelector("button").focus();
  byId("empty").hidden = rows.length > 0;
  byId("empty").textContent = DATA.rows.length ? "No model passes these filters." : "No model has been measured yet.";
  byId("count").textContent = `${rows.length} of ${DATA.rows.length} models shown`;
}

function lines(row, best) {
  const line = make("tr", { class: row.error ? "model failed" : "model", id: `row-${row.id}` });
  const told = row.error && !known(row.cost); // what went wrong takes the place of the numbers
  for (const column of told ? COLUMNS.filter((one) => one.text) : COLUMNS) {
    const content = column.cell(row, best);
    line.append(make("td", { class: `${column.text ? "text" : ""} ${content === DASH ? "dash" : ""}` }, content));
  }
  if (told) line.append(make("td", { class: "text error", colspan: COLUMNS.filter((one) => !one.text).length, title: row.error }, row.error));
  if (!state.open.has(row.id)) return [line];
  const details = make("tr", { class: "details" }, make("td", { colspan: COLUMNS.length }, panel(row)));
  return [line, details];
}

function toggle(id) {
  if (!state.open.delete(id)) state.open.add(id);
  drawTable();
}

function showRow(id) {
  state.open.add(id);
  drawTable();
  byId(`row-${id}`).scrollIntoView({ block: "center" });
  byId(`row-${id}`).querySelector("button").focus({ preventScroll: true });
}
