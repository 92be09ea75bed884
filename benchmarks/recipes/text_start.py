"""A text transformer that knows its words before it has read a sentence.

    python benchmarks/recipes/text_start.py text_xs --out recipes-data/text_xs_start.safetensors

The table of a factorised token embedding starts as the main directions of MiniLM's embeddings of the tokens
themselves, so that a word the training texts lack is near those that mean the like.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import open_clip
import torch
from minilm import centred, raw

from lpcvc_zoo.files import written_whole
from lpcvc_zoo.registry import get_entry, untrained

START = 0.02  # standard deviation of open_clip's token embeddings
ENTRIES = {"text_xxs": "efficientnet_lite0_128_text_xxs", "text_xs": "efficientnet_lite0_224_text_xs"}


def main() -> None:
    arguments = argparse.ArgumentParser(description="Start a text transformer from MiniLM's words.")
    arguments.add_argument("text", choices=ENTRIES)
    arguments.add_argument("--out", type=Path, required=True)
    options = arguments.parse_args()
    from safetensors.torch import save_file

    towers = untrained(get_entry(ENTRIES[options.text]))
    state = towers.state_dict()
    rank = state["text.token_embedding.0.weight"].shape[1]
    table = torch.from_numpy(token_table(rank))
    state["text.token_embedding.0.weight"] = table
    up = torch.linalg.qr(torch.randn(*state["text.token_embedding.1.weight"].shape, generator=_seeded()))[0]
    # rows of the table have unit variance in all: scaled so that tokens are as large as open_clip's
    state["text.token_embedding.1.weight"] = up * START * (len(up) / rank) ** 0.5
    with written_whole(options.out) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, temporary)


def token_table(rank: int) -> np.ndarray:
    """``[49408, rank]``: each token's own text, embedded and projected; mean square 1."""
    decoder = open_clip.get_tokenizer("ViT-B-32").decoder
    rows = centred(raw([decoder[place].replace("</w>", "") or "." for place in range(len(decoder))]))
    _, _, directions = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    table = (rows - rows.mean(axis=0)) @ directions[:rank].T
    return np.asarray(table / np.sqrt(np.square(table).mean()), np.float32)


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


if __name__ == "__main__":
    main()
