"""How far two files of weights are from each other, for a recipe that should give the same ones again.

python benchmarks/recipes/difference.py ONE.safetensors OTHER.safetensors
"""

from __future__ import annotations

import argparse
from pathlib import Path

from safetensors.torch import load_file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", type=Path, nargs=2)
    one, other = (load_file(path) for path in parser.parse_args().files)
    if one.keys() != other.keys():
        raise SystemExit(f"They hold other tensors: {sorted(one.keys() ^ other.keys())}")
    largest = max(float((one[name].float() - other[name].float()).abs().max()) for name in one)
    print(f"largest difference: {largest:.6f}")


if __name__ == "__main__":
    main()
