r"""The image towers of the distilled EfficientViTs: they learn to see pictures as EfficientNet-Lite0 does.

    python benchmarks/recipes/efficientvit_image.py --out runs/efficientvit --steps 1644
    python benchmarks/recipes/efficientvit_image.py --student efficientvit_b0_text_xs \
        --start runs/efficientvit --out runs/efficientvit_b0 --steps 5600 --seed 1

Function matching (arXiv:2106.05237; of few pictures, arXiv:2112.00725): the teacher sees every picture as the
student does, mixtures too, and the student matches its probabilities over ImageNet's classes, and maps on the
way there. Pictures: ``scenes.py``. All students see the same ones. This wants a GPU. A run that was stopped
goes on. What was seen is written beside the weights for ``ship.py``.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from scenes import EDGE, files_in, load_scenes
from timm.optim import param_groups_weight_decay
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms.v2 import functional as image_ops

from lpcvc_zoo.contract import get_contract
from lpcvc_zoo.entry import Entry
from lpcvc_zoo.files import sha256_of, write_text, written_whole
from lpcvc_zoo.ingraph import ImageAdapter
from lpcvc_zoo.model import Towers
from lpcvc_zoo.registry import build, get_entry, untrained
from lpcvc_zoo.training.checkpoint import save_towers
from lpcvc_zoo.training.folder import BEST, DATA, STATE, read_state
from lpcvc_zoo.training.records import STEPS, Table

STUDENTS = ("efficientvit_b0_text_xs", "efficientvit_m0_text_xs")
SIZE = 160  # pixels, of what they see; B0 is used at a larger size after that, as arXiv:1906.06423 advises
TEACHER, CONTRACT = "efficientnet_lite0_224_text_xs", get_contract("lpcvc2026_sample")  # 0 to 1, of EDGE
TEACHER_MAPS = {8: (2, 40), 16: (4, 112), 32: (6, 320)}  # stride: the trunk's block, and its channels
LR, WEIGHT_DECAY, WARMUP, CLIP, EMA = 2e-3, 0.05, 0.04, 2.0, 0.999
LOW_TEMPERATURE = 0.5  # beside 1, at which the teacher is so unsure that its likeliest classes hardly count
MAPS, EMBEDDING = 0.5, 2.0  # weights beside the probabilities'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--student", choices=STUDENTS, help="one alone; all if this is left out")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="a finished run, to go on from with a new schedule")
    parser.add_argument("--ingredients", type=Path, default=Path("pictures/ingredients"))
    parser.add_argument(
        "--held-out", type=Path, default=Path("pictures/held_out"), help="photos to look at only"
    )
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    train(parser.parse_args())


@dataclass
class Outputs:
    """``logits`` ``[N, 1000]``, the ``embedding`` ``[N, D]`` they come to, ``maps`` by stride."""

    logits: Tensor
    embedding: Tensor
    maps: dict[int, Tensor]


class Teacher(nn.Module):
    """Pictures 0 to 1 of 224 pixels, as the tower of the entry sees them."""

    def __init__(self) -> None:
        super().__init__()
        model = build(TEACHER, pretrained=True, contract=CONTRACT)
        self.tower: Any = model.image_tower.eval().requires_grad_(False)
        self.text, self.adapter = model.text_tower, model.image_encoder.adapter

    def forward(self, pictures: Tensor) -> Outputs:
        trunk = self.tower.trunk
        hidden = trunk.bn1(trunk.conv_stem(self.adapter(pictures)))
        maps = {}
        strides = {block: stride for stride, (block, _) in TEACHER_MAPS.items()}
        for place, block in enumerate(trunk.blocks):
            hidden = block(hidden)
            if place in strides:
                maps[strides[place]] = hidden
        logits = trunk.classifier(trunk.global_pool(trunk.bn2(trunk.conv_head(hidden))))
        return Outputs(logits, self.tower.class_embeddings(logits.softmax(dim=1)), maps)


class Student(nn.Module):
    """The entry's tower, seen from inside; ``adapters`` bring its maps to the teacher's channels."""

    def __init__(self, entry: Entry, class_embeddings: Tensor) -> None:
        super().__init__()
        self.tower: Any = untrained(entry).image
        self.tower.class_embeddings.weight.data.copy_(class_embeddings)
        self.tower.class_embeddings.requires_grad_(False)
        self.adapter = ImageAdapter(CONTRACT.image, entry.preprocessing, EDGE)  # resizes nothing
        trunk = self.tower.trunk
        known = [(info["reduction"], info["num_chs"]) for info in trunk.feature_info]
        self.adapters = nn.ModuleDict(
            {
                str(stride): nn.Conv2d(channels, TEACHER_MAPS[stride][1], 1)
                for stride, channels in known
                if stride in TEACHER_MAPS
            }
        )
        self.strides = [stride for stride, _ in known]

    def forward(self, pictures: Tensor) -> Outputs:
        trunk = self.tower.trunk
        first = trunk.stem if hasattr(trunk, "stem") else trunk.patch_embed  # MIT's, MSRA's
        hidden = first(self.adapter(pictures))
        maps = {}
        for stride, stage in zip(self.strides, trunk.stages, strict=True):
            hidden = stage(hidden)
            if str(stride) in self.adapters:
                maps[stride] = self.adapters[str(stride)](hidden)
        logits = trunk.forward_head(hidden)
        return Outputs(logits, self.tower.class_embeddings(logits.softmax(dim=1)), maps)


def losses(own: Outputs, its: Outputs, part_done: float) -> dict[str, Tensor]:
    """Every term, weighted; maps count less and less, for in the end only probabilities count."""
    found = {
        "probabilities": kl_divergence(own.logits, its.logits, 1.0),
        "sharp": kl_divergence(own.logits, its.logits, LOW_TEMPERATURE),
        "embedding": EMBEDDING
        * (1 - functional.cosine_similarity(own.embedding.float(), its.embedding.float(), dim=1)).mean(),
    }
    for stride, drawn in own.maps.items():
        known = its.maps[stride].float()
        spread, centre = torch.std_mean(known, dim=(0, 2, 3), keepdim=True)
        known = functional.interpolate((known - centre) / (spread + 1e-3), drawn.shape[-2:], mode="area")
        found[f"map_{stride}"] = MAPS * (1 - part_done) * functional.mse_loss(drawn.float(), known)
    return found


def kl_divergence(own: Tensor, its: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler's, of the student's probabilities from the teacher's."""
    own, its = own.float() / temperature, its.float() / temperature
    return functional.kl_div(
        own.log_softmax(dim=1), its.log_softmax(dim=1), reduction="batchmean", log_target=True
    )


