"""``list`` and ``show``: what the zoo holds. No torch here: they answer at once."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from lpcvc_zoo import registry
from lpcvc_zoo.cli.shared import (
    AsJson,
    Name,
    millions,
    names_from,
    number,
    out,
    pair,
    print_json,
    print_table,
    table,
)
from lpcvc_zoo.entry import Entry, Preprocessing, Pretrained
from lpcvc_zoo.errors import WeightsError


def list_(
    pattern: Annotated[str, typer.Argument(help="Names with *, ? or [...].")] = "*",
    family: Annotated[str | None, typer.Option(help="Only this family.")] = None,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="The published checkpoints, with their scores and licences.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the models of the zoo with their sizes, or their published checkpoints."""
    names = registry.list_models(pattern, family=family, pretrained=True if pretrained else None)
    entries = [registry.get_entry(name) for name in names]
    for problem in registry.plugin_problems():
        print(f"A plugin could not be used: {problem}", file=sys.stderr)
    if as_json:
        print_json([entry.model_dump(mode="json") for entry in entries])
        return
    entries.sort(key=lambda entry: (entry.family, entry.cost, entry.name))
    if pretrained:
        _print_checkpoints(entries)
    else:
        _print_models(entries)


def _print_models(entries: list[Entry]) -> None:
    listing = table("model", ">M params", ">GMACs", "checkpoints")
    for entry in entries:
        listing.add_row(
            entry.name,
            pair(millions(entry.image_params), millions(entry.text_params)),
            pair(number(entry.image_gmacs, 2), number(entry.text_gmacs, 2)),
            ", ".join(record.tag for record in entry.pretrained) or "-",
        )
    print_table(listing)
    out.print(
        f"{len(entries)} models. Parameters (M) and GMACs are of the image + the text tower.", style="dim"
    )


def _print_checkpoints(entries: list[Entry]) -> None:
    published = {"ImageNet": "ImageNet-1k", "Flickr": "Flickr30k", "COCO": "MS-COCO"}
    named = [(f"{entry.name}.{record.tag}", record) for entry in entries for record in entry.pretrained]
    width = max((len(name) for name, _ in named), default=0)

    def line(name: str, cells: Iterable[str]) -> str:
        return "  ".join(
            [f"{name:<{width}}", *(f"{c:>{len(h)}}" for h, c in zip(published, cells, strict=True))]
        )

    out.print(line("checkpoint", published), style="bold", highlight=False, soft_wrap=True)
    # A heading for each licence: beside the long names a terminal of 80 columns has no room for them.
    for licence in dict.fromkeys(record.licence for _, record in named):
        out.print(f"\nLicence: {escape(licence)}", style="italic", highlight=False)
        for name, record in named:
            if record.licence == licence:
                scores = (_published(record, dataset) for dataset in published.values())
                out.print(line(name, scores), highlight=False, soft_wrap=True)
    out.print(
        f"\n{len(named)} checkpoints. Published zero-shot scores in %: ImageNet top-1, and image-to-text R@1 "
        "on Flickr30k and COCO. `lpcvc-zoo show NAME` has their sources.",
        style="dim",
    )


def _published(record: Pretrained, dataset: str) -> str:
    found = [score.percent for score in record.scores if score.name.startswith(dataset)]
    return number(found[0] if found else None, 1)


def show(name: Name, as_json: AsJson = False) -> None:
    """Show all that is known about one model and its published checkpoints."""
    entry = registry.get_entry(name)
    if as_json:
        print_json(entry.model_dump(mode="json"))
        return
    out.print(f"[bold]{entry.name}[/bold] ({entry.family})")
    if entry.notes:
        out.print(escape(entry.notes))
    out.print(_grid(_facts(entry)))
    if not entry.pretrained:
        out.print("No published checkpoint.")
    for record in entry.pretrained:
        out.print(f"\n[bold]{entry.name}.{record.tag}[/bold]")
        out.print(_grid(_checkpoint(record)))


def fetch(
    names: Annotated[
        list[str], typer.Argument(help="NAME or NAME.tag; several at once.", autocompletion=names_from)
    ],
    as_json: AsJson = False,
) -> None:
    """Download published checkpoints ahead, for a machine that will have no network."""
    chosen = [(name, registry.get_entry(name)) for name in names]  # all names are checked first
    from lpcvc_zoo.weights.fetch import files_of, sha_of
    from lpcvc_zoo.weights.load import notice, record_of

    fetched: dict[str, dict[str, str | list[str]]] = {}
    failed = False
    for name, entry in chosen:
        try:
            record = record_of(entry, name.partition(".")[2] or True)
            assert record is not None
            paths = files_of(record, model=entry.name)
        except WeightsError as error:  # the others may still be had
            failed = True
            print(f"Error: {error}", file=sys.stderr)
            continue
        notice(entry.name, record)
        model = f"{entry.name}.{record.tag}"
        fetched[model] = {"files": list(map(str, paths)), "sha": sha_of(*paths)}
        if not as_json:
            out.print(escape(f"{model}: {' and '.join(map(str, paths))}"), highlight=False, soft_wrap=True)
    if as_json:
        print_json(fetched)
    raise typer.Exit(int(failed))


def _grid(facts: list[tuple[str, str]]) -> Table:
    grid = Table.grid(padding=(0, 2))
    for label, value in facts:
        grid.add_row(f"[dim]{escape(label)}[/dim]", escape(value))
    return grid


def _checkpoint(record: Pretrained) -> list[tuple[str, str]]:
    if record.open_clip:
        source = f"open_clip {' '.join(record.open_clip)}"
    elif record.shipped:
        source = f"comes with this package: {' and '.join(record.shipped)}"
    else:
        source = record.url or f"{record.repo}/{record.file}"
    facts = [
        ("source", source),
        ("revision", record.revision),
        ("sha256", record.sha256),
        ("size", record.size_bytes and f"{record.size_bytes / 1e6:.0f} MB"),
        ("pixels", _pixels(record.preprocessing)),
        ("trained on", record.training_data),
        ("licence", record.licence),
        *((score.name, f"{score.percent:.2f} % ({score.source})") for score in record.scores),
    ]
    return [(label, value) for label, value in facts if value]


def _pixels(pixels: Preprocessing) -> str:
    mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (pixels.mean, pixels.std))
    return f"{pixels.interpolation}, mean {mean}, std {std}"


def _facts(entry: Entry) -> list[tuple[str, str]]:
    text = entry.text
    causal = "causal" if text.causal else "not causal"
    layers = f"{entry.text_layers} layers, " if entry.text_layers else ""
    return [
        ("image", f"{entry.image_size} px, {_pixels(entry.preprocessing)}"),
        ("text", f"{text.context_length} tokens, {layers}{causal}, pad id {text.pad_id}"),
        ("embedding", f"{entry.embed_dim} numbers"),
        ("M parameters", f"{pair(millions(entry.image_params), millions(entry.text_params))} (image + text)"),
        ("GMACs", f"{pair(number(entry.image_gmacs, 2), number(entry.text_gmacs, 2))} (image + text)"),
        ("licence", entry.licence),
        ("paper", entry.paper),
    ]
