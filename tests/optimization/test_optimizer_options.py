"""Options of optimizers: read from text or Python, typed, checked, never ignored."""

from __future__ import annotations

import pytest
import torch

from tl_kit.errors import ConfigError
from tl_kit.optimization.optimizers import create_optimizer, optimizer_names, parse_options
from tl_kit.optimization.registry import optimizer_spec


@pytest.mark.parametrize("name", optimizer_names())
def test_listed_defaults_are_values_that_the_option_accepts(name: str) -> None:
    spec = optimizer_spec(name)
    parameter = torch.zeros(2, 2, requires_grad=True)
    given = {key: option.default for key, option in spec.options.items()}
    optimizer = create_optimizer(name, [parameter], lr=0.1, options=given)
    for key, value in given.items():
        if key in optimizer.defaults and value is not None:
            assert optimizer.defaults[key] == value, key
    for key, value in spec.fixed.items():
        if key in optimizer.defaults:
            assert optimizer.defaults[key] == value, key


@pytest.mark.parametrize(
    ("name", "pairs", "values"),
    [
        ("adam", ["betas=0.8,0.95", "eps=1e-6", "amsgrad=true"], {"betas": (0.8, 0.95), "eps": 1e-6, "amsgrad": True}),
        ("adam", ["betas=(0.8, 0.95)"], {"betas": (0.8, 0.95)}),
        ("momentum", ["momentum=0.5"], {"momentum": 0.5}),
        ("adan", ["betas=0.9,0.8,0.7"], {"betas": (0.9, 0.8, 0.7)}),
        ("muon", ["ns_steps=3", "nesterov=True"], {"ns_steps": 3, "nesterov": True}),
        ("muon", ["conv_mode=batched"], {"conv_mode": "batched"}),
        ("kron", ["preconditioner_update_probability=0.5"], {"preconditioner_update_probability": 0.5}),
        ("kron", ["memory_save_mode=one_diag"], {"memory_save_mode": "one_diag"}),
        ("adopt", ["clip_exp=none"], {"clip_exp": None}),
        ("sgdp", ["momentum=0"], {"momentum": 0.0}),
        ("adahessian", ["n_samples=2"], {"n_samples": 2}),
        ("adafactor", ["betas=0.9,0.99"], {"betas": (0.9, 0.99)}),
        ("sgd", [], {}),
    ],
)
def test_options_are_read_in_their_types_and_accepted(name: str, pairs: list[str], values: dict[str, object]) -> None:
    parsed = parse_options(name, pairs)
    assert parsed == values
    assert [type(value) for value in parsed.values()] == [type(value) for value in values.values()]
    create_optimizer(name, [torch.zeros(2, 2, requires_grad=True)], lr=0.1, options=parsed)


@pytest.mark.parametrize(
    ("name", "pair", "message"),
    [
        ("adam", "beta=0.9,0.99", "has no option 'beta', did you mean 'betas'"),
        ("adam", "momentum=0.9", "has no option 'momentum'"),
        ("sgd", "momentum=0.9", "has no options"),
        ("cadamw", "caution=false", "has no option 'caution'"),
        ("adam", "lr=0.1", "has no option 'lr'"),
        ("adam", "eps", "not of the form key=value"),
        ("adam", "eps=", "not of the form key=value"),
        ("adam", "eps=small", "cannot be 'small'; it is a number"),
        ("adam", "eps=nan", "cannot be nan"),
        ("adam", "eps=-1", "at least 0"),
        ("adam", "betas=0.9", "2 numbers"),
        ("adam", "betas=0.9,1.0", "below 1"),
        ("adam", "amsgrad=1", "true or false"),
        ("momentum", "momentum=1.5", "at least 0 and below 1"),
        ("muon", "ns_steps=2.5", "a whole number"),
        ("muon", "conv_mode=fold", "one of flatten, batched"),
    ],
)
def test_wrong_options_are_errors_with_one_clear_line(name: str, pair: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_options(name, [pair])
    assert f"optimizer {name!r}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_option_given_twice_is_an_error() -> None:
    with pytest.raises(ConfigError, match="twice"):
        parse_options("adam", ["eps=1e-6", "eps=1e-7"])


@pytest.mark.parametrize("options", [{"nesterov": True}, {"betas": (0.9, 1.5)}, {"betas": 0.9}, {"eps": True}])
def test_values_from_python_are_checked_like_text(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="optimizer 'adam'"):
        create_optimizer("adam", [torch.zeros(1, requires_grad=True)], lr=0.1, options=options)


def test_a_combination_that_the_constructor_refuses_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="optimizer 'nesterov'"):
        create_optimizer("nesterov", [torch.zeros(1, requires_grad=True)], lr=0.1, options={"momentum": 0.0})
