"""One step of the optimiser: the gradient of the whole batch, over parts and processes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import Tensor

from lpcvc_zoo.errors import TrainingError
from lpcvc_zoo.model import Towers
from lpcvc_zoo.training.batches import Batch
from lpcvc_zoo.training.distributed import Group
from lpcvc_zoo.training.losses import Embedded, Objective, largest_scale
from lpcvc_zoo.training.norms import unseen
from lpcvc_zoo.training.recipe import Recipe
from lpcvc_zoo.training.student import Student, concatenated, parameter_groups
from lpcvc_zoo.training.teachers import Lesson

_NAMES = ("image", "text", "negatives")


class Stepper:
    """The student with its optimiser, schedule and average; ``step`` takes one batch."""

    def __init__(
        self,
        student: Student,
        objective: Objective,
        lessons: Mapping[str, Lesson],
        recipe: Recipe,
        steps: int,
        group: Group,
        device: torch.device,
    ) -> None:
        self.student, self.objective, self.lessons = student.to(device), objective.to(device), lessons
        self.recipe, self.group, self.device = recipe, group, device
        options = recipe.optimiser
        groups = parameter_groups(student, objective, options)
        self.optimiser = torch.optim.AdamW(groups, lr=options.lr, betas=options.betas)
        warmup = round(options.warmup * steps)
        self.schedule = CosineLRScheduler(
            self.optimiser,
            t_initial=steps + 1 - warmup,
            lr_min=options.final_lr,
            warmup_t=warmup,
            warmup_prefix=True,  # else the fall begins before the rise is over, which then ends in a jump
            t_in_epochs=False,
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "float16")
        self.ema = ModelEmaV3(student.towers, options.ema, use_warmup=True) if options.ema else None
        self.taken = 0

    @property
    def result(self) -> Towers:
        """The towers that are validated and kept: averaged ones, where they are."""
        return self.ema.module if self.ema is not None else self.student.towers

    def step(self, batch: Batch) -> dict[str, float]:
        """Learn from this process's share of a batch; every loss term, the rate and the scale of cosines.

        TrainingError where the loss is not a number.
        """
        self.student.ready()
        self.schedule.step_update(self.taken + 1)  # one ahead: no step is wasted on the rate 0
        self.optimiser.zero_grad(set_to_none=True)
        terms = self._backward(batch.to(self.device))
        values = {name: float(term.detach()) for name, term in terms.items()}
        if not all(map(_finite, values.values())):
            raise TrainingError(
                f"The loss is not a number at step {self.taken + 1} ({values}). Try a lower optimiser.lr, "
                'more warm-up, or precision = "float32"; what was saved before is untouched.'
            )
        # the scale and the objective's own parameters come after the gathering: all processes have them whole
        towers = self.student.towers
        self.group.sum_gradients([*towers.image.parameters(), *towers.text.parameters()])
        self.scaler.unscale_(self.optimiser)  # after the sum, so that all processes see what overflowed
        if self.recipe.optimiser.clip_norm is not None:
            learnt = [item for part in self.optimiser.param_groups for item in part["params"]]
            torch.nn.utils.clip_grad_norm_(learnt, self.recipe.optimiser.clip_norm)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        largest_scale(towers.logit_scale)
        self.taken += 1
        if self.ema is not None:
            self.ema.update(towers, step=self.taken)
        rate = max(part["lr"] for part in self.optimiser.param_groups)
        return {**values, "lr": rate, "scale": float(towers.logit_scale.detach().exp())}

    def _backward(self, batch: Batch) -> dict[str, Tensor]:
        """Gradients of the loss over the whole batch, in parts if it does not fit at once.

        In parts, embeddings are made twice (GradCache, arXiv:2101.06983): first without gradients, for the
        loss and its gradient at each embedding; then with, to send those on into the towers.
        """
        chunks = batch.chunks(self.recipe.accumulate)
        if len(chunks) == 1:
            terms = self._loss(batch, self.student(batch), self._asked(chunks))
            _backward(self.scaler.scale(terms["loss"]))
            return terms
        states, parts = [], []
        with torch.no_grad(), unseen(self.student):
            for chunk in chunks:
                states.append(_random_state(self.device))
                parts.append(self.student(chunk))
        whole = concatenated(parts)
        leaves = {
            name: getattr(whole, name).requires_grad_() for name in _NAMES if getattr(whole, name) is not None
        }
        terms = self._loss(batch, whole, self._asked(chunks))
        _backward(self.scaler.scale(terms["loss"]))
        gradients = [
            leaf.grad.chunk(len(chunks)) if leaf.grad is not None else None for leaf in leaves.values()
        ]
        for place, chunk in enumerate(chunks):
            with _replayed(states[place], self.device):  # the same dropout as the first time
                again = self.student(chunk)
            pairs = [
                (getattr(again, name), gradient[place])
                for name, gradient in zip(leaves, gradients, strict=True)
                if gradient is not None and getattr(again, name).requires_grad
            ]
            torch.autograd.backward([output for output, _ in pairs], [gradient for _, gradient in pairs])
        return terms

    def _asked(self, chunks: list[Batch]) -> dict[str, Tensor]:
        """What the live teachers say of this process's images."""
        pixels = [chunk.pixels for chunk in chunks if chunk.pixels is not None]
        return {
            name: torch.cat([lesson.live(part) for part in pixels])
            for name, lesson in self.lessons.items()
            if lesson.live is not None
        }

    def _loss(self, batch: Batch, own: Embedded, asked: Mapping[str, Tensor]) -> dict[str, Tensor]:
        gather = self.group.gather
        mask = own.negative_mask
        student = Embedded(
            image=_through(gather, own.image),
            text=_through(gather, own.text),
            negatives=_through(gather, own.negatives),
            negative_mask=None if mask is None else gather(mask.int()).bool(),
        )
        images = _through(gather, batch.image_index)
        texts = _through(gather, batch.text_index)
        teachers = {name: lesson.of(images, texts) for name, lesson in self.lessons.items()}
        for name, embeddings in asked.items():
            teachers[name].image = gather(embeddings)
        terms: dict[str, Tensor] = self.objective(student, teachers, self.student.towers.logit_scale)
        return terms

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, for ``torch.save``."""
        return {
            "taken": self.taken,
            "towers": self.student.towers.state_dict(),
            "objective": self.objective.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": None if self.ema is None else self.ema.module.state_dict(),
            "random": _random_state(self.device),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.taken = state["taken"]
        self.student.towers.load_state_dict(state["towers"])
        self.objective.load_state_dict(state["objective"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
        _set_random_state(state["random"], self.device)


def _backward(loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]


def _through(change: Callable[[Tensor], Tensor], tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else change(tensor)


def _random_state(device: torch.device) -> list[Tensor]:
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def _set_random_state(states: list[Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0].cpu())
    if device.type == "cuda" and len(states) > 1:
        torch.cuda.set_rng_state(states[1].cpu(), device)


@contextlib.contextmanager
def _replayed(states: list[Tensor], device: torch.device) -> Any:
    before = _random_state(device)
    _set_random_state(states, device)
    try:
        yield
    finally:
        _set_random_state(before, device)


def _finite(value: float) -> bool:
    return value - value == 0
