"""Rows as a sweep of all built-in entries gives them, made up: plausible numbers, nothing measured."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from lpcvc_zoo.bench.row import ResultRow
from lpcvc_zoo.retrieval.metrics import Recall, Scores
from lpcvc_zoo.targets.base import Latency, Profile, Traffic

DEVICE = "Intel Xeon Processor 2.60 GHz"
CHANCE = 10 / 474
# entry: family, image ms without preprocessing, text ms, (million parameters, GMACs) of image and text
MODELS: dict[str, tuple[str, float, float, tuple[float, float], tuple[float, float]]] = {
    "efficientvit_b0_text_s": ("efficientvit", 3.6, 2.2, (2.2, 0.10), (16.0, 0.06)),
    "efficientvit_m2_text_s": ("efficientvit", 5.8, 2.3, (4.0, 0.20), (16.0, 0.06)),
    "efficientvit_b1_text_s": ("efficientvit", 11, 2.2, (7.5, 0.52), (16.0, 0.06)),
    "efficientvit_b2_text_m": ("efficientvit", 36, 6.1, (21.8, 1.6), (27.5, 0.25)),
    "tinyclip_vit_8m_16_text_3m": ("tinyclip", 42, 3.6, (8.3, 1.9), (15.7, 0.2)),
    "tinyclip_vit_39m_16_text_19m": ("tinyclip", 114, 23, (38.9, 7.7), (44.5, 1.5)),
    "tinyclip_vit_40m_32_text_19m": ("tinyclip", 36, 23, (39.7, 2.0), (44.5, 1.5)),
    "tinyclip_vit_61m_32_text_29m": ("tinyclip", 46, 35, (61.4, 3.1), (54.0, 2.2)),
    "tinyclip_resnet_19m_text_19m": ("tinyclip", 35, 23, (18.8, 2.8), (44.5, 1.5)),
    "tinyclip_resnet_30m_text_29m": ("tinyclip", 61, 35, (30.1, 4.5), (54.0, 2.2)),
    "mobileclip_s0": ("mobileclip", 54, 22, (11.4, 2.39), (42.4, 1.0)),
    "mobileclip_s1": ("mobileclip", 68, 50, (21.5, 4.66), (63.4, 2.9)),
    "mobileclip_s2": ("mobileclip", 144, 50, (35.7, 7.83), (63.4, 2.9)),
    "mobileclip_b": ("mobileclip", 233, 50, (86.3, 17.6), (63.4, 2.9)),
    "mobileclip2_s0": ("mobileclip", 55, 51, (11.4, 2.39), (63.4, 2.9)),
    "mobileclip2_s2": ("mobileclip", 146, 51, (35.7, 7.83), (63.4, 2.9)),
    "mobileclip2_b": ("mobileclip", 235, 50, (86.3, 17.6), (63.4, 2.9)),
    "openai_clip_vit_b32": ("openai_clip", 73, 50, (87.8, 4.41), (63.4, 2.9)),
    "openai_clip_vit_b16": ("openai_clip", 232, 50, (86.2, 17.6), (63.4, 2.9)),
    "openai_clip_rn50": ("openai_clip", 96, 51, (38.3, 5.8), (63.7, 2.9)),
    "openai_clip_vit_l14": ("openai_clip", 1180, 98, (304.0, 81.1), (123.0, 6.5)),
    "efficientvit_m5_text_s": ("efficientvit", 12, 2.2, (12.4, 0.52), (16.0, 0.06)),
}
RECALLS = {
    "efficientvit_b0_text_s": 0.21, "efficientvit_b1_text_s": 0.33, "tinyclip_vit_8m_16_text_3m": 0.52,
    "tinyclip_vit_40m_32_text_19m": 0.66, "tinyclip_resnet_19m_text_19m": 0.60, "mobileclip_s0": 0.71,
    "mobileclip_s1": 0.745, "mobileclip_s2": 0.79, "mobileclip2_s0": 0.74, "mobileclip2_s2": 0.81,
    "openai_clip_vit_b32": 0.68, "openai_clip_vit_b16": 0.77, "mobileclip_b": 0.80,
    "tinyclip_vit_61m_32_text_29m": 0.69,
}  # fmt: skip


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def profile(name: str, milliseconds: float, params_m: float, **more: Any) -> Profile:
    noise = np.random.default_rng(int(sha(name)[:8], 16)).gamma(2.0, 0.02, 31)
    facts: dict[str, Any] = {
        "target": "onnxruntime",
        "device": DEVICE,
        "threads": 2,
        "runtime_versions": {"onnxruntime": "1.32.0"},
        "latency": Latency(
            iterations_ms=tuple(float(time) for time in milliseconds * (0.96 + noise)), warmup_iterations=3
        ),
        "load_ms": 100 + params_m,
        "peak_memory_bytes": int(9e6 + 5e6 * params_m),
        "file_bytes": int(4e6 * params_m),
    }
    return Profile(**(facts | more))


def scores(recall: float, dataset: str = "photos") -> Scores:
    found = [
        Recall(direction=direction, k=k, mode=mode, value=value, low=value * 0.92,
               high=min(1.0, value * 1.07), chance=k / 474)
        for direction in ("image_to_text", "text_to_image")
        for mode in ("fraction", "any")
        for k in (1, 5, 10)
        for value in [recall * {1: 0.45, 5: 0.85, 10: 1.0}[k]]
    ]  # fmt: skip
    return Scores(
        dataset=dataset, images=163, texts=474, recalls=tuple(found), median_rank_image_to_text=3.0,
        median_rank_text_to_image=2.0,
    )  # fmt: skip


def row(entry: str = "mobileclip_s0", recall: float | None = None, **more: Any) -> ResultRow:
    """A measured row; with ``recall``, one with trained weights that was scored."""
    family, image_ms, text_ms, (image_m, image_gmacs), (text_m, text_gmacs) = MODELS[entry]
    trained = recall is not None
    facts: dict[str, Any] = {
        "key": sha(f"{entry} {trained}"),
        "entry": entry,
        "family": family,
        "weights": f"published@{sha(entry)[:12]}" if trained else "untrained",
        "contract": "lpcvc2026",
        "target": "onnxruntime",
        "device": DEVICE,
        "precision": "float",
        "text_length": 77,
        "image_size": 224,
        "embed_dim": 512,
        "image_params": int(image_m * 1e6),
        "text_params": int(text_m * 1e6),
        "image_gmacs": image_gmacs,
        "text_gmacs": text_gmacs,
        "image": profile(entry + "image", image_ms + 12.4, image_m),
        "text": profile(entry + "text", text_ms, text_m),
        "preprocess_ms": 12.4,
        "dataset": "photos",
        "chance": CHANCE,
        "scores": None if recall is None else scores(recall),
        "image_parity_cosine": 0.9999998,
        "text_parity_cosine": 0.9999999,
        "image_sha256": sha(entry + "image"),
        "text_sha256": sha(entry + "text"),
        "versions": {"lpcvc-zoo": "0.1.0", "onnxruntime": "1.32.0", "torch": "2.11.0"},
        "created": "2026-03-01T12:00:00.000000+00:00",
    }
    return ResultRow(**(facts | more))


def static(entry: str = "mobileclip_s0", recall: float | None = None, **more: Any) -> ResultRow:
    """The same towers on the offline compiler: an estimate of what they move, no latency and no scores."""
    _, image_ms, text_ms, (image_m, _), (text_m, _) = MODELS[entry]
    device = more.get("device", "XR2 Gen 2")

    def estimate(weight: float, params_m: float) -> Profile:
        moved = int(weight * 1e6)
        traffic = Traffic(
            dram_read_bytes=int(2e6 * params_m), dram_write_bytes=moved // 40, vtcm_read_bytes=5 * moved,
            vtcm_write_bytes=3 * moved, spill_bytes=moved // 50, ops=40 * int(weight) + 30, dma_ops=30,
        )  # fmt: skip
        return Profile(
            target="qnn", device=device, runtime_versions={"onnxruntime-qnn": "2.7.0"},
            file_bytes=int(2e6 * params_m), traffic=traffic,
        )  # fmt: skip

    facts: dict[str, Any] = {
        "key": sha(f"{entry} {recall} static {device}"),
        "target": "qnn",
        "device": device,
        "image": estimate(image_ms**0.7 + 60, image_m),
        "text": estimate(text_ms**0.7, text_m),
        "preprocess_ms": None,
        "scores": None,
        "weights": row(entry, recall).weights,
    }
    return row(entry, **(facts | more))


def failed(
    entry: str = "mobileclip2_b", error: str = "ExportError: no such operator", **more: Any
) -> ResultRow:
    """A row that never came to a measurement."""
    unknown = "image text preprocess_ms image_sha256 text_sha256 image_parity_cosine text_parity_cosine"
    nothing = dict.fromkeys(unknown.split())
    return row(entry, **(nothing | {"error": error} | more))


def untrained_sweep() -> list[ResultRow]:
    return [row(entry) for entry in MODELS]


def mixed_sweep() -> list[ResultRow]:
    """Published checkpoints where there are some, untrained else, two failures."""
    rows = [
        row(entry, RECALLS.get(entry))
        for entry in MODELS
        if entry not in ("mobileclip2_b", "openai_clip_rn50")
    ]
    text = "ExportError: text tower of mobileclip2_b: cosine 0.9931 to torch, expected 0.9999 or more. " * 3
    return [
        *rows,
        failed("mobileclip2_b", text),
        failed("openai_clip_rn50", "TargetError: killed (out of memory)"),
    ]
