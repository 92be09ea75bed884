"""The objective: open_clip's contrastive losses, and what a student learns from a teacher's embeddings.

``clip``, ``siglip``: open_clip's. With k texts an image, the mean over the k: texts of one image never count
against each other. ``negatives``: an image must prefer its own text to the false ones made from it
(NegCLIP, arXiv:2210.01936). Of the rest, B student and teacher embeddings of unit length each:

``feature``: squared distance to the teacher's embedding (CLIP-KD's FD, arXiv:2307.12732).
``affinity``: cross-entropy between the teacher's and the student's softmax over the batch, image to text and
    back (TinyCLIP's affinity mimicking, arXiv:2309.12314; CLIP-KD's contrastive relational distillation is
    the same less the teacher's entropy, a constant).
``relational``: the same between embeddings of one tower, each compared with the others of the batch.
``interactive``: a student's image must find its text among the teacher's texts, and its text the image
    (CLIP-KD's ICL).
Where the teacher's embeddings have another size, ``feature`` and ``interactive`` learn a projection that is
not part of the model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from open_clip.loss import ClipLoss, SigLipLoss
from torch import Tensor, nn
from torch.nn import functional

from lpcvc_zoo.contract import Tower
from lpcvc_zoo.model import unit_length
from lpcvc_zoo.training.recipe import Loss

SIGLIP_BIAS = -10.0  # the paper's start, arXiv:2303.15343
FAR = -1e4


@dataclass
class Embedded:
    """Unit-length embeddings of a whole step: ``image`` ``[B, D]``, ``text`` ``[B, k, D]``, ``negatives``
    ``[B, M, D]`` with ``negative_mask`` ``[B, M]``, True where there is one. None for what is not run."""

    image: Tensor | None = None
    text: Tensor | None = None
    negatives: Tensor | None = None
    negative_mask: Tensor | None = None

    def of(self, tower: Tower) -> Tensor:
        """``[B, D]`` of images or ``[B * k, D]`` of texts."""
        tensor = self.image if tower == "image" else self.text
        assert tensor is not None
        return tensor.flatten(0, -2)

    def columns(self) -> list[tuple[Tensor, Tensor]]:
        """(images, texts) ``[B, D]`` each, for every one of the k texts."""
        assert self.image is not None
        assert self.text is not None
        return [(self.image, text) for text in self.text.unbind(1)]


class Objective(nn.Module):
    """The weighted sum of all terms; holds what is learnt beside the towers."""

    def __init__(self, losses: Sequence[Loss], dim: int, teacher_dims: Mapping[str, int]) -> None:
        super().__init__()
        self.losses, self.names = tuple(losses), term_names(losses)
        self.clip, self.siglip = ClipLoss(), SigLipLoss()
        self.projections = nn.ModuleDict()
        for loss in losses:
            if loss.kind in ("feature", "interactive") and teacher_dims[loss.teacher or ""] != dim:
                for tower in loss.needs:
                    self.projections[f"{loss.teacher}:{tower}"] = nn.Linear(
                        dim, teacher_dims[loss.teacher or ""], bias=False
                    )
        if any(loss.kind == "siglip" for loss in losses):
            self.bias = nn.Parameter(torch.tensor(SIGLIP_BIAS))

    def forward(
        self, student: Embedded, teachers: Mapping[str, Embedded], logit_scale: Tensor
    ) -> dict[str, Tensor]:
        """Every term by name, unweighted, and their weighted sum as ``"loss"``."""
        terms: dict[str, Tensor] = {}
        total = logit_scale.new_zeros(())
        for name, loss in zip(self.names, self.losses, strict=True):
            terms[name] = self._term(loss, student, teachers, logit_scale.exp())
            total = total + loss.weight * terms[name]
        return {"loss": total, **terms}

    def _term(self, loss: Loss, student: Embedded, teachers: Mapping[str, Embedded], scale: Tensor) -> Tensor:
        match loss.kind:
            case "clip":
                return _mean([self.clip(image, text, scale) for image, text in student.columns()])
            case "siglip":
                return _mean([self.siglip(*pair, scale, self.bias) for pair in student.columns()])
            case "negatives":
                return prefer_own_text(student, scale)
        teacher = teachers[loss.teacher or ""]
        match loss.kind:
            case "affinity":
                pairs = zip(student.columns(), teacher.columns(), strict=True)
                return _mean([affinity(*own, *its, loss.temperature) for own, its in pairs])
            case "interactive":
                return _mean(self._interactive(loss, student, teacher))
            case "feature":
                return _mean(
                    [
                        distance(self._projected(loss, tower, student.of(tower)), teacher.of(tower))
                        for tower in loss.towers
                    ]
                )
            case "relational":
                return _mean(
                    [
                        relational(student.of(tower), teacher.of(tower), loss.temperature)
                        for tower in loss.towers
                    ]
                )

    def _interactive(self, loss: Loss, student: Embedded, teacher: Embedded) -> list[Tensor]:
        scale = torch.tensor(1 / loss.temperature)
        terms = []
        for (image, text), (its_image, its_text) in zip(student.columns(), teacher.columns(), strict=True):
            terms.append(self.clip(self._projected(loss, "image", image), its_text, scale))
            terms.append(self.clip(its_image, self._projected(loss, "text", text), scale))
        return terms

    def _projected(self, loss: Loss, tower: Tower, embedding: Tensor) -> Tensor:
        name = f"{loss.teacher}:{tower}"
        return unit_length(self.projections[name](embedding)) if name in self.projections else embedding


def term_names(losses: Sequence[Loss]) -> list[str]:
    """Each term's own name: a second one of a kind and teacher ends in ".2", which no teacher's name can."""
    names = [loss.kind if loss.teacher is None else f"{loss.kind}_{loss.teacher}" for loss in losses]
    counts = [names[: place + 1].count(name) for place, name in enumerate(names)]
    return [f"{name}.{count}" if count > 1 else name for name, count in zip(names, counts, strict=True)]


def prefer_own_text(student: Embedded, scale: Tensor) -> Tensor:
    """Cross-entropy of each image's first text against the false ones made from it; 0 if none are."""
    assert student.image is not None
    assert student.text is not None
    assert student.negatives is not None
    assert student.negative_mask is not None
    against = torch.cat([student.text[:, :1], student.negatives], dim=1)
    logits = scale * (against @ student.image.unsqueeze(2)).squeeze(2)
    open_to = torch.cat([torch.ones_like(student.negative_mask[:, :1]), student.negative_mask], dim=1)
    logits = logits.masked_fill(~open_to, FAR)
    each = functional.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.long), reduction="none")
    has_any = student.negative_mask.any(dim=1)
    return (each * has_any).sum() / has_any.sum().clamp(min=1)


def distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance of unit vectors ``[N, D]``, 0 to 4: twice one less their cosine."""
    return (student - teacher).square().sum(dim=1).mean()


def affinity(image: Tensor, text: Tensor, its_image: Tensor, its_text: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of the student's ranking of the batch under the teacher's, mean of both directions."""
    own, its = image @ text.T / temperature, its_image @ its_text.T / temperature
    return (
        functional.cross_entropy(own, its.softmax(dim=1))
        + functional.cross_entropy(own.T, its.T.softmax(dim=1))
    ) / 2


def relational(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """``affinity`` of a tower's embeddings ``[N, D]`` with themselves, each one's with itself aside."""
    itself = torch.eye(len(student), dtype=torch.bool, device=student.device)
    own = (student @ student.T / temperature).masked_fill(itself, FAR)
    its = (teacher @ teacher.T / temperature).masked_fill(itself, FAR)
    return functional.cross_entropy(own, its.softmax(dim=1))


def largest_scale(towers_scale: Tensor) -> None:
    """Keep the learnt scale of the cosines at 100 or below, as CLIP does."""
    with torch.no_grad():
        towers_scale.clamp_(max=math.log(100))


def _mean(terms: list[Tensor]) -> Tensor:
    return torch.stack(terms).mean()
