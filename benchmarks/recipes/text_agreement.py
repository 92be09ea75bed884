"""How far a text tower agrees with MiniLM on the captions of ``captioned.tsv``, which it never learnt.

    python benchmarks/recipes/text_agreement.py efficientnet_lite0_224_text_xs FILE.safetensors

Mean cosine of the two embeddings of a caption, MiniLM's centred and half whitened as the towers' are, with
its bootstrap interval and percentiles. Recipes may be changed by it: the bundled benchmark has no part in it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from agreement import show
from captioned import CAPTIONS
from captions import of
from minilm import centred, raw, whitening
from safetensors.torch import load_file

from lpcvc_zoo.contract import get_contract
from lpcvc_zoo.model import DualEncoder
from lpcvc_zoo.registry import get_entry, untrained


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("file", type=Path, help="a text tower, as ship.py writes it")
    given = parser.parse_args()
    model = with_text(given.model, given.file)
    texts = [caption for _, *captions in of(CAPTIONS) for caption in captions]
    ids = torch.from_numpy(model.contract.prepare_text(texts))
    own = torch.cat([model.encode_text(part) for part in ids.split(64)]).numpy()
    its = centred(raw(texts)) @ whitening()
    cosines = (own * its).sum(axis=1) / np.linalg.norm(its, axis=1)
    show("cosine to MiniLM", cosines, "captions")
    print("tenth and ninetieth percentile: {:.4f} {:.4f}".format(*np.percentile(cosines, (10, 90))))


def with_text(name: str, file: Path) -> DualEncoder:
    """An entry with a text tower out of a file, and an untrained image tower."""
    entry = get_entry(name)
    towers = untrained(entry)
    towers.text.load_state_dict({key.removeprefix("text."): value for key, value in load_file(file).items()})
    return DualEncoder(towers, entry, get_contract("lpcvc2026"), entry.preprocessing).eval()


if __name__ == "__main__":
    main()
