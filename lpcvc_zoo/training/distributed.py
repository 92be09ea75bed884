"""Several processes as one: started by torchrun, or none of this. Every process computes the whole loss.

Embeddings are gathered from all processes before the loss, so losses over the batch are those of one process
with the whole batch; each process then sends gradients through its own embeddings alone, and their sum over
processes is the whole gradient. BatchNorm's statistics are taken over all processes as well; see ``norms``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lpcvc_zoo.errors import TrainingError

PATIENCE = timedelta(hours=4)  # the others wait while one fills a cache or validates


@dataclass(frozen=True)
class Group:
    """This process's place among all, and among those of its machine: alone, rank 0 of 1."""

    rank: int = 0
    processes: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def gather(self, tensor: Tensor) -> Tensor:
        """All processes' rows in the order of ranks; only the own rows carry a gradient."""
        if self.processes == 1:
            return tensor
        parts = [torch.empty_like(tensor) for _ in range(self.processes)]
        dist.all_gather(parts, tensor.detach().contiguous())
        parts[self.rank] = tensor
        return torch.cat(parts)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Of parameters in front of the gathering, whose gradients each process has a part of."""
        if self.processes == 1:
            return
        gradients = [item.grad for item in parameters if item.grad is not None]
        if not gradients:
            return
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        begin = 0
        for gradient in gradients:
            gradient.copy_(flat[begin : begin + gradient.numel()].view_as(gradient))
            begin += gradient.numel()

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether any process says so."""
        if self.processes == 1:
            return flag
        tensor = torch.tensor(int(flag), device=device)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return bool(tensor)

    def from_first(self, value: Any) -> Any:
        """What the first process has, in all."""
        if self.processes == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    @contextmanager
    def first_goes_ahead(self) -> Iterator[None]:
        """The first process of each machine runs the block alone; the others run it once that is done."""
        if self.processes > 1 and self.local_rank:
            dist.barrier()
        yield
        if self.processes > 1 and not self.local_rank:
            dist.barrier()


@contextmanager
def joined(device: torch.device) -> Iterator[Group]:
    """The group that torchrun's environment describes, for as long as the block runs."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Group()
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield Group(dist.get_rank(), dist.get_world_size(), int(os.environ["LOCAL_RANK"]))
    finally:
        dist.destroy_process_group()


def device_of(choice: str) -> torch.device:
    """The device for ``"auto"``, ``"cpu"`` or ``"cuda"``: under torchrun, each process's own GPU.

    TrainingError for any other choice, and for ``"cuda"`` where torch sees no GPU.
    """
    has_gpu = torch.cuda.is_available()
    if choice not in ("auto", "cpu", "cuda") or (choice == "cuda" and not has_gpu):
        seen = "a GPU" if has_gpu else "no GPU"
        raise TrainingError(f"The device {choice!r}: expected auto, cpu or cuda; torch sees {seen}.")
    if choice == "cpu" or not has_gpu:
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device
