"""From what a user asks for - a tag, a hub repository, a file, a soup of files - to weights for an entry."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from lpcvc_zoo.entry import Entry, Preprocessing, Pretrained
from lpcvc_zoo.errors import WeightsError
from lpcvc_zoo.files import given_path
from lpcvc_zoo.weights.fetch import fetch_hub, files_of, sha_of

if TYPE_CHECKING:
    from torch import Tensor, nn

logger = logging.getLogger(__name__)

# One checkpoint: True (the entry's first tag), a tag, "hf-hub:org/repo[@revision]", or a path. Several are a
# soup: a sequence with equal shares, a mapping with a share for each.
Source = str | Path
Choice = bool | Source | Sequence[Source] | Mapping[Source, float]

HUB = "hf-hub:"
PERMISSIVE = frozenset({"MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "CC-BY-4.0"})
REPARAMETERISED = ".reparam_conv."  # timm's name, and ours, for branches folded into one convolution
_noticed: set[str] = set()


@dataclass(frozen=True)
class Checkpoint:
    """Weights under an entry's own names, read but not yet held against towers.

    ``label`` says what they are in results ("openai@40d36571", "tuned.pt@1b2c3d4e"), ``what`` what messages
    call them, ``preprocessing`` is what they were trained with. ``trained_at``: the ``image_size`` and
    ``contract`` that a file of ``lpcvc-zoo train`` says.
    """

    tensors: dict[str, Tensor]
    preprocessing: Preprocessing
    label: str
    what: str
    trained_at: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor by name, for ``Entry.make_for``."""
        return {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}

    def load_into(self, towers: nn.Module) -> None:
        """Put the weights into ``towers`` (an unfused ``Towers``), in place, all of them or none.

        Where the checkpoint has its branches folded already, as an Apple file for inference has, the same
        tower is put into that form first. Positional embeddings of another length are resized, and logged.

        WeightsError lists everything that is missing, unexpected, misshapen or of another kind.
        """
        from timm.utils.model import reparameterize_model

        from lpcvc_zoo.weights.fit import fit
        from lpcvc_zoo.weights.resize import resize_positions

        folded = {name.partition(".")[0] for name in self.tensors if REPARAMETERISED in name}
        for name, tower in towers.named_children():
            if name in folded:
                tower.eval()  # folding is right only for BatchNorm in evaluation
                setattr(towers, name, reparameterize_model(tower, inplace=True))
        own = towers.state_dict()
        wanted = {name: tuple(tensor.shape) for name, tensor in own.items()}
        integers = {name for name, tensor in own.items() if not tensor.is_floating_point()}
        resized = resize_positions(self.tensors, wanted, what=self.what)
        state = fit(resized, wanted, what=self.what, integers=integers)
        towers.load_state_dict(state)

    def warn_unless(self, **built: Any) -> None:
        """Log where a model is built at something else than its weights were trained at."""
        for name, value in self.trained_at.items():
            if built[name] != value:
                logger.warning("%s: trained at %s %s, built at %s.", self.what, name, value, built[name])


def load(entry: Entry, choice: Choice) -> Checkpoint:
    """The weights that ``choice`` names, fetched if need be, verified, read and renamed for ``entry``.

    A published tag brings its own preprocessing, and so does a file that ``lpcvc-zoo train`` wrote;
    everything else has the entry's. A licence that restricts use is logged as a warning, once per process.

    UnknownNameError for a tag that the entry does not have. WeightsError where there is no such checkpoint,
    it can't be had or read, is in no known layout, or a soup's checkpoints are not alike.
    """
    if choice is False:
        raise ValueError("choice=False names no checkpoint; build the entry untrained instead.")
    if isinstance(choice, Mapping):
        return _soup(entry, choice)
    if isinstance(choice, Sequence) and not isinstance(choice, str):
        if len(set(choice)) != len(choice):
            raise WeightsError(f"A soup names a checkpoint twice: {list(map(str, choice))}. Give it shares.")
        return _soup(entry, dict.fromkeys(choice, 1.0))
    return _one(entry, choice)


def _one(entry: Entry, source: bool | Source) -> Checkpoint:
    from lpcvc_zoo.weights.layouts import to_own_names
    from lpcvc_zoo.weights.read import read_facts, read_tensors

    record = record_of(entry, source)
    if record is not None:
        paths, name, preprocessing = files_of(record, model=entry.name), record.tag, record.preprocessing
        notice(entry.name, record)
    elif isinstance(source, str) and source.startswith(HUB):
        paths, name, preprocessing = (fetch_hub(source),), source.removeprefix(HUB), entry.preprocessing
    else:
        paths = (given_path(str(source)),)
        name, preprocessing = paths[0].name, entry.preprocessing
    what = f"{name} for {entry.name}"
    stored: dict[str, Tensor] = {}
    for path in paths:
        stored |= read_tensors(path)
    tensors = to_own_names(stored, what=what)
    facts = {} if record is not None else read_facts(paths[0])
    trained_at = {name: value for name, value in facts.items() if name in ("image_size", "contract")}
    own = facts.get("preprocessing")
    if own is not None:
        try:
            preprocessing = Preprocessing.model_validate(own)
        except ValidationError:
            raise WeightsError(f"{what} was trained with the preprocessing {own}, which is none.") from None
    return Checkpoint(tensors, preprocessing, f"{name}@{sha_of(*paths)}", what, trained_at)


def record_of(entry: Entry, source: bool | Source) -> Pretrained | None:
    """The published checkpoint that ``source`` names, or None where it names a repository or a path.

    A word that could be a tag is one, unless the entry has no such tag and a file of that name is there.
    """
    if source is True:
        if not entry.pretrained:
            raise WeightsError(
                f"{entry.name} has no published checkpoint. Pass pretrained= the path of one that you "
                "trained, or pretrained=False for untrained weights."
            )
        return entry.pretrained[0]
    if not isinstance(source, str) or source.startswith(HUB):
        return None
    is_tag = source in {record.tag for record in entry.pretrained}
    if not is_tag and (Path(source).suffix or len(Path(source).parts) > 1 or Path(source).exists()):
        return None
    return entry.checkpoint(source)


def _soup(entry: Entry, shares: Mapping[Source, float]) -> Checkpoint:
    from lpcvc_zoo.weights.soup import average

    parts = {str(source): _one(entry, source) for source in shares}
    if not parts:
        raise WeightsError("A soup needs at least one checkpoint; got none.")
    preprocessings = {part.preprocessing for part in parts.values()}
    if len(preprocessings) > 1:
        raise WeightsError(f"No soup of {', '.join(parts)}: they were trained with different preprocessing.")
    tensors = average(
        {name: part.tensors for name, part in parts.items()},
        {str(source): share for source, share in shares.items()},
    )
    equal = len(set(shares.values())) == 1
    labels = [
        part.label if equal else f"{share:g}*{part.label}"
        for part, share in zip(parts.values(), shares.values(), strict=True)
    ]
    what = f"the soup of {', '.join(parts)} for {entry.name}"
    return Checkpoint(tensors, preprocessings.pop(), f"soup({'+'.join(labels)})", what)


def notice(model: str, record: Pretrained) -> None:
    """Log a licence that restricts use, the first time in this process that its checkpoint is loaded."""
    if record.licence not in PERMISSIVE and record.licence not in _noticed:
        _noticed.add(record.licence)
        logger.warning("%s.%s is not free for every use. Its licence: %s.", model, record.tag, record.licence)
