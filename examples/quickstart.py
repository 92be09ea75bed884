"""From a name to two checked ONNX towers and a score, offline, in a minute or two.

    python examples/quickstart.py

The model comes with the package, trained: nothing is downloaded. By its bare name it has random weights.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from lpcvc_zoo import ZooError, build, evaluate, export
from lpcvc_zoo.data import PHOTOS

PHOTO = PHOTOS / "images" / "panda.jpg"
CAPTIONS = ("A panda eating bamboo.", "A red double-decker bus.", "The clock on the station wall.")


def main() -> None:
    parser = argparse.ArgumentParser(description="A tour of lpcvc_zoo on one small model.")
    parser.add_argument(
        "--model", default="efficientnet_lite0_96_text_xxs.conse_minilm", help="see lpcvc-zoo list"
    )
    parser.add_argument("--out", type=Path, default=Path("quickstart"), help="folder for the ONNX files")
    given = parser.parse_args()

    print(f"1. Build {given.model}")
    try:
        model = build(given.model)
    except ZooError as error:
        sys.exit(f"Error: {error}")
    contract = model.contract
    print(f"   weights: {model.weights}")
    print(f"   contract: {contract.name}, from the {contract.source}")

    print(f"2. Encode {PHOTO.name} and {len(CAPTIONS)} captions")
    image, text = contract.prepare_image(PHOTO), contract.prepare_text(CAPTIONS)
    with torch.inference_mode():
        image_embedding, text_embeddings = model.encode_image(image), model.encode_text(text)
    print(f"   image {list(image.shape)} -> embedding {list(image_embedding.shape)}, of length 1")
    print(f"   text {list(text.shape)} -> embeddings {list(text_embeddings.shape)}")
    for caption, cosine in zip(CAPTIONS, (image_embedding @ text_embeddings.T)[0].tolist(), strict=True):
        print(f"   cosine {cosine:+.3f}  {caption}")

    print("3. Export both towers to ONNX and check them against torch on real photos and captions")
    manifest = export(model, given.out).manifest
    for tower in (manifest.image, manifest.text):
        assert tower.parity is not None
        print(
            f"   {given.out / tower.file}: {tower.size_bytes / 1e6:.1f} MB, {tower.nodes} nodes, "
            f"worst cosine to torch {tower.parity.min_cosine:.6f}"
        )

    print("4. Score it on the bundled photos")
    scores = evaluate(model, "photos")
    recall = scores.recall(10)
    print(
        f"   image-to-text recall@10 over {scores.images} photos and {scores.texts} texts: "
        f"{recall.value:.3f} (95 % interval {recall.low:.3f} to {recall.high:.3f}; "
        f"chance {recall.chance:.3f})"
    )
    if model.weights == "untrained":
        print("   An untrained model scores about chance. Its latency and size are already true.")
    print(f"Next: lpcvc-zoo profile {given.model}, or python benchmarks/sweep.py --quick")


if __name__ == "__main__":
    main()
