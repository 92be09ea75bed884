"""The whole road in a process of its own, with the client that is first on its path; prints the results."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import aihub_models
import qai_hub

from lpcvc_zoo.targets.aihub import AIHubTarget, Patience


class Calibration:
    fingerprint = "a few random ones"

    def __call__(self, tower: str, inputs: Any) -> Any:
        return aihub_models.images(4, seed=1)


def main(folder: Path) -> None:
    sleep = time.sleep
    time.sleep = lambda seconds: sleep(min(seconds, 0.005))  # type: ignore[assignment]
    found: dict[str, Any] = {"client": str(qai_hub.__version__)}
    for precision in ("float", "w8a16"):
        target = AIHubTarget(
            precision=precision,
            calibration=None if precision == "float" else Calibration(),
            patience=Patience(first_s=0.01),
            poll_s=0.005,
        )
        compiled = target.compile(aihub_models.image_tower(folder), "image")
        profile = target.profile(compiled).model_dump(mode="json", exclude={"runtime_versions"})
        outputs = target.infer(compiled, aihub_models.images(3))
        found[precision] = {
            "compiled": compiled.model_dump(mode="json"),
            "profile": profile,
            "outputs": outputs["image_embedding"].tolist(),
        }
    target.service.share(compiled.reference, ["someone@example.org"])
    found["shared"] = target.service.shared_with(compiled.reference)
    found["devices"] = [device.name for device in target.service.devices()]
    print(json.dumps(found))


main(Path(sys.argv[1]))
