"""docs/snapdragon.md: what Qualcomm's offline compiler said of every model, out of the file that records it.

    python benchmarks/qnn_page.py            after benchmarks/qnn_coverage.py

A model that was not tried, and a number that was not measured, is shown as such.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from itertools import product
from math import floor, isfinite, isnan
from pathlib import Path

from lpcvc_zoo import get_entry, list_models
from lpcvc_zoo.contract import CONTRACTS, TOWERS

RECORD = Path(__file__).with_name("qnn_coverage.csv")
PAGE = Path(__file__).parent.parent / "docs" / "snapdragon.md"
KEY = ("model", "contract", "precision", "device", "tower")
PRECISIONS = ("float", "w8a16")
DEVICES = ("XR2 Gen 2", "Snapdragon 8 Elite")
TRAINED, SETTLED = "trained", "settled"  # kinds of weights
ABSENT = "–"
NAN = "NaN"
HEAD = """# Every model through the offline Snapdragon compiler

Made by `python benchmarks/qnn_page.py` from [`benchmarks/qnn_coverage.csv`](../benchmarks/qnn_coverage.csv),
which `python benchmarks/qnn_coverage.py` fills; {versions}. `--rewrites npu`,
compiled strictly for the NPU. Image / text tower; one value where both have the same.

- **takes**: whether the compiler takes every node.
- **DRAM MB**: read and written there in one inference, by the compiler's static estimate; no time is known.
- **cosine**: the worst to torch of one to six photos or captions, in the NPU's emulated arithmetic (fp16
  for float), rounded down. In w8a16 of untrained weights it is the worst to the same file in ONNX Runtime,
  since how well random weights can be quantised says nothing.
- **weights**: those that come with the package, trained; else random ones whose branches all count
  ([settled.py](../benchmarks/settled.py)): as they are born, many are multiplied by next to nothing, which
  hides what a compiler gets wrong there.
- `{absent}`: not tried, or not measured. Models whose shape only a checkpoint knows (`tinyclip_auto_*`) are
  not here; `qnn_coverage.py --pretrained` compiles them.
"""

Row = dict[str, str]
Found = dict[tuple[str, ...], Row]


def page(rows: Iterable[Row], models: Sequence[str]) -> str:
    """The page in Markdown; ``rows`` as ``qnn_coverage.py`` writes them, ``models`` all there are."""
    found = {tuple(row[name] for name in KEY): row for row in rows}
    versions = " and ".join(sorted({row["compiler"] for row in found.values()}))
    head = HEAD.format(versions=versions, absent=ABSENT)
    return "\n".join([head, *_verdict(found, models), *_tables(found, models)])


def _verdict(found: Found, models: Sequence[str]) -> list[str]:
    """What was tried, what was taken, what was refused and what lint says, in sentences."""
    wanted = list(product(models, CONTRACTS, PRECISIONS, DEVICES, TOWERS))
    tried = [found[key] for key in wanted if key in found]
    refused = [row for row in tried if row["compiles"] != "yes"]
    taken = len(tried) - len(refused)
    lines = [f"Of {len(wanted)} compilations {len(tried)} were tried, {taken} of them taken whole."]
    lines += [f"- Refused: {', '.join(row[name] for name in KEY)}: {row['compiles']}" for row in refused]
    lines += [
        f"- Emulated to {NAN}: {', '.join(row[name] for name in KEY)}"
        for row in tried
        if _is_nan(_cosine(row))
    ]
    lines += [_lowest(found, *chosen) for chosen in product(PRECISIONS, DEVICES, (TRAINED, SETTLED))]
    found_by_lint = sorted({(row["model"], row["tower"], row["lint"]) for row in tried if row["lint"]})
    lines += [f"- Lint: {model}, {tower} tower: {finding}" for model, tower, finding in found_by_lint]
    return [*filter(None, lines), ""]


def _lowest(found: Found, precision: str, device: str, weights: str) -> str:
    """The tower that agrees least, and of how many; empty where none was emulated."""
    cosines = {
        key: float(_cosine(row))
        for key, row in found.items()
        if (*key[2:4], row.get("weights")) == (precision, device, weights)
        and _cosine(row)
        and not _is_nan(_cosine(row))
    }
    if not cosines:
        return ""
    model, contract, *_, tower = lowest = min(cosines, key=cosines.__getitem__)
    kind = "trained" if weights == TRAINED else "untrained"
    return (
        f"- Lowest cosine of {len(cosines)} {kind} towers emulated in {precision} for {device}: "
        f"{_shown('cosine', _cosine(found[lowest]))} (`{model}`, {tower} tower, `{contract}`)."
    )


def _tables(found: Found, models: Sequence[str]) -> list[str]:
    lines: list[str] = []
    for contract, device in product(CONTRACTS, DEVICES):
        lines += [f"## `{contract}`, {device}", ""]
        lines.append(
            "| model | " + " | ".join(f"{one}: takes | DRAM MB | cosine" for one in PRECISIONS) + " |"
        )
        lines.append("|---|" + "---|" * 3 * len(PRECISIONS))
        for model in models:
            cells = [
                _both(found, (model, contract, precision, device), fact)
                for precision, fact in product(PRECISIONS, ("compiles", "DRAM MB", "cosine"))
            ]
            lines.append(f"| `{model}` | " + " | ".join(cells) + " |")
        lines.append("")
    return lines


def _cosine(row: Row) -> str:
    """The cosine of a line that says most of the compiler: see the page's head."""
    beside = row.get("weights") == SETTLED and row["precision"] != "float"
    return row.get("to ONNX Runtime" if beside else "cosine", "")


def _both(found: Found, key: tuple[str, ...], fact: str) -> str:
    """The fact of the image tower / of the text tower."""
    values = [_cell(found.get((*key, tower), {}), fact) for tower in TOWERS]
    return values[0] if values[0] == values[1] else " / ".join(values)


def _cell(row: Row, fact: str) -> str:
    return _shown(fact, _cosine(row) if fact == "cosine" else row.get(fact, ""))


def _shown(fact: str, value: str) -> str:
    if not value:
        return ABSENT
    if fact == "compiles":
        return "yes" if value == "yes" else "no"
    if fact == "cosine" and _is_nan(value):
        return NAN
    return f"{floor(float(value) * 1e5) / 1e5:.5f}" if fact == "cosine" else value  # never rounded up to 1


def _is_nan(cosine: str) -> bool:
    return bool(cosine) and isnan(float(cosine))


def main() -> None:
    with RECORD.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    entries = sorted(map(get_entry, list_models()), key=lambda entry: (entry.family, entry.cost))
    models = [entry.name for entry in entries if isfinite(entry.cost)]
    PAGE.write_text(page(rows, models) + "\n", encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
