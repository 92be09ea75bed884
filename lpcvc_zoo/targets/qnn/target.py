"""The offline Snapdragon target: does a tower compile for the NPU, what does it move and compute there."""

from __future__ import annotations

import logging
import platform
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from lpcvc_zoo.errors import MissingExtraError, TargetError
from lpcvc_zoo.files import sha256_of, written_whole
from lpcvc_zoo.targets.base import Array, Compiled, Profile, Tower
from lpcvc_zoo.targets.qnn._worker import CONTEXT
from lpcvc_zoo.targets.qnn.build import (
    BINARY,
    Build,
    Verdict,
    build_folder,
    judge,
    make_build,
    read_build,
)
from lpcvc_zoo.targets.qnn.child import Child
from lpcvc_zoo.targets.qnn.devices import DEFAULT_DEVICE, find_device
from lpcvc_zoo.targets.samples import digest, split

log = logging.getLogger(__name__)

NAME = "qnn"
EXTRA = "qnn"
NEEDED = {"onnxruntime-qnn": "2.7.0", "onnxruntime": "1.32.0"}  # what the extra installs, and was tried
LIMIT_S = 900.0  # a compilation; the largest tower takes a small part of it
OPEN_EMULATORS = 2  # both towers of one model


class QnnTarget:
    """Compiles towers for a Snapdragon's NPU on this machine, and emulates them; there is no device.

    ``device``: a name of ``devices.DEVICES``. Compilation is strict: one node that would run on the CPU is
    an error. A profile holds the size of the binary and the compiler's static estimate of what an inference
    moves; with ``operators`` also by layer, and which nodes of a quantised tower stay in fp16. It has no
    latency, because nothing here can tell it. ``infer`` emulates the NPU's arithmetic, in seconds a sample;
    embeddings are kept by tower and sample. The native code runs in processes of its own: TargetError where
    it crashes, or gives no answer for ``limit_s``.

    MissingExtraError without the package, TargetError on another system or with other versions.
    """

    name = NAME
    rewrites = "npu"
    exclusive = False
    emulates = True

    def __init__(
        self, device: str = DEFAULT_DEVICE, *, operators: bool = False, limit_s: float = LIMIT_S
    ) -> None:
        self.chip = find_device(device)
        self.device = self.chip.name
        self.operators, self.limit_s = operators, limit_s
        self.versions = installed_versions()
        self._builds: dict[Path, Build] = {}  # that were found whole
        self._emulators: dict[str, Child] = {}

    def fingerprint(self) -> dict[str, Any]:
        chip = {"soc_model": self.chip.soc_model, "htp_arch": self.chip.htp_arch}
        return {"target": self.name, "device": self.device} | chip | self.versions

    def check(self, onnx_file: Path) -> Verdict:
        """What the compiler says of any ONNX file, node by node; nothing is kept. TargetError for a crash."""
        with tempfile.TemporaryDirectory(prefix="lpcvc_zoo_") as folder:
            return judge(_existing(onnx_file), self.chip, Path(folder), self.limit_s)

    def compile(self, onnx_file: Path, tower: Tower) -> Compiled:
        """Compile to a context binary, or take the kept one; the reference is the path of its ONNX wrapper.

        TargetError names the nodes that are refused, with the compiler's own words.
        """
        path = _existing(onnx_file)
        source = sha256_of(path)
        folder = build_folder(source, tower, self.chip, self.versions)
        if read_build(folder) is None:
            make_build(path, source, self.chip, folder, self.limit_s)
        return Compiled(
            target=self.name,
            device=self.device,
            tower=tower,
            reference=str(folder / CONTEXT),
            source_sha256=source,
        )

    def profile(self, compiled: Compiled) -> Profile:
        """The compiler's static estimate, with no latency; without traffic where it could not be read."""
        build, context = self._build(compiled)
        traffic = build.traffic
        if traffic is None:
            log.warning(
                "No static estimate of the %s tower: the compiler's schematic can't be read: %s",
                compiled.tower, build.traffic_problem,
            )  # fmt: skip
        elif not self.operators:
            traffic = traffic.model_copy(update={"layers": None})
        return Profile(
            target=self.name,
            device=self.device,
            runtime_versions=self.versions,
            file_bytes=context.with_name(BINARY).stat().st_size,
            operators=build.arithmetic if self.operators else None,
            traffic=traffic,
        )

    def infer(self, compiled: Compiled, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Emulate a batch one sample at a time, outputs stacked; samples seen before are not run again.

        Shapes as for every target. TargetError for wrong inputs, a crash, or no answer for ``limit_s``.
        """
        build, context = self._build(compiled)
        results: list[dict[str, Array]] = []
        for sample in split(build.inputs, inputs, f"{compiled.tower} tower"):
            kept = context.parent / "samples" / f"{digest(sample)}.npz"
            result = _read(kept)
            if result is None:
                self._emulate(context, sample, kept)
                result = _read(kept)
                assert result is not None
            results.append(result)
        return {name: np.concatenate([result[name] for result in results]) for name in results[0]}

    def close(self) -> None:
        """End the emulators; the next ``infer`` starts new ones."""
        while self._emulators:
            self._emulators.popitem()[1].close()

    def __del__(self) -> None:
        if hasattr(self, "_emulators"):
            self.close()

    def _build(self, compiled: Compiled) -> tuple[Build, Path]:
        if (compiled.target, compiled.device) != (self.name, self.device):
            made_for, own = f"{compiled.target} on {compiled.device}", f"{self.name} on {self.device}"
            raise TargetError(f"This was compiled for {made_for}, not for {own}.")
        context = Path(compiled.reference)
        if context not in self._builds or not context.is_file():
            build = read_build(context.parent)
            if build is None:
                raise TargetError(
                    f"{context} is missing or damaged. Compile the {compiled.tower} tower again."
                )
            self._builds[context] = build
        return self._builds[context], context

    def _emulate(self, context: Path, sample: dict[str, Array], kept: Path) -> None:
        emulator = self._emulator(context)
        with tempfile.TemporaryDirectory(prefix="lpcvc_zoo_") as folder, written_whole(kept) as outputs:
            given = Path(folder, "inputs.npz")
            np.savez(given, **sample)  # type: ignore[arg-type]
            self._ask(context, emulator, what="run", inputs=str(given), outputs=str(outputs))

    def _emulator(self, context: Path) -> Child:
        key = str(context)
        if key not in self._emulators:
            while len(self._emulators) >= OPEN_EMULATORS:
                self._emulators.pop(next(iter(self._emulators))).close()
            emulator = self._emulators[key] = Child()
            chip = {"soc_model": self.chip.soc_model, "htp_arch": self.chip.htp_arch}
            self._ask(context, emulator, what="load", path=key, **chip)
        return self._emulators[key]

    def _ask(self, context: Path, emulator: Child, **request: Any) -> None:
        try:
            problem = emulator.ask(self.limit_s, **request).get("error")
        except TargetError as died:
            problem = str(died)
        if problem is not None:
            words = " | ".join(emulator.words())
            self._emulators.pop(str(context)).close()
            said = f" The emulator's own words: {words}" if words else ""
            raise TargetError(f"{context}: emulating it for {self.device}: {problem}{said}")


def installed_versions() -> dict[str, str]:
    """Versions of the packages this target needs; checked, without importing any of them."""
    if not (sys.platform == "linux" and platform.machine() == "x86_64"):
        raise TargetError(
            "Qualcomm's offline compiler needs Linux on x86-64 (glibc 2.35 or newer), where "
            f"pip install 'lpcvc-zoo[{EXTRA}]' installs it; this is {platform.system()} on "
            f"{platform.machine()}. Use the target 'aihub', or such a machine."
        )
    found: dict[str, str] = {}
    for package, needed in NEEDED.items():
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            raise MissingExtraError(package, EXTRA) from None
        if found[package] != needed:
            raise TargetError(
                f"{package}: expected version {needed}, which the target {NAME!r} was made for, got "
                f"{found[package]}. Install it with: pip install 'lpcvc-zoo[{EXTRA}]'"
            )
    return found


def _existing(onnx_file: Path) -> Path:
    path = Path(onnx_file).resolve()
    if not path.is_file():
        raise TargetError(f"{path} is missing: expected an exported tower. Export the model again.")
    return path


def _read(kept: Path) -> dict[str, Array] | None:
    """The kept outputs of a sample; None where there are none, or where the file is damaged."""
    try:
        with np.load(kept) as arrays:
            return dict(arrays)
    except (FileNotFoundError, BadZipFile, EOFError, ValueError):  # numpy's, of a file that is cut short
        return None
