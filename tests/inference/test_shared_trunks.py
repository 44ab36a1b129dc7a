"""Models that are equal from the input up, as one network: outputs as alone, and common layers run once."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from tl_kit.inference.shared_trunks import SharedNetwork, entered, groups, layers, share, structure

# model -> its classifier, a module near its end, and one in the middle (as their first tensors are named)
MODELS = {
    "test_resnet": ("fc", "layer4.0", "layer2.0"),
    "test_efficientnet": ("classifier", "blocks.4.0", "blocks.2.0"),
    "test_vit": ("head", "blocks.5", "blocks.2"),
    "test_convnext": ("head.fc", "stages.3.blocks.0", "stages.1.blocks.0"),
}


def build(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    options = {"img_size": 32} if "vit" in name else {}
    model = timm.create_model(name, num_classes=7, **options).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            module.running_mean.normal_(0, 0.1)
    return model


def changed(model: nn.Module, *prefixes: str, seed: int) -> nn.Module:
    """A copy whose floating-point tensors below the named modules are moved."""
    generator = torch.Generator().manual_seed(seed)
    result = copy.deepcopy(model)
    moved = 0
    with torch.no_grad():
        for name, tensor in result.state_dict().items():
            if tensor.is_floating_point() and any(name.startswith(f"{prefix}.") for prefix in prefixes):
                tensor.add_(0.05 * torch.rand(tensor.shape, generator=generator))  # variances stay positive
                moved += 1
    assert moved
    return result


def images(count: int = 5, seed: int = 9) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def shared(models: Sequence[nn.Module], batch: Tensor | None = None) -> SharedNetwork | None:
    names = entered(models[0], images(1))
    return share(models, [layers(model, names) for model in models], images(2, seed=3) if batch is None else batch)


def alone(models: Sequence[nn.Module], batch: Tensor) -> Tensor:
    with torch.inference_mode():
        return torch.stack([model(batch) for model in models], dim=1)


@contextmanager
def calls(models: Sequence[nn.Module], rows: int) -> Iterator[Counter[str]]:
    """How often each module, of any of the models, gives out a whole batch of ``rows``; blank images do not count."""
    counts: Counter[str] = Counter()

    def note(output: object, name: str) -> None:
        counts[name] += isinstance(output, Tensor) and len(output) == rows

    with ExitStack() as stack:
        for model in models:
            for name, module in model.named_modules():
                hook = module.register_forward_hook(lambda _m, _a, output, name=name: note(output, name))
                stack.callback(hook.remove)
        yield counts


def check(models: Sequence[nn.Module]) -> SharedNetwork:
    """The shared network gives what the models give alone, on images that the proof has not seen."""
    network = shared(models)
    assert network is not None
    batch = images()
    expected = alone(models, batch)
    with torch.inference_mode():
        found = network(batch)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * max(1.0, float(expected.abs().max())))
    assert torch.equal(found.argmax(-1), expected.argmax(-1))
    return network


@pytest.mark.parametrize("name", MODELS)
def test_heads_on_one_trunk_are_one_product_on_features_computed_once(name: str) -> None:
    head = MODELS[name][0]
    base = build(name)
    models = [changed(base, head, seed=seed) for seed in range(5)]
    network = check(models)
    assert network.cuts() == [(head, (0, 1, 2, 3, 4))]
    batch = images()
    with calls(models, len(batch)) as counts, torch.inference_mode():
        network(batch)
    first = next(n for n, module in base.named_modules() if isinstance(module, nn.Conv2d))
    assert counts[first] == 1
    assert counts[head] == 0, "the classifiers were called one by one"


@pytest.mark.parametrize("name", MODELS)
def test_models_that_differ_from_some_layer_on_share_what_lies_before(name: str) -> None:
    head, late, _ = MODELS[name]
    base = build(name)
    models = [changed(base, head, late, seed=seed) for seed in range(3)]
    network = check(models)
    (cut, members), *_ = network.cuts()
    assert members == (0, 1, 2)
    assert f"{late}.".startswith(f"{cut}.") or cut.startswith(f"{late}."), "cut where they differ, or around it"
    batch = images()
    with calls(models, len(batch)) as counts, torch.inference_mode():
        network(batch)
    first = next(n for n, module in base.named_modules() if isinstance(module, nn.Conv2d))
    assert (counts[first], counts[late]) == (1, 3)


@pytest.mark.parametrize("name", MODELS)
def test_those_that_agree_further_go_on_together(name: str) -> None:
    head, late, middle = MODELS[name]
    base = build(name)
    other = changed(base, middle, late, head, seed=1)
    models = [changed(base, head, seed=2), other, changed(base, head, seed=3), changed(other, late, seed=4)]
    network = check(models)
    assert [members for _, members in network.cuts()] == [(0, 1, 2, 3), (0, 2), (1, 3)]
    batch = images()
    with calls(models, len(batch)) as counts, torch.inference_mode():
        network(batch)
    first = next(n for n, module in base.named_modules() if isinstance(module, nn.Conv2d))
    assert (counts[first], counts[middle], counts[late]) == (1, 2, 3)


def test_the_order_of_models_changes_nothing() -> None:
    base = build("test_resnet")
    models = [base, changed(base, "fc", seed=1), changed(base, "layer4", "fc", seed=2), changed(base, "fc", seed=3)]
    order = [2, 0, 3, 1]
    with torch.inference_mode():
        found = check(models)(images())[:, order]
        shuffled = check([models[i] for i in order])(images())
    torch.testing.assert_close(shuffled, found, rtol=0, atol=1e-6)


def test_other_statistics_in_the_first_normalisation_end_what_is_shared() -> None:
    base = build("test_resnet")
    other = copy.deepcopy(base)
    name, norm = next((n, m) for n, m in other.named_modules() if isinstance(m, nn.BatchNorm2d))
    assert isinstance(norm.running_mean, Tensor)
    norm.running_mean.add_(0.5)
    names = entered(base, images(1))
    network = check([base, other])
    assert all(names.index(cut) <= names.index(name) for cut, _ in network.cuts())
    batch = images()
    with calls([base, other], len(batch)) as counts, torch.inference_mode():
        network(batch)
    assert (counts[name], counts["layer1.0"]) == (2, 2)
    third = changed(base, "fc", seed=1)  # its companion still shares everything but the head
    assert (("fc", (0, 2))) in check([base, other, third]).cuts()


def test_equal_models_run_once_whatever_their_count_of_batches() -> None:
    base = build("test_efficientnet")
    twin = copy.deepcopy(base)
    for name, buffer in twin.named_buffers():
        if name.endswith("num_batches_tracked"):
            buffer.add_(100)
    network = check([base, twin])
    assert network.cuts() == []
    batch = images()
    with calls([base, twin], len(batch)) as counts, torch.inference_mode():
        network(batch)
    assert counts[""] == 1


def test_equal_heads_among_others() -> None:
    base = build("test_vit")
    other = changed(base, "head", seed=1)
    check([base, other, copy.deepcopy(base), changed(base, "head", seed=2), copy.deepcopy(other)])


def test_models_that_differ_in_their_first_layer_share_nothing() -> None:
    assert shared([build("test_resnet", 0), build("test_resnet", 1)]) is None


def test_a_parameter_of_the_whole_model_counts_from_the_input_on() -> None:
    """A ViT's position embedding belongs to no module below the root: which layer adds it is not known."""
    base = build("test_vit")
    other = copy.deepcopy(base)
    with torch.no_grad():
        other.get_parameter("pos_embed").add_(0.1)
    assert shared([base, other]) is None


