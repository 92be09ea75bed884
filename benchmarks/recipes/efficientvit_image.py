"""The image tower of a distilled EfficientViT: it learns to see pictures as EfficientNet-Lite0 does.

    python benchmarks/recipes/efficientvit_image.py RECIPE.toml --out runs/efficientvit_b0

Function matching (arXiv:2106.05237; of few pictures, arXiv:2112.00725): the teacher sees every picture as the
student does, mixtures too, and the student matches its probabilities over ImageNet's classes, and maps on the
way there. Pictures: ``scenes.py``. The recipe's ``[training]`` says the rest. Each of its parts has a folder
below ``--out``, by its number; a run that was stopped goes on. What was seen is written beside the weights.
"""

from __future__ import annotations

import argparse
import math
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from colours import scaled
from lite_image import TEMPERATURE
from PIL import Image
from scenes import files_in, load_scenes
from timm.optim import param_groups_weight_decay
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms.v2 import functional as image_ops

from lpcvc_zoo.backbones._sized import set_image_size
from lpcvc_zoo.contract import get_contract
from lpcvc_zoo.entry import Entry, Facts, Preprocessing
from lpcvc_zoo.files import sha256_of, write_text, written_whole
from lpcvc_zoo.ingraph import ImageAdapter
from lpcvc_zoo.model import Towers
from lpcvc_zoo.registry import build, get_entry, untrained
from lpcvc_zoo.training.checkpoint import save_towers
from lpcvc_zoo.training.folder import BEST, DATA, STATE, read_state
from lpcvc_zoo.training.records import STEPS, Table

CONTRACT = get_contract("lpcvc2026_sample")  # pixels 0 to 1
TEACHER_MAPS = {8: (2, 40), 16: (4, 112), 32: (6, 320)}  # stride: the trunk's block, and its channels
LEARNT_FROM = 1.5  # the temperature of the teacher's softmax: lite_image.py has raised its own since
LOW_TEMPERATURE = 0.5  # beside 1, at which the teacher is so unsure that its likeliest classes hardly count


class Part(Facts):
    """A schedule of its own, from where the part before it ended."""

    steps: int
    seed: int


class Weights(Facts):
    """Of the losses: the teacher's probabilities at temperature 1, and ``sharp``, at 0.5; the direction of
    the embedding that they come to; maps on the way there, less and less."""

    probabilities: float
    sharp: float
    embedding: float
    maps: float


