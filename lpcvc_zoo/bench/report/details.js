// Everything known about one row, shown below it.
function panel(row) {
  const full = row.full;
  const box = make("div", { class: "panel" });
  if (row.error) box.append(part("Error", make("pre", {}, row.error), "wide"));
  box.append(part("Model", list([
    ["entry", row.entry], ["weights", row.weights], ["precision", full.precision], ["rewrites", full.rewrites.join(", ")],
    ["image size", known(full.image_size) ? `${full.image_size} px` : null],
    ["text length", known(full.text_length) ? `${full.text_length} tokens` : null],
    ["text layers", full.text_depth],
    ["embedding", known(full.embed_dim) ? `${full.embed_dim} numbers` : null],
    ["parameters", `${million(full.image_params)} image, ${million(full.text_params)} text`],
    ["GMACs", `${fixed(2)(full.image_gmacs)} image, ${fixed(2)(full.text_gmacs)} text`],
    ["contract", full.contract], ["target", full.target], ["device", full.device], ["measured", full.created],
  ])));
  box.append(tower("Image tower", full.image, full.image_parity_cosine, full.image_sha256,
    [["of which preprocessing", known(full.preprocess_ms) ? `${ms(full.preprocess_ms)} ms, measured by itself` : null]]));
  box.append(tower("Text tower", full.text, full.text_parity_cosine, full.text_sha256, []));
  box.append(scores(full));
  box.append(part("Versions", list(Object.entries(full.versions).sort())));
  return box;
}

const million = (count) => (known(count) ? `${(count / 1e6).toFixed(1)} M` : DASH);

function part(title, content, kind) {
  return make("div", kind ? { class: kind } : {}, make("h3", {}, title), content);
}

function list(pairs) {
  const found = make("dl");
  for (const [name, value] of pairs) {
    found.append(make("dt", {}, name), make("dd", {}, known(value) && value !== "" ? value : DASH));
  }
  return found;
}

function tower(title, profile, cosine, sha256, more) {
  if (!profile) return part(title, make("p", { class: "dash" }, "not measured"));
  const latency = profile.latency, box = part(title, "");
  const sorted = latency ? [...latency.iterations_ms].sort((a, b) => a - b) : [];
  if (latency) box.append(histogram(sorted));
  box.append(list([
    ["median", latency ? `${ms(quantile(sorted, 0.5))} ms` : null],
    ["10 % to 90 %", latency ? `${ms(quantile(sorted, 0.1))} to ${ms(quantile(sorted, 0.9))} ms` : null],
    ["fastest, slowest", latency ? `${ms(sorted[0])}, ${ms(sorted[sorted.length - 1])} ms` : null],
    ["runs", latency ? `${sorted.length}, after ${latency.warmup_iterations} to warm up` : null],
    ...more,
    ...traffic(profile.traffic),
    ["threads", profile.threads], ["load", known(profile.load_ms) ? `${ms(profile.load_ms)} ms` : null],
    ["peak memory", megabytes(profile.peak_memory_bytes)], ["file", megabytes(profile.file_bytes)],
    ["cosine to torch", known(cosine) ? `${cosine.toFixed(7)} (worst)` : null], ["sha256", sha256],
    ["runtime", Object.entries(profile.runtime_versions).map((pair) => pair.join(" ")).join(", ")],
    ["job", job(profile)],
  ]));
  return box;
}

// The compiler's static estimate: nothing ran.
function traffic(estimate) {
  if (!known(estimate)) return [];
  const both = (read, written) => `${megabytes(read)} read, ${megabytes(written)} written`;
  return [
    ["static estimate", `${estimate.ops} operations, ${estimate.dma_ops} of them DMA`],
    ["VTCM", both(estimate.vtcm_read_bytes, estimate.vtcm_write_bytes)],
    ["DRAM", both(estimate.dram_read_bytes, estimate.dram_write_bytes)],
    ["of which spilled", megabytes(estimate.spill_bytes)],
  ];
}

function job(profile) {
  if (!/^https:\/\//.test(profile.job_url || "")) return profile.job_id;
  return make("a", { href: profile.job_url, rel: "noopener noreferrer", target: "_blank" }, profile.job_id || profile.job_url);
}

function scores(full) {
  if (!full.scores) {
    const chance = known(full.chance) ? `Not measured. Ranking at random gives ${full.chance.toFixed(3)} on ${full.dataset}.` : "not measured";
    return part("Recall", make("p", { class: "dash" }, chance));
  }
  const box = part("Recall, with its 95 % interval", list([
    ["dataset", `${full.scores.dataset}: ${full.scores.images} images, ${full.scores.texts} texts`],
    ["median rank", `${full.scores.median_rank_image_to_text} image to text, ${full.scores.median_rank_text_to_image} text to image`],
  ]));
  box.append(recallTable(full.scores.recalls));
  return box;
}

function recallTable(recalls) {
  const kind = (recall) => `${recall.direction.replaceAll("_", " ")}, ${recall.mode === "fraction" ? "fractional" : "any hit"}`;
  const ks = [...new Set(recalls.map((recall) => recall.k))].sort((a, b) => a - b);
  const table = make("table", { class: "recalls" }, make("tr", {}, make("th"), ...ks.map((k) => make("th", { scope: "col" }, `@${k}`))));
  for (const name of new Set(recalls.map(kind))) {
    const line = make("tr", {}, make("th", { scope: "row" }, name));
    for (const k of ks) {
      const found = recalls.find((recall) => recall.k === k && kind(recall) === name);
      line.append(make("td", {}, ...(found ? [found.value.toFixed(3), make("span", { class: "range" }, `[${found.low.toFixed(3)}, ${found.high.toFixed(3)}]`),
        make("span", { class: "range" }, `chance ${found.chance.toFixed(3)}`)] : [DASH])));
    }
    table.append(line);
  }
  return table;
}

// Between neighbours, as numpy does it.
function quantile(sorted, share) {
  const place = (sorted.length - 1) * share, below = Math.floor(place);
  return sorted[below] + (place - below) * ((sorted[below + 1] ?? sorted[below]) - sorted[below]);
}

function histogram(sorted) {
  const bins = 24, low = sorted[0], wide = (sorted[sorted.length - 1] - low) / bins || 1, count = Array(bins).fill(0);
  for (const time of sorted) count[Math.min(bins - 1, Math.floor((time - low) / wide))] += 1;
  const space = "http://www.w3.org/2000/svg", picture = document.createElementNS(space, "svg");
  const attributes = (element, values) => Object.entries(values).forEach(([name, value]) => element.setAttribute(name, value));
  attributes(picture, { class: "spread", viewBox: "0 0 240 50", preserveAspectRatio: "none", role: "img",
    "aria-label": `${sorted.length} runs from ${ms(low)} to ${ms(sorted[sorted.length - 1])} ms` });
  const most = Math.max(...count);
  count.forEach((times, bin) => {
    const bar = document.createElementNS(space, "rect");
    attributes(bar, { x: bin * 10 + 0.5, width: 9, y: 49 - 48 * times / most, height: 48 * times / most + 1, fill: "currentColor" });
    picture.append(bar);
  });
  return picture;
}
