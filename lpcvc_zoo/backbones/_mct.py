"""MobileCLIP-S0's text tower: four transformer layers between two convolutional ones; not causal.

From "MobileCLIP: Fast Image-Text Models through Multi-Modal Reinforced Training" (Vasu et al., CVPR 2024),
whose Text-RepMixer block puts FastViT's RepMixer over the sequence of tokens. It exists in no package.
Parameters carry Apple's structure under open_clip's names where open_clip has the same part.
"""

from __future__ import annotations

from typing import cast

import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_weights

from lpcvc_zoo.backbones._towers import pool_at_eot
from lpcvc_zoo.fuse import affine

KERNEL = 11


class HybridTextTower(nn.Module):
    """Ids int32 ``[N, L]`` -> ``[N, D]``; every token sees every other, pads too."""

    def __init__(
        self, *, width: int, heads: int, layers: int, embed_dim: int, context_length: int, vocab_size: int,
        eot_id: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.eot_id = eot_id
        self.token_embedding = nn.Embedding(vocab_size, width)
        self.positional_embedding = nn.Parameter(torch.empty(context_length, width))
        self.transformer = nn.ModuleList(
            [
                TextRepMixerBlock(width),
                *(ResidualAttentionBlock(width, heads) for _ in range(layers)),
                TextRepMixerBlock(width),
            ]
        )
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.empty(width, embed_dim))
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        nn.init.normal_(self.text_projection, std=width**-0.5)

    def forward(self, ids: Tensor) -> Tensor:
        hidden = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]
        for layer in self.transformer:
            hidden = layer(hidden)
        pooled = self.ln_final(pool_at_eot(hidden, ids, self.eot_id))
        return cast(Tensor, pooled @ self.text_projection)


class TextRepMixerBlock(nn.Module):
    """RepMixer over the sequence, then a feed-forward net that begins with a convolution; ``[N, L, C]``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer_scale = nn.Parameter(torch.full((width, 1, 1), 1e-5))
        self.token_mixer = TextRepMixer(width)
        self.convffn = ConvFfn(width)

    def forward(self, hidden: Tensor) -> Tensor:
        pixels = hidden.mT.unsqueeze(2)  # [N, C, 1, L]: a picture one pixel high
        pixels = self.token_mixer(pixels)
        pixels = pixels + self.layer_scale * self.convffn(pixels)
        return cast(Tensor, pixels.squeeze(2).mT)


class TextRepMixer(nn.Module):
    """``x + scale * (mixer(x) - norm(x))``, all of it one depthwise convolution once reparameterised."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = SkipNorm(width)
        self.mixer = MixerBranches(width)
        self.layer_scale = nn.Parameter(torch.full((width, 1, 1), 1e-5))
        self.reparam_conv: nn.Conv2d | None = None

    def forward(self, pixels: Tensor) -> Tensor:
        if self.reparam_conv is not None:
            return cast(Tensor, self.reparam_conv(pixels))
        return cast(Tensor, pixels + self.layer_scale * (self.mixer(pixels) - self.norm(pixels)))

    @torch.no_grad()
    def reparameterize(self) -> None:
        """Fold all branches into one convolution; valid in eval mode only, when BatchNorm is affine."""
        if self.reparam_conv is not None:
            return
        width = self.layer_scale.shape[0]
        scale = self.layer_scale.flatten()
        conv, bias = cast(DepthwiseConvNorm, self.mixer.rbr_conv[0]).folded()
        taps = conv * scale.view(-1, 1, 1, 1)
        gain, shift = self.mixer.skip_affine()
        norm_gain, norm_shift = self.norm.affine()
        taps[:, 0, 0, KERNEL // 2] += 1 + scale * (gain - norm_gain)
        folded = _depthwise(width)
        folded.weight.copy_(taps)
        folded.bias = nn.Parameter(scale * (bias + shift - norm_shift))
        self.reparam_conv = folded
        del self.norm, self.mixer, self.layer_scale


class SkipNorm(nn.Module):
    """Apple's MobileOne block reduced to its identity branch: a BatchNorm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.rbr_skip = nn.BatchNorm2d(width)

    def forward(self, pixels: Tensor) -> Tensor:
        return cast(Tensor, self.rbr_skip(pixels))

    def affine(self) -> tuple[Tensor, Tensor]:
        return affine(self.rbr_skip)


class MixerBranches(nn.Module):
    """Apple's MobileOne block with one convolution and the identity branch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.rbr_skip = nn.BatchNorm2d(width)
        self.rbr_conv = nn.ModuleList([DepthwiseConvNorm(width)])

    def forward(self, pixels: Tensor) -> Tensor:
        return cast(Tensor, self.rbr_skip(pixels) + self.rbr_conv[0](pixels))

    def skip_affine(self) -> tuple[Tensor, Tensor]:
        return affine(self.rbr_skip)


class DepthwiseConvNorm(nn.Module):
    """A depthwise convolution over ``KERNEL`` tokens without bias, then BatchNorm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = _depthwise(width)
        self.bn = nn.BatchNorm2d(width)

    def forward(self, pixels: Tensor) -> Tensor:
        return cast(Tensor, self.bn(self.conv(pixels)))

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the one convolution that does the same in eval mode."""
        bn = self.bn
        assert bn.running_mean is not None
        assert bn.running_var is not None
        weight, bias = fuse_conv_bn_weights(
            self.conv.weight, None, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias
        )
        return weight.detach().clone(), bias.detach()


class ConvFfn(nn.Module):
    """A depthwise convolution with BatchNorm, then two pointwise convolutions around a GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = DepthwiseConvNorm(width)
        self.fc1 = nn.Conv2d(width, 4 * width, 1)
        self.act = nn.GELU()
        self.fc2 = nn.Conv2d(4 * width, width, 1)
        for conv in (self.fc1, self.fc2):
            nn.init.trunc_normal_(conv.weight, std=0.02)
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)

    def forward(self, pixels: Tensor) -> Tensor:
        return cast(Tensor, self.fc2(self.act(self.fc1(self.conv(pixels)))))


def _depthwise(width: int) -> nn.Conv2d:
    return nn.Conv2d(width, width, (1, KERNEL), padding=(0, KERNEL // 2), groups=width, bias=False)
