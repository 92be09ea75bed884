"""What the best teams hand in at the end: the ONNX files, how to score them, versions and results."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from lpcvc_zoo.bench.row import ResultRow
from lpcvc_zoo.contract import TOWERS, get_contract
from lpcvc_zoo.errors import SubmissionError
from lpcvc_zoo.exporting.artifact import MANIFEST, Artifact
from lpcvc_zoo.files import put_folder, written_whole
from lpcvc_zoo.preprocess import clip_tokenizer

NEEDED = ("numpy", "onnxruntime", "pillow", "tokenizers")
VERSIONS = "versions.json"
SCRIPT = Path(__file__).with_name("bundled_evaluate.py")
README = """{model} ({weights}), contract {contract}

image_encoder.onnx, text_encoder.onnx   the two encoders; manifest.json describes them (sha256, shapes, tools)
contract.json                           what goes in and comes out: sizes, ranges, ids
evaluate.py, tokenizer.json             pip install -r requirements.txt; python evaluate.py DATA_FOLDER
results.json                            every measurement of exactly these files: {measured}
versions.json                           with which versions of what they were made and bundled

tokenizer.json is the tokenizer openai/clip-vit-base-patch32, vocabulary by OpenAI (MIT licence).
"""


def write_bundle(artifact: Artifact, out: str | Path, rows: Iterable[ResultRow] = ()) -> Path:
    """Write the folder ``out`` and ``out.zip`` beside it, each whole or not at all; returns the zip's path.

    Of ``rows`` those are kept that were measured with exactly these files. An earlier bundle is replaced;
    SubmissionError where something else is in its place, or where a tower is missing.
    """
    out, manifest = Path(out), artifact.manifest
    zipped = out.with_name(f"{out.name}.zip")
    if manifest.towers != TOWERS:
        raise SubmissionError(
            f"{manifest.entry} has no more than the {manifest.towers[0]} tower: expected both."
        )
    _refuse_others(out, zipped)
    artifact.verify()
    hashes = (manifest.tower("image").sha256, manifest.tower("text").sha256)
    kept = [row for row in rows if (row.image_sha256, row.text_sha256) == hashes and row.error is None]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
        try:
            folder = temporary / out.name
            folder.mkdir()
            _fill(folder, artifact, kept)
            archive = shutil.make_archive(str(temporary / "bundle"), "zip", temporary, out.name)
            put_folder(folder, out)
            Path(archive).replace(zipped)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise SubmissionError(f"The bundle {out} can't be written: {error.strerror or error}.") from None
    return zipped


def _refuse_others(out: Path, zipped: Path) -> None:
    """SubmissionError where what a bundle would replace was not made as one."""
    bundled = (out / MANIFEST).is_file() and (out / VERSIONS).is_file()
    empty = not out.exists() or (out.is_dir() and not any(out.iterdir()))
    if not bundled and not empty:
        raise SubmissionError(f"{out} is there and is no bundle: expected a new or an earlier one's folder.")
    if zipped.is_dir() or (zipped.exists() and not bundled):
        raise SubmissionError(
            f"{zipped} is there and is no bundle's zip. Move it away, or choose another folder."
        )


def _fill(folder: Path, artifact: Artifact, rows: list[ResultRow]) -> None:
    manifest = artifact.manifest
    contract = get_contract(manifest.contract)
    for tower in TOWERS:
        made = manifest.tower(tower)
        for file in (made.file, made.encodings.file if made.encodings else None):
            if file is not None:
                shutil.copyfile(artifact.folder / file, folder / file)
    shutil.copyfile(artifact.folder / MANIFEST, folder / MANIFEST)
    shutil.copyfile(SCRIPT, folder / "evaluate.py")
    clip_tokenizer().backend_tokenizer.save(str(folder / "tokenizer.json"))
    versions = {name: version(name) for name in NEEDED}
    bundled = {"lpcvc-zoo": version("lpcvc-zoo"), **versions}
    texts = {
        "contract.json": contract.model_dump_json(indent=2),
        "requirements.txt": "".join(f"{name}=={number}\n" for name, number in versions.items()),
        VERSIONS: json.dumps({"made with": manifest.versions, "bundled with": bundled}, indent=2),
        "results.json": json.dumps([row.model_dump(mode="json") for row in rows], indent=2),
        "README.txt": README.format(
            model=manifest.entry,
            weights=manifest.weights,
            contract=contract.name,
            measured=f"{len(rows)} rows" if rows else "none",
        ),
    }
    for name, text in texts.items():
        with written_whole(folder / name) as path:
            path.write_text(text, encoding="utf-8")