def test_networks_leave_no_hooks_behind() -> None:
    base = build("test_resnet")
    models = [base, changed(base, "layer4", seed=1), changed(base, "fc", seed=2)]
    batch = images()
    before = alone(models, batch)
    check(models)
    assert torch.equal(alone(models, batch), before)
    assert not any(module._forward_pre_hooks or module._forward_hooks for m in models for module in m.modules())


class Bypass(nn.Module):
    """What lies behind ``last`` also looks at the image: a cut there would show it the wrong one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3), nn.Linear(4, 7)

    def forward(self, batch: Tensor) -> Tensor:
        features = functional.relu(self.first(batch)).mean(dim=(2, 3))
        result: Tensor = self.last(features) + batch.mean(dim=(1, 2, 3))[:, None]
        return result


def test_where_no_cut_is_exact_nothing_is_shared() -> None:
    torch.manual_seed(0)
    base = Bypass().eval()
    assert shared([base, changed(base, "last", seed=1)]) is None
    twin = shared([base, changed(base, "last", seed=1), copy.deepcopy(base)])
    assert twin is not None, "equal ones still run together"
    assert twin.cuts() == []
    assert torch.equal(alone([base], images())[:, 0], twin(images())[:, 2].detach())


class Switched(nn.Module):
    """Behaves by an attribute that no tensor shows."""

    def __init__(self, sign: float) -> None:
        super().__init__()
        self.first, self.last, self.sign = nn.Conv2d(3, 4, 3), nn.Linear(4, 7), sign

    def forward(self, batch: Tensor) -> Tensor:
        result: Tensor = self.last((self.sign * self.first(batch)).mean(dim=(2, 3)))
        return result


def test_equal_tensors_do_not_make_equal_models() -> None:
    torch.manual_seed(0)
    base, other = Switched(1.0).eval(), Switched(-1.0).eval()
    other.load_state_dict(base.state_dict())
    assert shared([base, other]) is None
    assert shared([base, changed(other, "last", seed=1)]) is None


def test_groups_are_of_one_kind_and_one_beginning() -> None:
    base, other = build("test_resnet", 0), build("test_resnet", 1)
    models = [base, other, changed(base, "layer2", seed=1), changed(other, "fc", seed=2)]
    names = entered(base, images(1))
    found = [layers(model, names) for model in models]
    assert groups(["a"] * 4, found) == [[0, 2], [1, 3]]
    assert groups(["a", "a", "b", "a"], found) == [[0], [1, 3], [2]]
    head = sum(p.nbytes for p in models[3].get_submodule("fc").parameters())
    assert found[3].beyond(found[1]) == head
    assert found[3].beyond(found[3]) == 0
    total = sum(t.nbytes for n, t in base.state_dict().items() if not n.endswith("num_batches_tracked"))
    assert sum(found[0].sizes) == total


def test_structure_tells_architectures_apart_and_not_rates_of_dropout() -> None:
    assert structure(build("test_resnet")) != structure(build("test_efficientnet"))
    wide = timm.create_model("test_vit", num_classes=7, img_size=48)
    assert structure(wide) != structure(build("test_vit"))
    dropping = timm.create_model("test_vit", num_classes=7, img_size=32, drop_path_rate=0.2, drop_rate=0.1)
    assert structure(dropping) == structure(build("test_vit"))


def test_bf16_keeps_the_classifiers_in_full_precision() -> None:
    """As alone in the same precision: the trunk's bits are the same, the heads' product is computed in fp32."""
    from tl_kit.inference.run_models import model_context
    from tl_kit.machine.runtime import Runtime

    runtime = Runtime(device=torch.device("cpu"), channels_last=False, batch_size=8, precision="bf16")
    base = build("test_resnet")
    models = [changed(base, "fc", seed=seed) for seed in range(3)]
    with model_context(models, runtime):
        network = shared(models)
        assert network is not None
        found, expected = network(images()), torch.stack([model(images()) for model in models], dim=1)
    assert found.dtype == expected.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
