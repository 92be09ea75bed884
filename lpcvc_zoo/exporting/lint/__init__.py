"""What a phone's NPU dislikes about an ONNX file, ours or anybody's: each hazard with its why and its cure.

A plugin adds rules by a line in its own pyproject.toml that names a ``Rule`` or a tuple of them::

    [project.entry-points."lpcvc_zoo.lint_rules"]
    my_rules = "my_package.rules:RULES"
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from lpcvc_zoo.contract import Contract, Tower, get_contract
from lpcvc_zoo.errors import ExportError, RegistryError
from lpcvc_zoo.exporting.artifact import Artifact
from lpcvc_zoo.exporting.lint import boundary, miscompiled, operators, packed, pixels, structure, values
from lpcvc_zoo.exporting.lint.graph import load_graph
from lpcvc_zoo.exporting.lint.rule import LEVELS, Hit, Level, Rule, Subject
from lpcvc_zoo.plugins import distribution, points

__all__ = [
    "GROUP",
    "LEVELS",
    "RULES",
    "Finding",
    "Hit",
    "Level",
    "Report",
    "Rule",
    "Subject",
    "lint",
    "lint_tower",
]

GROUP = "lpcvc_zoo.lint_rules"
_ROOMS = (boundary, pixels, operators, packed, values, structure, miscompiled)
RULES: tuple[Rule, ...] = tuple(rule for room in _ROOMS for rule in room.RULES)


class Finding(BaseModel):
    """A hazard found; ``nodes`` is empty where it is about the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: str
    level: Level
    message: str
    nodes: tuple[str, ...]
    why: str
    cure: str


class Report(BaseModel):
    """All findings in one file, errors first. ``problems``: what was not looked at, and why.

    ``device``: whose compiler was asked as well; ``compiles``: whether it takes the file whole, None where it
    gave no answer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    tower: Tower | None
    contract: str | None
    activations: bool
    findings: tuple[Finding, ...]
    problems: tuple[str, ...] = ()
    device: str | None = None
    compiles: bool | None = None

    def count(self, level: Level) -> int:
        return sum(finding.level == level for finding in self.findings)

    def reaches(self, level: Level) -> bool:
        """Whether anything as bad as ``level`` or worse was found."""
        return any(self.count(each) for each in LEVELS[: LEVELS.index(level) + 1])


def lint(
    path: str | Path,
    *,
    contract: Contract | None = None,
    tower: Tower | None = None,
    plain_pixels: bool = False,
    activations: bool = False,
    htp_arch: int | None = None,
    rules: Sequence[Rule] | None = None,
) -> Report:
    """Look for hazards in an ONNX file.

    ``contract`` and ``tower`` are guessed from the input where not given. ``plain_pixels``: the model wants
    its pixels as the host gives them. ``activations`` also runs real photos or captions through ONNX Runtime
    and looks at every value's size. ``htp_arch``: the architecture of the NPU that it is for, such as 69;
    hazards of others are left out. ``rules`` stands in for the built-in and the plugins' ones.

    ExportError for a file that is no ONNX model, or activations of one that no known contract can feed.
    """
    path = Path(path)
    graph = load_graph(path)
    tower = tower or boundary.guess_tower(graph)
    contract = contract or boundary.guess_contract(graph, tower)
    problems: list[str] = []
    if rules is None:
        added, problems = plugin_rules()
        rules = (*RULES, *added)
    measured = None
    if activations:
        from lpcvc_zoo.exporting.lint.activations import peaks

        if contract is None or tower is None:
            raise ExportError(f"{path}: no known contract has this input, so no photo or caption can be fed.")
        try:
            measured = peaks(graph, contract, tower)
        except ExportError as error:  # the other rules' findings stand all the same
            problems.append(f"{path}: {error}")
    subject = Subject(
        graph=graph,
        path=path,
        contract=contract,
        tower=tower,
        plain_pixels=plain_pixels,
        peaks=measured,
        htp_arch=htp_arch,
    )
    findings: list[Finding] = []
    for rule in rules:
        try:
            findings += _findings(rule, subject)
        except Exception as error:  # a plugin's rule may raise anything; ours meet strangers' graphs
            problems.append(f"rule {rule.name}: {type(error).__name__}: {error}")
    if graph.problem:
        problems.append(f"{path}: {graph.problem}")
    return Report(
        file=str(path),
        tower=tower,
        contract=contract.name if contract else None,
        activations=measured is not None,
        findings=tuple(sorted(findings, key=lambda finding: LEVELS.index(finding.level))),
        problems=tuple(problems),
    )


def lint_tower(
    artifact: Artifact,
    tower: Tower,
    *,
    plain_pixels: bool = False,
    activations: bool = False,
    htp_arch: int | None = None,
) -> Report:
    """Look for hazards in a tower of an export or of an adopted model, whose manifest says what it is.

    ``plain_pixels``: as for ``lint``, where the manifest does not say so already.
    """
    manifest = artifact.manifest
    contract = get_contract(manifest.contract)
    # Scale, mean and std together change nothing there, so that none is missing.
    plain = contract.image.high == 1 and (manifest.mean, manifest.std) == ((0.0,) * 3, (1.0,) * 3)
    return lint(
        artifact.path(tower),
        contract=contract,
        tower=tower,
        plain_pixels=plain_pixels or plain,
        activations=activations,
        htp_arch=htp_arch,
    )


def _findings(rule: Rule, subject: Subject) -> list[Finding]:
    return [
        Finding(
            rule=rule.name,
            level=hit.level or rule.level,
            message=hit.message,
            nodes=hit.nodes,
            why=rule.why,
            cure=rule.cure,
        )
        for hit in rule.check(subject)
    ]


def plugin_rules() -> tuple[list[Rule], list[str]]:
    """Rules of other distributions, and why some could not be used: a broken one never stops the rest."""
    rules: list[Rule] = []
    problems: list[str] = []
    taken = {rule.name for rule in RULES}
    for point in points(GROUP):
        try:
            loaded = point.load()
            found = [loaded] if isinstance(loaded, Rule) else list(loaded)
            for rule in found:
                if not isinstance(rule, Rule):
                    raise RegistryError(f"expected lint rules, got {type(rule).__name__}")
                if rule.name in taken:
                    raise RegistryError(f"the name {rule.name!r} is taken")
        except (Exception, SystemExit) as error:  # a plugin may raise anything
            problems.append(f"{distribution(point)} ({point.value}): {type(error).__name__}: {error}")
            continue
        rules += found
        taken |= {rule.name for rule in found}
    return rules, problems
