"""Every error this library raises on purpose: what was expected, what came, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ZooError(Exception):
    """Base of all errors raised on purpose; its message is meant to be shown without a traceback."""


class UnknownNameError(ZooError):
    """A name that nobody registered. Carries ``suggestions``, the nearest known names."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        self.kind = kind
        self.name = name
        everything = sorted(known)
        self.suggestions = tuple(difflib.get_close_matches(name, everything, n=3, cutoff=0.5))
        if self.suggestions:
            advice = f"Did you mean {_either(self.suggestions)}?"
        elif everything:
            shown = ", ".join(everything[:8]) + (", ..." if len(everything) > 8 else "")
            advice = f"Known: {shown}."
        else:
            advice = f"No {kind} is registered."
        super().__init__(f"Unknown {kind} {name!r}. {advice}{' ' + hint if hint else ''}")


class ContractError(ZooError):
    """An array, image, text or model that breaks the contract it is used under.

    ``field`` names what broke (``"image.shape"``), ``expected`` and ``got`` say how.
    """

    def __init__(self, field: str, expected: str, got: str, hint: str = "") -> None:
        self.field, self.expected, self.got = field, expected, got
        super().__init__(f"{field}: expected {expected}, got {got}.{' ' + hint if hint else ''}")


class RegistryError(ZooError):
    """Two entries claim one name, or an entry breaks the rules of the registry."""


class WeightsError(ZooError):
    """A checkpoint that can't be found, verified, read or converted."""


class ExportError(ZooError):
    """An export that failed, or whose ONNX towers do not agree with torch."""


class TargetError(ZooError):
    """A target that can't compile, run or profile an artifact."""


class DatasetError(ZooError):
    """A dataset that can't be read, or that has nothing to score."""


class SubmissionError(ZooError):
    """Something that can't be handed in, or a bundle that can't be written."""


class TrainingError(ZooError):
    """A recipe that is wrong, data that must not be trained on, or a run that can't go on."""


class LedgerError(ZooError):
    """The ledger of a sweep can't be opened, read or written."""


class MissingExtraError(ZooError):
    """A package of an optional extra is not installed; the message holds the install command."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"This needs the package {package!r}, which is not installed. "
            f"Install it with: pip install 'lpcvc-zoo[{extra}]'"
        )


def _either(names: tuple[str, ...]) -> str:
    quoted = [repr(name) for name in names]
    return quoted[0] if len(quoted) == 1 else ", ".join(quoted[:-1]) + " or " + quoted[-1]
