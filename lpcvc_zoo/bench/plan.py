"""The grid of a sweep: which models, under which contracts, on which targets, cheapest first."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

import lpcvc_zoo
from lpcvc_zoo.bench.cut import WHOLE, TextCut
from lpcvc_zoo.contract import get_contract
from lpcvc_zoo.entry import Entry, Preprocessing
from lpcvc_zoo.errors import UnknownNameError, ZooError
from lpcvc_zoo.exporting.precision import FLOAT, canonical
from lpcvc_zoo.exporting.rewrites import NONE, resolve
from lpcvc_zoo.retrieval import photos
from lpcvc_zoo.targets.base import Target, rewrites_for

UNTRAINED = "untrained"
# entry, weights, contract, cut, rewrites, precision, calibration
ExportArgs = tuple[str, str, str, TextCut, str, str, str]


@dataclass(frozen=True)
class Cell:
    """One point of the grid: a model with given weights, under a contract, on a target.

    ``weights`` is "untrained", a checkpoint's tag, or "adopted". ``folder``: of an artifact that is made
    already, whose preprocessing can't be measured by itself. ``export_id`` identifies the export by
    everything that shapes it. ``calibration`` names the data that calibrate a quantised one. ``dataset`` is
    the fingerprint of the data it is to be scored on, None where it is only measured.
    """

    entry: Entry
    weights: str
    contract: str
    target: Target
    export_id: str
    precision: str = "float"
    rewrites: str = "none"
    calibration: str = photos.CALIBRATION
    cut: TextCut = WHOLE
    dataset: str | None = None
    folder: Path | None = None

    @property
    def model(self) -> str:
        """The name ``build`` knows it by: "entry", or "entry.tag" with trained weights."""
        return self.entry.name if self.weights == UNTRAINED else f"{self.entry.name}.{self.weights}"

    @property
    def label(self) -> str:
        """The model, and what its text tower is cut to, if it is."""
        return ", ".join(filter(None, (self.model, str(self.cut))))

    @property
    def export_args(self) -> ExportArgs:
        model = (self.entry.name, self.weights, self.contract, self.cut)
        quantises = hasattr(self.target, "precision")  # by itself, from float
        return *model, self.rewrites, FLOAT if quantises else self.precision, self.calibration

    @property
    def preprocessing(self) -> Preprocessing:
        if self.weights == UNTRAINED:
            return self.entry.preprocessing
        return self.entry.checkpoint(self.weights).preprocessing

    @property
    def work(self) -> float:
        """Rough seconds this cell takes, for the time left; most is the export."""
        return 10.0 + min(self.entry.cost, 100.0)

    @cached_property
    def id(self) -> str:
        """Hash of all that a measurement depends on; rows of one cell differ in the dataset at most."""
        return digest(
            {
                "export": self.export_id,
                "target": self.target.fingerprint(),
                "precision": self.precision,
                "version": lpcvc_zoo.__version__,
            }
        )

    @cached_property
    def key(self) -> str:
        """Hash that identifies this cell's row: the measurement, and the dataset where it is scored."""
        return self.id if self.dataset is None else digest({"cell": self.id, "dataset": self.dataset})

    @cached_property
    def slot(self) -> str:
        """Hash of what a reader would call the same point of the plot: a newer row takes its place there.

        Unlike ``id`` it does not change with versions of tools or code. Of an artifact that is made already
        only the very same files are the same point: its name and tag say too little of what it may be.
        """
        return digest(
            {
                "model": self.model,
                "contract": self.contract,
                "text_length": self.cut.text_length,
                # Only where there is one, so that rows made before there was a depth keep their slot.
                **({"text_depth": self.cut.text_depth} if self.cut.text_depth else {}),
                "precision": self.precision,
                "rewrites": self.rewrites,
                **({"export": self.export_id} if self.folder is not None else {}),
                "target": [self.target.name, self.target.device, *self._setting],
            }
        )

    @property
    def _setting(self) -> list[Any]:
        fingerprint = self.target.fingerprint()
        return [fingerprint[name] for name in ("threads", "runtime") if name in fingerprint]

    @cached_property
    def preprocessing_key(self) -> str:
        """Cells that agree in this share one in-graph preprocessing; on a remote device, its time too."""
        if self.folder is not None:
            return self.id
        return digest(
            {
                "contract": get_contract(self.contract).model_dump(mode="json"),
                "preprocessing": [self.entry.image_size, self.preprocessing.interpolation],
                "target": self.target.fingerprint(),
            }
        )


