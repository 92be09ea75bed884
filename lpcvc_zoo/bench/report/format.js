// The report's data, and how its values read. Texts become DOM text nodes only, never HTML.
const DATA = JSON.parse(document.getElementById("data").textContent);
const DASH = "–";
const FAMILY = Object.fromEntries(DATA.families.map((family) => [family.name, family]));
DATA.rows.forEach((row, id) => { row.id = id; });

const byId = (id) => document.getElementById(id);

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const known = (value) => value !== null && value !== undefined;
const fixed = (digits) => (value) => (known(value) ? value.toFixed(digits) : DASH);
const ms = (value) => (known(value) ? value.toFixed(value < 0.995 ? 2 : value < 99.5 ? 1 : 0) : DASH);
const megabytes = (bytes) => (known(bytes) ? `${(bytes / 1e6).toFixed(1)} MB` : DASH);

function recallText(row) {
  return known(row.recall) ? `${row.recall.toFixed(3)} [${row.low.toFixed(3)}, ${row.high.toFixed(3)}]` : DASH;
}

// Rows that no other row beats in both cost and recall, by rising cost; as pareto.py defines it.
function front(rows) {
  const scored = rows.filter((row) => row.trained && known(row.recall) && known(row.cost));
  scored.sort((a, b) => a.cost - b.cost || b.recall - a.recall);
  const best = [];
  for (const row of scored) {
    const last = best[best.length - 1];
    if (!last || row.recall > last.recall || (row.recall === last.recall && row.cost === last.cost)) {
      best.push(row);
    }
  }
  return best;
}

function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

// The same bytes as results.csv has for these rows.
function csv(rows) {
  const quoted = (cell) => (/[",\r\n]/.test(cell) ? `"${cell.replace(/"/g, '""')}"` : cell);
  return [DATA.columns, ...rows.map((row) => row.cells)].map((cells) => cells.map(quoted).join(",") + "\n").join("");
}

function json(rows) {
  return JSON.stringify({ ...DATA.header, rows: rows.map((row) => row.full) }, null, 1);
}
