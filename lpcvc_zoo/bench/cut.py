"""What a sweep leaves of a text tower."""

from __future__ import annotations

from typing import NamedTuple


class TextCut(NamedTuple):
    """Tokens of its sequence and layers of its transformer that a text tower keeps; None is all of them.

    Options of ``build``, by their names there.
    """

    text_length: int | None = None
    text_depth: int | None = None

    def __str__(self) -> str:
        """Such as "16 tokens, text depth 2"; empty where nothing is cut, or nothing is known."""
        tokens = f"{self.text_length} tokens" if self.text_length else ""
        depth = f"text depth {self.text_depth}" if self.text_depth else ""
        return ", ".join(filter(None, (tokens, depth)))


WHOLE = TextCut()
