"""A Malenia network small enough for many tests, with weights that make every part of it matter."""

from __future__ import annotations

from dataclasses import replace

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

from nnunetv2_malenia.network.config import MaleniaConfig
from nnunetv2_malenia.network.malenia_net import MaleniaNet

PATCH_SIZE = (8, 16, 24)
STRIDES = [[1, 1, 1], [1, 2, 2], [2, 2, 2], [1, 2, 2]]
FEATURES = [4, 8, 8, 8]
PHRASE_ASPECT = [0, 0, 0, 2, 2, 5, 5]
TEXT_DIM = 10
CONFIG = MaleniaConfig(num_tokens=4, token_dim=12, num_heads=2, embedding_dim=6)


def tiny(config: MaleniaConfig) -> MaleniaConfig:
    """The same switches, with small sizes."""
    sizes = {name: getattr(CONFIG, name) for name in ("num_tokens", "token_dim", "num_heads", "embedding_dim")}
    return replace(config, **sizes)


def tiny_backbone(
    architecture: type[nn.Module] = PlainConvUNet,
    *,
    strides: list[list[int]] = STRIDES,
    num_channels: int = 1,
    num_classes: int = 4,
    deep_supervision: bool = False,
    seed: int = 0,
) -> nn.Module:
    torch.manual_seed(seed)
    num_stages = len(strides)
    blocks = {"n_blocks_per_stage" if architecture is ResidualEncoderUNet else "n_conv_per_stage": 1}
    return architecture(
        num_channels,
        num_stages,
        FEATURES[:num_stages],
        nn.Conv3d,
        [[1, 3, 3]] + [[3, 3, 3]] * (num_stages - 1),
        strides,
        num_classes=num_classes,
        n_conv_per_stage_decoder=1,
        conv_bias=True,
        norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=deep_supervision,
        **blocks,
    )


def tiny_net(
    config: MaleniaConfig = CONFIG,
    *,
    backbone: nn.Module | None = None,
    own_queries: list[list[int]] = [[0, 3], [1, 4, 5]],  # noqa: B006 - never changed
    own_rivals: list[list[int]] = [[1, 2, 4], [0, 2, 3, 6]],  # noqa: B006
    trained_phrases: list[int] = [0, 1, 2, 3, 4, 5, 6],  # noqa: B006
    lesion_channels: dict[int, list[int]] | None = None,
    has_regions: bool = False,
    seed: int = 0,
) -> MaleniaNet:
    """In evaluation mode; every parameter is moved off its initial value, so that no term is left out by being zero."""
    backbone = backbone or tiny_backbone()
    net = MaleniaNet(
        backbone,
        config,
        num_input_channels=next(backbone.parameters(), torch.zeros(1, 1)).shape[1],
        patch_size=list(PATCH_SIZE),
        phrase_aspect=PHRASE_ASPECT,
        trained_phrases=trained_phrases,
        text_dim=TEXT_DIM,
        own_queries=own_queries,
        own_rivals=own_rivals,
        lesion_channels={2: [0], 3: [1]} if lesion_channels is None else lesion_channels,
        has_regions=has_regions,
    )
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=rng))
    net.set_phrase_vectors(
        torch.randn(len(PHRASE_ASPECT), TEXT_DIM, generator=rng), 0.3 * torch.randn(8, TEXT_DIM, generator=rng)
    )
    return net.eval()


def image(batch_size: int = 1, num_channels: int = 1, seed: int = 0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(batch_size, num_channels, *PATCH_SIZE, generator=rng)
