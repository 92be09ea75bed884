"""``adopt``: ONNX files made elsewhere become an artifact that every other command takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from lpcvc_zoo.cli.shared import AsJson, ContractName, out, print_json, print_table, table
from lpcvc_zoo.contract import Tower
from lpcvc_zoo.errors import ZooError


def adopt(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE.onnx [TEXT.onnx]", help="Both, or one: its input tells which."),
    ],
    folder: Annotated[Path, typer.Option("--out", help="The artifact's folder, and by default its name.")],
    contract: ContractName = "lpcvc2026",
    name: Annotated[str | None, typer.Option(help="What results call it.")] = None,
    image_encodings: Annotated[
        Path | None, typer.Option(help="AIMET's encodings of the image tower.")
    ] = None,
    text_encodings: Annotated[Path | None, typer.Option(help="AIMET's encodings of the text tower.")] = None,
    image_output: Annotated[str | None, typer.Option(help="The embedding, of several outputs.")] = None,
    text_output: Annotated[str | None, typer.Option(help="The embedding, of several outputs.")] = None,
    as_json: AsJson = False,
) -> None:
    """Take ONNX towers made elsewhere into the zoo: checked and put into the contract's form.

    Then: lpcvc-zoo profile FOLDER, evaluate FOLDER, lint FOLDER, sweep --artifacts FOLDER, submit.
    """
    from lpcvc_zoo.exporting.adopt import adopt as take
    from lpcvc_zoo.exporting.adopt import tower_of

    if len(files) > 2:
        raise ZooError(f"Expected one ONNX file or two (image, text), got {len(files)}.")
    towers: list[Tower] = ["image", "text"] if len(files) == 2 else [tower_of(files[0])]
    given = dict(zip(towers, files, strict=True))
    encodings: dict[Tower, Path | None] = {"image": image_encodings, "text": text_encodings}
    outputs: dict[Tower, str | None] = {"image": image_output, "text": text_output}
    for tower, *options in ((tower, encodings[tower], outputs[tower]) for tower in encodings):
        if tower not in given and any(options):
            raise ZooError(f"{files[0]} is the other tower: expected no options of the {tower} tower.")
    artifact = take(
        given.get("image"),
        given.get("text"),
        folder,
        contract=contract,
        name=name,
        encodings={tower: path for tower, path in encodings.items() if path is not None},
        outputs={tower: output for tower, output in outputs.items() if output is not None},
    )
    manifest = artifact.manifest
    if as_json:
        print_json(manifest.model_dump(mode="json"))
        return
    shown = table("tower", "file", "MB", "nodes", "changed")
    for tower in manifest.towers:
        made = manifest.tower(tower)
        changes = "; ".join(made.changes) or "nothing"
        shown.add_row(
            tower,
            escape(str(artifact.path(tower))),
            f"{made.size_bytes / 1e6:.1f}",
            str(made.nodes),
            escape(changes),
        )
    print_table(shown)
    out.print(
        f"{manifest.entry} ({manifest.weights}), {manifest.contract}, {manifest.embed_dim} numbers, "
        f"opset {manifest.opset}",
        style="dim", highlight=False,
    )  # fmt: skip
    if encodings["image"] or encodings["text"]:
        out.print("AI Hub quantises by the encodings; ONNX Runtime and qnn run floats.", style="dim")
    if "image" in manifest.towers:
        out.print(
            "Pixels arrive as the contract gives them: scale, mean and std must be inside the graph, and "
            "whether they are can't be seen. Evaluate it.",
            style="dim",
        )
