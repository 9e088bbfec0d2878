"""Networks that people use, small, with random weights: nothing is downloaded.

Each factory gives a module and its example inputs, always with the same numbers. This file is
also a target of `leakaudit check`: `tests/support/real_networks.py:vit`.
"""

from __future__ import annotations

from typing import Any

import torch
import transformers

_TOWER = {
    "image_size": 64,
    "patch_size": 16,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
_TEXT = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}

Made = tuple[torch.nn.Module, tuple[torch.Tensor, ...]]


def _made(name: str, config: str, inputs: torch.Tensor, **options: Any) -> Made:
    torch.manual_seed(0)
    model = getattr(transformers, name)(getattr(transformers, config)(**options)).eval()
    with torch.no_grad():
        for tensor in model.parameters():
            # Scales of 1 and biases of 0 would hide a parameter in a wrong place.
            if tensor.dim() < 2:
                tensor.add_(0.1 * torch.randn(tensor.shape))
    return model, (inputs,)


def _image() -> torch.Tensor:
    return torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def _tokens() -> torch.Tensor:
    return torch.randint(2, 50, (1, 9), generator=torch.Generator().manual_seed(1))


def resnet() -> Made:
    return _made(
        "ResNetForImageClassification",
        "ResNetConfig",
        _image(),
        embedding_size=8,
        hidden_sizes=[16, 16, 32, 32],
        depths=[1, 2, 1, 1],
    )


def convnext() -> Made:
    return _made(
        "ConvNextForImageClassification",
        "ConvNextConfig",
        _image(),
        hidden_sizes=[8, 16, 16, 24],
        depths=[1, 1, 2, 1],
    )


def mobilenet_v2() -> Made:
    return _made(
        "MobileNetV2ForImageClassification",
        "MobileNetV2Config",
        _image(),
        image_size=64,
        depth_multiplier=0.35,
    )


def vit() -> Made:
    return _made("ViTForImageClassification", "ViTConfig", _image(), **_TOWER)


def deit() -> Made:
    return _made("DeiTForImageClassification", "DeiTConfig", _image(), **_TOWER)


def swin() -> Made:
    return _made(
        "SwinForImageClassification",
        "SwinConfig",
        _image(),
        image_size=64,
        patch_size=2,
        embed_dim=8,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=4,
    )


def clip_vision() -> Made:
    return _made("CLIPVisionModel", "CLIPVisionConfig", _image(), **_TOWER)


def bert() -> Made:
    return _made("BertForSequenceClassification", "BertConfig", _tokens(), **_TEXT)


def gpt2() -> Made:
    return _made(
        "GPT2LMHeadModel",
        "GPT2Config",
        _tokens(),
        vocab_size=50,
        n_embd=32,
        n_layer=2,
        n_head=4,
        use_cache=False,
    )


def llama() -> Made:
    return _made(
        "LlamaForCausalLM",
        "LlamaConfig",
        _tokens(),
        **_TEXT,
        num_key_value_heads=2,
        use_cache=False,
    )


def roberta() -> Made:
    return _made("RobertaForSequenceClassification", "RobertaConfig", _tokens(), **_TEXT)