class Training(Facts):
    """``size``: pixels, of what the student sees; the teacher, an entry, sees pictures of its own size.

    AdamW; the rate rises to ``lr`` over the share ``warmup`` of a part's steps and falls by a cosine.
    """

    student: str
    teacher: str
    size: int
    batch_size: int
    lr: float
    weight_decay: float
    warmup: float
    clip_norm: float
    ema: float
    losses: Weights
    parts: tuple[Part, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--ingredients", type=Path, default=Path("pictures/ingredients"))
    parser.add_argument(
        "--held-out", type=Path, default=Path("pictures/held_out"), help="photos to look at only"
    )
    parser.add_argument("--device", default="cuda", help="cpu where there is no GPU and days to spend")
    parser.add_argument("--threads", type=int, help="of a CPU; by default as many as torch takes")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    document = tomllib.loads(given.recipe.read_text(encoding="utf-8"))["training"]
    recipe = Training.model_validate(document)
    if given.device == "cuda" and not torch.cuda.is_available():
        pictures = recipe.batch_size * sum(part.steps for part in recipe.parts)
        parser.error(
            f"{given.recipe} learns from {pictures:,} pictures on a GPU, and torch sees none. "
            "efficientvit_m0_cpu.toml is sized for a CPU; --device cpu runs this one on it all the same."
        )
    train(recipe, given.out, given.ingredients, given.held_out, torch.device(given.device))


@dataclass
class Outputs:
    """``logits`` ``[N, 1000]``, the ``embedding`` ``[N, D]`` they come to, ``maps`` by stride."""

    logits: Tensor
    embedding: Tensor
    maps: dict[int, Tensor]


class Teacher(nn.Module):
    """Pictures 0 to 1 of the entry's size, as its tower sees them."""

    def __init__(self, name: str) -> None:
        super().__init__()
        model = build(name, pretrained=True, contract=CONTRACT)
        self.tower: Any = model.image_tower.eval().requires_grad_(False)
        for tensor in self.tower.trunk.classifier.parameters():
            tensor *= TEMPERATURE / LEARNT_FROM
        self.text, self.edge = model.text_tower, model.entry.image_size
        self.preprocessing = model.preprocessing
        self.adapter = adapter(model.preprocessing)

    def colours(self, preprocessing: Preprocessing) -> dict[str, Tensor]:
        """The state of its colour branch, for pixels that are normalised so."""
        own = torch.tensor([self.preprocessing.mean, self.preprocessing.std])
        mean, std = torch.tensor([preprocessing.mean, preprocessing.std])
        state = {name: tensor.cpu() for name, tensor in self.tower.colours.state_dict().items()}
        weight, bias = scaled(
            state["naming.0.weight"][:, :, 0, 0],
            state["naming.0.bias"],
            (mean - own[0]) / own[1],
            std / own[1],
        )
        return state | {"naming.0.weight": weight[:, :, None, None], "naming.0.bias": bias}

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

    def __init__(self, entry: Entry, size: int, teacher: Teacher) -> None:
        super().__init__()
        towers = untrained(entry)
        set_image_size(towers, size, what=entry.name)
        self.tower: Any = towers.image
        self.tower.class_embeddings.load_state_dict(teacher.tower.class_embeddings.state_dict())
        self.tower.colours.load_state_dict(teacher.colours(entry.preprocessing))
        self.tower.class_embeddings.requires_grad_(False)
        self.tower.colours.requires_grad_(False)
        self.adapter = adapter(entry.preprocessing)
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


def adapter(preprocessing: Preprocessing) -> ImageAdapter:
    """Mean and standard deviation alone: pictures are made at the size that is wanted."""
    made = ImageAdapter(CONTRACT.image, preprocessing, CONTRACT.image.width)
    made.resize = nn.Identity()
    return made


def losses(own: Outputs, its: Outputs, weights: Weights, part_done: float) -> dict[str, Tensor]:
    """Every term, weighted; maps count less and less, for in the end only probabilities count."""
    found = {
        "probabilities": weights.probabilities * kl_divergence(own.logits, its.logits, 1.0),
        "sharp": weights.sharp * kl_divergence(own.logits, its.logits, LOW_TEMPERATURE),
        "embedding": weights.embedding
        * (1 - functional.cosine_similarity(own.embedding.float(), its.embedding.float(), dim=1)).mean(),
    }
    for stride, drawn in own.maps.items():
        known = its.maps[stride].float()
        spread, centre = torch.std_mean(known, dim=(0, 2, 3), keepdim=True)
        known = functional.interpolate((known - centre) / (spread + 1e-3), drawn.shape[-2:], mode="area")
        found[f"map_{stride}"] = weights.maps * (1 - part_done) * functional.mse_loss(drawn.float(), known)
    return found


def kl_divergence(own: Tensor, its: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler's, of the student's probabilities from the teacher's."""
    own, its = own.float() / temperature, its.float() / temperature
    return functional.kl_div(
        own.log_softmax(dim=1), its.log_softmax(dim=1), reduction="batchmean", log_target=True
    )


def train(recipe: Training, out: Path, ingredients: Path, held_out: Path, device: torch.device) -> None:
    torch.manual_seed(recipe.parts[0].seed)
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    scenes = load_scenes(ingredients, device)
    seen = [f"image {sha256_of(path)}" for path in sorted(ingredients.rglob("*.webp"))]
    teacher = Teacher(recipe.teacher).to(device, memory_format=torch.channels_last)
    photos = opened(held_out, teacher.edge, device)
    with torch.no_grad():
        known = teacher(photos)
    compiled = torch.compile(teacher) if device.type == "cuda" else teacher
    before = None
    for number, part in enumerate(recipe.parts, 1):
        torch.manual_seed(part.seed)
        student = Student(get_entry(recipe.student), recipe.size, teacher)
        student = student.to(device, memory_format=torch.channels_last)
        learner = Learner(student, teacher.text, recipe, part, device, out / str(number))
        learner.begin(seen, before)
        before = learner.out
        if learner.taken:
            torch.manual_seed(part.seed + learner.taken)  # new pictures, not those of the first steps again
        first, began = learner.taken, time.monotonic()
        every = max(1, part.steps // 50)
        for taken in range(first + 1, part.steps + 1):
            pictures = scenes.batch(recipe.batch_size, teacher.edge)
            pictures = pictures.contiguous(memory_format=torch.channels_last)
            with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                its = compiled(pictures)
            terms = learner.step(shown(pictures, recipe.size), its)
            if taken % every == 0 or taken == part.steps:
                rate = recipe.batch_size * (taken - first) / (time.monotonic() - began)
                print(f"part {number}: {taken} of {part.steps}, {rate:.0f} pictures/s", flush=True)
                learner.save()
                found = agreement(learner.averaged, shown(photos, recipe.size), known)
                learner.note({key: float(value.detach()) for key, value in terms.items()} | found)


class Learner:
    """A student with its optimiser, its rate's schedule, its average and its folder."""

    def __init__(
        self,
        student: Student,
        text: nn.Module,
        recipe: Training,
        part: Part,
        device: torch.device,
        out: Path,
    ) -> None:
        self.student, self.text, self.recipe, self.part = student, text, recipe, part
        self.device, self.out, self.taken = device, out, 0
        self.settings = recipe.model_dump(exclude={"parts"}) | part.model_dump()
        groups = param_groups_weight_decay(student, recipe.weight_decay)
        fused = device.type == "cuda"
        self.optimiser = torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.99), fused=fused)
        self.ema = ModelEmaV3(student, recipe.ema, use_warmup=True, foreach=True)

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
        if self.taken == self.part.steps and not (self.out / BEST).is_file():
            self.save_towers()  # no step is left to do so

    def note(self, values: dict[str, float]) -> None:
        """One line of the run's table, on the screen too."""
        row: dict[str, float] = {
            "step": self.taken,
            **{key: round(value, 4) for key, value in values.items()},
        }
        print(f"  {row}", flush=True)
        self.table.add(row)

    def step(self, pictures: Tensor, its: Outputs) -> dict[str, Tensor]:
        self.student.train()
        done, warmup = self.taken / self.part.steps, self.recipe.warmup
        rate = (
            done / warmup if done < warmup else (1 + math.cos(math.pi * (done - warmup) / (1 - warmup))) / 2
        )
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.lr * max(rate, 1e-3)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            own = self.student(pictures)
        terms = losses(own, its, self.recipe.losses, done)
        self.optimiser.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.student.parameters(), self.recipe.clip_norm)
        self.optimiser.step()
        self.taken += 1
        self.ema.update(self.student, step=self.taken)
        return terms

    def save(self) -> None:
        """All that the next step needs, and the towers."""
        state = {
            "taken": self.taken,
            "settings": self.settings,
            "student": self.student.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.averaged.state_dict(),
        }
        with written_whole(self.out / STATE) as temporary:
            torch.save(state, temporary)
        self.save_towers()

    def save_towers(self) -> None:
        """The averaged tower beside the teacher's text tower."""
        towers = Towers(self.averaged.tower, self.text)
        nn.init.zeros_(towers.logit_scale)  # no scale of cosines was learnt
        save_towers(towers, self.out / BEST, {"entry": self.recipe.student})


@torch.no_grad()
def agreement(student: Student, photos: Tensor, its: Outputs) -> dict[str, float]:
    """With the teacher on photos that no picture was made of: mean cosine, and how often the likeliest class
    is the same."""
    own = student.eval()(photos)
    cosine = functional.cosine_similarity(own.embedding, its.embedding, dim=1).mean()
    same = (own.logits.argmax(dim=1) == its.logits.argmax(dim=1)).float().mean()
    return {"cosine": float(cosine), "same": float(same)}


def shown(pictures: Tensor, size: int) -> Tensor:
    """Pictures as the student sees them."""
    small = image_ops.resize(pictures, [size, size], antialias=True)
    return small.contiguous(memory_format=torch.channels_last)


def opened(folder: Path, edge: int, device: torch.device) -> Tensor:
    squares = (
        Image.open(path).convert("RGB").resize((edge, edge), Image.Resampling.BICUBIC)
        for path in files_in(folder, ".jpg")
    )
    return torch.stack([image_ops.pil_to_tensor(square).float() / 255 for square in squares]).to(device)


if __name__ == "__main__":
    main()