def train(given: argparse.Namespace) -> None:
    torch.manual_seed(given.seed)
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    device = torch.device(given.device)
    scenes = load_scenes(given.ingredients, device)
    held_out = opened(given.held_out, device)
    teacher = Teacher().to(device, memory_format=torch.channels_last)
    with torch.no_grad():
        known = teacher(held_out)
    settings = {name: getattr(given, name) for name in ("steps", "batch_size", "seed")}
    learners = []
    for name in STUDENTS if given.student is None else (given.student,):
        student = Student(get_entry(name), teacher.tower.class_embeddings.weight)
        student = student.to(device, memory_format=torch.channels_last)
        learners.append(Learner(name, student, teacher.text, settings, device, given.out / name))
    seen = [f"image {sha256_of(path)}" for path in sorted(given.ingredients.rglob("*.webp"))]
    for learner in learners:
        learner.begin(seen, given.start and given.start / learner.name)
    first = learners[0].taken
    if any(learner.taken != first for learner in learners):
        raise SystemExit(f"{given.out}: the students are at different steps; finish each with --student.")
    if first:
        torch.manual_seed(given.seed + first)  # new pictures, not those of the first steps again
    compiled = torch.compile(teacher) if device.type == "cuda" else teacher
    every = max(1, given.steps // 50)
    began = time.monotonic()
    for taken in range(first + 1, given.steps + 1):
        pictures = scenes.batch(given.batch_size, EDGE).contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            its = compiled(pictures)
        shown = image_ops.resize(pictures, [SIZE, SIZE], antialias=True)
        shown = shown.contiguous(memory_format=torch.channels_last)
        terms = [learner.step(shown, its) for learner in learners]
        if taken % every == 0 or taken == given.steps:
            rate = given.batch_size * (taken - first) / (time.monotonic() - began)
            print(f"{taken} of {given.steps}, {rate:.0f} pictures/s", flush=True)
            for learner in learners:
                learner.save()
            for learner, values in zip(learners, terms, strict=True):
                found = agreement(learner.averaged, held_out, known)
                learner.note({key: float(value.detach()) for key, value in values.items()} | found)


class Learner:
    """A student with its optimiser, its rate's schedule, its average and its folder."""

    def __init__(
        self,
        name: str,
        student: Student,
        text: nn.Module,
        settings: dict[str, int],
        device: torch.device,
        out: Path,
    ) -> None:
        self.name, self.student, self.text, self.settings = name, student, text, settings
        self.device, self.out, self.taken = device, out, 0
        groups = param_groups_weight_decay(student, WEIGHT_DECAY)
        self.optimiser = torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.99), fused=device.type == "cuda")
        self.ema = ModelEmaV3(student, EMA, use_warmup=True, foreach=True)

    @property
    def averaged(self) -> Student:
        student: Student = self.ema.module
        return student

    def begin(self, seen: list[str], start: Path | None) -> None:
        """Go on where a stopped run was, or from a finished one; write down all that is seen."""
        state, before = read_state(self.out / STATE), self.out
        if state is not None:
            self.taken = state["taken"]
            if state["settings"] != self.settings:
                raise SystemExit(f"{self.out} holds a run with {state['settings']}, not {self.settings}.")
        elif start is not None:
            state, before = read_state(start / STATE), start
            if state is None:
                raise SystemExit(f"{start} holds no run to start from.")
        if state is not None:
            self.student.load_state_dict(state["student"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.averaged.load_state_dict(state["average"])
            seen = [*(before / DATA).read_text().splitlines(), *seen]
        self.out.mkdir(parents=True, exist_ok=True)
        write_text(self.out / DATA, "\n".join(dict.fromkeys(seen)) + "\n")
        self.table = Table(self.out / STEPS, self.taken)

    def note(self, values: dict[str, float]) -> None:
        """One line of the run's table, on the screen too."""
        row: dict[str, float] = {
            "step": self.taken,
            **{key: round(value, 4) for key, value in values.items()},
        }
        print(f"  {self.name}: {row}", flush=True)
        self.table.add(row)

    def step(self, pictures: Tensor, its: Outputs) -> dict[str, Tensor]:
        self.student.train()
        done = self.taken / self.settings["steps"]
        rate = (
            done / WARMUP if done < WARMUP else (1 + math.cos(math.pi * (done - WARMUP) / (1 - WARMUP))) / 2
        )
        for group in self.optimiser.param_groups:
            group["lr"] = LR * max(rate, 1e-3)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            own = self.student(pictures)
        terms = losses(own, its, done)
        self.optimiser.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.student.parameters(), CLIP)
        self.optimiser.step()
        self.taken += 1
        self.ema.update(self.student, step=self.taken)
        return terms

    def save(self) -> None:
        """All that the next step needs, and the averaged tower beside the teacher's text tower."""
        state = {
            "taken": self.taken,
            "settings": self.settings,
            "student": self.student.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.averaged.state_dict(),
        }
        with written_whole(self.out / STATE) as temporary:
            torch.save(state, temporary)
        towers = Towers(self.averaged.tower, self.text)
        nn.init.zeros_(towers.logit_scale)  # no scale of cosines was learnt
        save_towers(towers, self.out / BEST, {"entry": self.name})


@torch.no_grad()
def agreement(student: Student, photos: Tensor, its: Outputs) -> dict[str, float]:
    """With the teacher on photos that no picture was made of: mean cosine, and how often the likeliest class
    is the same."""
    own = student.eval()(image_ops.resize(photos, [SIZE, SIZE], antialias=True))
    cosine = functional.cosine_similarity(own.embedding, its.embedding, dim=1).mean()
    same = (own.logits.argmax(dim=1) == its.logits.argmax(dim=1)).float().mean()
    return {"cosine": float(cosine), "same": float(same)}


def opened(folder: Path, device: torch.device) -> Tensor:
    squares = (
        Image.open(path).convert("RGB").resize((EDGE, EDGE), Image.Resampling.BICUBIC)
        for path in files_in(folder, ".jpg")
    )
    return torch.stack([image_ops.pil_to_tensor(square).float() / 255 for square in squares]).to(device)


if __name__ == "__main__":
    main()
