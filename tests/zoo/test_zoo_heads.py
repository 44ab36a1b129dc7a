"""Where the classifier is, in every family of timm, and writing into it."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from torch import nn

from tl_kit.zoo.heads import classifier_names, in_modules, linear_classifier, set_linear

EXPECTED = {
    "test_resnet": ("fc",),
    "test_vit": ("head",),
    "test_convnext": ("head.fc",),
    "test_efficientnet": ("classifier",),
    "tf_efficientnet_lite0": ("classifier",),
    "densenet121": ("classifier",),
    "vgg11": ("head.fc",),
    "swin_tiny_patch4_window7_224": ("head.fc",),
    "caformer_s18": ("head.fc.fc2",),
    "deit_tiny_distilled_patch16_224": ("head", "head_dist"),
    "levit_128s": ("head.linear", "head_dist.linear"),
    "volo_d1_224": ("head", "aux_head"),
    "resnetv2_50x1_bit": ("head.fc",),
    "levit_384_s8": ("head.linear", "head_dist"),  # timm's card leaves the second one out
}


@pytest.mark.parametrize("name", EXPECTED)
def test_every_tensor_that_depends_on_the_classes_is_in_a_classifier(name: str) -> None:
    with torch.device("meta"):
        small, large = (timm.create_model(name, num_classes=n) for n in (3, 5))
    names = classifier_names(small)
    assert names == EXPECTED[name]
    before, after = small.state_dict(), large.state_dict()
    depending = {key for key in before if before[key].shape != after[key].shape}
    assert depending
    assert all(in_modules(key, names) for key in depending)


def test_prefixes_end_at_a_dot() -> None:
    assert in_modules("head.weight", ["head"])
    assert not in_modules("head_dist.weight", ["head"])
    assert not in_modules("head", ["head"])


def test_linear_classifier() -> None:
    with torch.device("meta"):
        models = {name: timm.create_model(name, num_classes=3) for name in EXPECTED}
    found = linear_classifier(models["test_resnet"])
    assert found is not None
    assert found == ("fc", models["test_resnet"].fc)
    assert linear_classifier(models["deit_tiny_distilled_patch16_224"]) is None
    assert linear_classifier(models["resnetv2_50x1_bit"]) is None  # a 1x1 convolution
    headless = timm.create_model("test_resnet", num_classes=0)
    assert classifier_names(headless) == ()
    assert linear_classifier(headless) is None
    assert classifier_names(nn.Sequential(nn.Linear(2, 3))) == ()


@pytest.mark.parametrize("kind", ["numpy64", "torch"])
def test_set_linear_copies_in_place(kind: str) -> None:
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(3, 4)), rng.normal(size=3)
    layer = nn.Linear(4, 3)
    pointers = layer.weight.data_ptr(), layer.bias.data_ptr()
    if kind == "torch":
        set_linear(layer, torch.from_numpy(weight), torch.from_numpy(bias))
    else:
        set_linear(layer, weight, bias)
    assert (layer.weight.data_ptr(), layer.bias.data_ptr()) == pointers
    assert layer.weight.dtype == torch.float32
    assert layer.weight.requires_grad
    features = rng.normal(size=(5, 4))
    logits = layer(torch.from_numpy(features).float()).detach().numpy()
    np.testing.assert_allclose(logits, features @ weight.T + bias, atol=1e-5)
    weight[:] = 0  # a copy, not a view
    assert layer.weight.abs().min() > 0


def test_set_linear_refuses_other_shapes_and_changes_nothing() -> None:
    layer, plain = nn.Linear(4, 3), nn.Linear(4, 3, bias=False)
    before = layer.weight.clone(), layer.bias.clone()
    for weight, bias in (
        (np.zeros((4, 3)), np.zeros(3)),
        (np.zeros((3, 4)), np.zeros(4)),
        (np.zeros((1, 4)), np.zeros(3)),
        (np.zeros((3, 4)), None),
    ):
        with pytest.raises(ValueError, match=r"shape|bias"):
            set_linear(layer, weight, bias)
    with pytest.raises(ValueError, match="no bias"):
        set_linear(plain, np.zeros((3, 4)), np.zeros(3))
    assert torch.equal(layer.weight, before[0])
    assert torch.equal(layer.bias, before[1])
    set_linear(plain, np.ones((3, 4)), None)
    assert bool((plain.weight == 1).all())
