"""The ``lpcvc-zoo`` command: look at the zoo, export, measure, score, sweep.

Every command has ``--json`` for machines. Errors raised on purpose are shown as one message;
``lpcvc-zoo --debug ...`` shows their traceback too.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

import lpcvc_zoo
from lpcvc_zoo.cli import adopt, hand_in, learn, lint, look, many, one, quantize, remote
from lpcvc_zoo.errors import ZooError

app = typer.Typer(
    name="lpcvc-zoo",
    help="CLIP-like dual encoders that fit a phone-class NPU.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
_debug = False


def _version(wanted: bool) -> None:
    if wanted:
        print(f"lpcvc-zoo {lpcvc_zoo.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    global _debug
    _debug = debug


app.command("list")(look.list_)
COMMANDS = (
    look.show, look.fetch, one.export, adopt.adopt, lint.lint, quantize.quantize, one.profile, one.evaluate,
    many.sweep, many.report, learn.train, learn.soup, hand_in.submit, hand_in.bundle, remote.devices,
    remote.doctor,
)  # fmt: skip
for command in COMMANDS:
    app.command()(command)


def _said(error: Exception) -> str:
    """The message; of the system's errors, such as a full disk, without their number."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    return f"{error.filename}: {error.strerror}." if error.filename else f"{error.strerror}."


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line; an error of ours or of the system ends as its message alone, with status 1."""
    try:
        app(arguments)
    except (ZooError, OSError) as error:
        if _debug:
            raise
        print(f"Error: {_said(error)}", file=sys.stderr)
        raise SystemExit(1) from None
    raise SystemExit(0)