def digest(facts: dict[str, Any]) -> str:
    """sha256 of canonical JSON."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def select(
    entries: Iterable[Entry],
    patterns: Sequence[str] = (),
    *,
    quick: bool = False,
    weights: Callable[[Entry], str] = lambda entry: UNTRAINED,
) -> list[tuple[Entry, str]]:
    """The (entry, weights) pairs that patterns choose, cheapest first.

    A pattern is a name with ``*``, ``?`` or ``[...]``: ``mobileclip*`` chooses models with what ``weights``
    says of each ("untrained", or a checkpoint's tag), ``mobileclip_s0.datacompdr`` or ``*.*`` published
    checkpoints; ``!efficientvit*`` takes away. Without a choosing pattern all entries of the default sweep
    are chosen. ``quick`` keeps the few small ones. An entry that exists only with a checkpoint is not chosen
    untrained unless named in full. UnknownNameError where a pattern matches nothing.
    """
    entries = list(entries)
    wanted = [pattern for pattern in patterns if not pattern.startswith("!")]
    unwanted = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    for pattern in (*wanted, *unwanted):
        if not any(_matches(pattern, pair) for entry in entries for pair in _all_weights(entry)):
            raise UnknownNameError("model", pattern, _names(entries), "See `lpcvc-zoo list`.")
    chosen: dict[tuple[str, str], tuple[Entry, str]] = {}
    for entry in entries:
        usual = (entry, weights(entry))
        for pair in _all_weights(entry):
            if any(_matches(pattern, pair) for pattern in wanted if "." in pattern):
                chosen[entry.name, pair[1]] = pair
        plain = [pattern for pattern in wanted if "." not in pattern and fnmatchcase(entry.name, pattern)]
        incomplete = usual[1] == UNTRAINED and entry.make_for is not None and entry.name not in plain
        if (plain and not incomplete) or (not wanted and entry.default_sweep):
            chosen[entry.name, usual[1]] = usual
    pairs = [
        pair
        for pair in chosen.values()
        if not any(_matches(pattern, pair) for pattern in unwanted) and (pair[0].quick or not quick)
    ]
    if not pairs:
        raise ZooError(
            "No model is left to sweep: expected at least one, "
            + (
                "none of the chosen ones is in the quick set. Leave out --quick."
                if quick
                else "all are excluded or need a checkpoint."
            )
        )
    return sorted(pairs, key=lambda pair: (pair[0].cost, pair[0].name, pair[1]))


def plan(
    models: Sequence[tuple[Entry, str]],
    targets: Sequence[Target],
    export_id: Callable[..., str],
    *,
    contracts: Sequence[str] = ("lpcvc2026",),
    precisions: Sequence[str] = ("float",),
    rewrites: str | None = None,
    calibration: str = photos.CALIBRATION,
    text_lengths: Sequence[int] = (),
    text_depths: Sequence[int] = (),
    dataset: str | None = None,
    evaluate_untrained: bool = False,
) -> list[Cell]:
    """All cells, in the order of ``models``; ``dataset`` is the fingerprint of the data to score on.

    ``export_id`` identifies the export of ``Cell.export_args``. ``rewrites``: "none", "npu" or names; None
    for what suits each target (``rewrites_for``). ``text_lengths``, ``text_depths``: a cell for each, up to
    the tower's context and its layers; none means the whole tower. Untrained models are scored only with
    ``evaluate_untrained``: their recall is chance. A target that quantises by itself has one ``precision``
    and gets the cells of that one. A target that ``emulates`` is not scored on: at seconds a sample that
    takes hours.
    """
    for contract in contracts:
        get_contract(contract)
    precisions = [canonical(precision) for precision in precisions]
    resolve(rewrites or NONE)
    cells = [
        Cell(
            entry=entry,
            weights=weights,
            contract=contract,
            target=target,
            export_id="",
            precision=precision,
            rewrites=rewrites_for(target, precision) if rewrites is None else rewrites,
            calibration=calibration,
            cut=cut,
            dataset=dataset
            if (evaluate_untrained or weights != UNTRAINED) and not getattr(target, "emulates", False)
            else None,
        )
        for entry, weights in models
        for contract in contracts
        for cut in _cuts(entry, contract, text_lengths, text_depths)
        for precision in precisions
        for target in targets
        if getattr(target, "precision", precision) == precision
    ]
    return [replace(cell, export_id=export_id(*cell.export_args)) for cell in cells]


def _cuts(entry: Entry, contract: str, lengths: Sequence[int], depths: Sequence[int]) -> list[TextCut]:
    longest = min(get_contract(contract).text.length, entry.text.context_length)
    return [
        TextCut(length, depth)
        for length in _below(longest, lengths)
        for depth in _below(entry.text_layers or 0, depths)
    ]


def _below(full: int, wanted: Sequence[int]) -> list[int | None]:
    """Those below ``full``, smallest first; None is all there is, which larger ones come to."""
    below = sorted({number for number in wanted if number < full})
    return [*below, None] if len(below) < len(set(wanted)) or not wanted else [*below]


def _names(entries: Sequence[Entry]) -> list[str]:
    tagged = [f"{entry.name}.{record.tag}" for entry in entries for record in entry.pretrained]
    return [entry.name for entry in entries] + tagged


def _all_weights(entry: Entry) -> list[tuple[Entry, str]]:
    return [(entry, UNTRAINED), *((entry, record.tag) for record in entry.pretrained)]


def _matches(pattern: str, pair: tuple[Entry, str]) -> bool:
    """A pattern without a tag matches whatever the weights, one with a tag only such checkpoints."""
    name, dot, tag = pattern.partition(".")
    entry, weights = pair
    return fnmatchcase(entry.name, name) and (not dot or (weights != UNTRAINED and fnmatchcase(weights, tag)))
