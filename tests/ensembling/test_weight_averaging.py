"""Averages of weights, and which of them is taken."""

from __future__ import annotations

import weakref
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st

from tl_kit.combining.average_choice import Mix, alone, greedy_soup, uniform_soup, wise_ft
from tl_kit.combining.derived import Loss
from tl_kit.ensembling.weight_averaging import aligned_state, check_ingredients, differ_below_the_head
from tl_kit.errors import MemberError
from tl_kit.images.transforms import Preprocessing
from tl_kit.storage.checkpoint import Checkpoint
from tl_kit.training.averaging import average_weights

ORIGIN = {"weights": {"source": "file", "sha256": "aa"}}


class TestAverage:
    def test_a_soup_of_0_3_6_is_3(self):
        states = [{"w": torch.tensor(value)} for value in (0.0, 3.0, 6.0)]
        for weights in ([1, 1, 1], [1 / 3] * 3, [5.0] * 3):
            assert average_weights(states, weights) == {"w": torch.tensor(3.0)}
        assert average_weights(states[:2], [1, 2]) == {"w": torch.tensor(2.0)}

    @given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=6), st.integers(1, 7))
    def test_copies_of_one_state_are_that_state(self, values, copies):
        state = {"w": torch.tensor(values, dtype=torch.float32)}
        found = average_weights([state] * copies, [1.0] * copies)
        assert torch.equal(found["w"], state["w"])
        assert found["w"].data_ptr() != state["w"].data_ptr()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
    def test_the_sum_is_in_float64_and_the_type_stays(self, dtype):
        rng = np.random.default_rng(0)
        states = [{"w": torch.tensor(rng.normal(size=50)).to(dtype)} for _ in range(9)]
        found = average_weights(states, [1.0] * 9)["w"]
        exact = torch.stack([state["w"].double() for state in states]).mean(dim=0)
        assert found.dtype is dtype
        assert torch.equal(found, exact.to(dtype))

    def test_integers_keep_their_type_and_take_the_largest(self):
        states = [{"n": torch.tensor(value), "flag": torch.tensor([value > 3, False])} for value in (2, 7, 5)]
        found = average_weights(states, [1.0] * 3)
        assert found["n"].dtype is torch.int64
        assert found["n"] == 7
        assert found["flag"].tolist() == [True, False]
        found["n"] += 1
        assert states[1]["n"] == 7

    def test_states_are_not_changed_and_only_few_are_in_memory_at_once(self):
        alive: list[weakref.ref[torch.Tensor]] = []
        most = 0

        def states():
            nonlocal most
            for value in range(8):
                tensor = torch.full((3,), float(value))
                alive.append(weakref.ref(tensor))
                most = max(most, sum(ref() is not None for ref in alive))
                yield {"w": tensor}
                del tensor

        assert average_weights(states(), [1.0] * 8)["w"].tolist() == [3.5] * 3
        assert most <= 2
        kept = {"w": torch.ones(2)}
        average_weights([kept, {"w": torch.zeros(2)}], [1.0, 1.0])
        assert kept["w"].tolist() == [1, 1]


def member(name: str = "test_resnet", *, seed: int = 0, meta=ORIGIN, folder: str = "a", **options) -> Checkpoint:
    torch.manual_seed(seed)
    model = timm.create_model(name, num_classes=3, **options).eval()
    return Checkpoint(Path(folder), model, ("x", "y", "z"), Preprocessing.from_model(model), meta)


class TestIngredients:
    def test_runs_from_one_pretrained_file_may_be_averaged(self):
        check_ingredients([member(seed=1), member(seed=2, folder="b", drop_rate=0.5)])

    @pytest.mark.parametrize(
        ("other", "message"),
        [
            (member("test_vit", folder="b"), "is missing here and"),
            (member(folder="b", meta={"weights": {"source": "hub", "sha256": "bb"}}), "other pretrained weights"),
            (
                member(folder="b", meta={"weights": {"source": "random, from seed 0", "sha256": None}}),
                "random, from seed",
            ),
            (member(folder="b", meta={}), "does not say which weights"),
            (member(folder="b", meta={"weights": "odd"}), "does not say which weights"),
            (member(folder="b", act_layer=torch.nn.SiLU), "another architecture"),
        ],
    )
    def test_others_are_refused_in_one_line_that_names_them(self, other, message):
        with pytest.raises(MemberError, match=message) as caught:
            check_ingredients([member(), other])
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith("b: ")

    def test_another_preprocessing_is_refused(self):
        first, other = member(), member(folder="b")
        small = Preprocessing(**{**vars(first.preprocessing), "input_size": (3, 32, 32)})
        with pytest.raises(MemberError, match="another preprocessing"):
            check_ingredients([first, Checkpoint(other.path, other.model, other.classes, small, other.meta)])

    def test_a_shape_is_named_with_both(self):
        torch.manual_seed(0)
        model = timm.create_model("test_resnet", num_classes=3)
        model.fc = torch.nn.Linear(model.num_features // 2, 3)
        other = Checkpoint(Path("b"), model, ("x", "y", "z"), member().preprocessing, ORIGIN)
        with pytest.raises(MemberError, match=r"fc\.weight is \(3, \d+\) here and \(3, \d+\) there"):
            check_ingredients([member(), other])

    def test_only_heads_differ(self):
        first, other = member(seed=1), member(seed=1, folder="b")
        assert not differ_below_the_head([first, other])
        with torch.no_grad():
            other.model.fc.weight.add_(1)
            other.model.bn1.num_batches_tracked.add_(5)
        assert not differ_below_the_head([first, other])
        with torch.no_grad():
            other.model.bn1.running_mean.add_(1)
        assert differ_below_the_head([first, other])


class TestAligned:
    def test_rows_of_the_classifier_change_places_and_nothing_else(self):
        one = member()
        order = [2, 0, 1]
        found = aligned_state(one, order)
        for name, tensor in one.model.state_dict().items():
            assert torch.equal(found[name], tensor[order] if name.startswith("fc.") else tensor), name
        images = torch.randn(4, *one.preprocessing.input_size)
        expected = one.model(images)[:, order]
        one.model.load_state_dict(found)
        torch.testing.assert_close(one.model(images), expected)

    def test_a_classifier_of_several_layers_is_refused(self):
        one = member()
        features = one.model.num_features
        one.model.fc = torch.nn.Sequential(torch.nn.Linear(features, 3), torch.nn.ReLU(), torch.nn.Linear(3, 3))
        assert set(aligned_state(one, [0, 1, 2])) == set(one.model.state_dict())
        with pytest.raises(MemberError, match="another order") as caught:
            aligned_state(one, [1, 0, 2])
        assert "\n" not in str(caught.value)


def alike(nll: float) -> Loss:
    """Losses that differ in the NLL alone."""
    return Loss(0.1, nll, nll)


losses = st.tuples(st.sampled_from([0.1, 0.2, 0.3]), st.floats(0, 5)).map(lambda pair: Loss(*pair, pair[1]))


class Scores:
    """A loss of every mix, drawn when it is first asked for."""

    def __init__(self, data: st.DataObject) -> None:
        self.data, self.known = data, {}

    def __call__(self, mix: Mix) -> Loss:
        if mix not in self.known:
            self.known[mix] = self.data.draw(losses)
        return self.known[mix]

    @staticmethod
    def options(weights):
        total = sum(weights)
        mix = Mix(tuple(weight / total for weight in weights))
        return (mix,) if mix.member is not None else (mix, Mix(mix.weights, reestimated=True))

    def best(self, members):
        return min(self(alone(number, members)) for number in range(members))


class TestChoice:
    @given(st.data(), st.integers(1, 5))
    def test_no_average_is_worse_than_the_best_member_in_accuracy_or_nll(self, data, members):
        rules = [uniform_soup, greedy_soup]
        if members == 2:
            rules.append(lambda count, options, score: wise_ft(1, (0.0, 0.5, 1.0), options, score))
        for rule in rules:
            scores = Scores(data)
            found, best = scores(rule(members, scores.options, scores)), scores.best(members)
            assert found.error <= best.error
            assert found.nll <= best.nll

    @given(st.data())
    def test_uniform_takes_the_better_statistics_where_they_keep_up(self, data):
        scores = Scores(data)
        chosen = uniform_soup(3, scores.options, scores)
        sound = [mix for mix in scores.options([1.0] * 3) if scores(mix).no_worse_than(scores.best(3))]
        if sound:
            assert chosen.member is None
            assert scores(chosen).bounded == min(scores(mix).bounded for mix in sound)
        else:
            assert chosen.member is not None
            assert scores(chosen) == scores.best(3)

    def test_greedy_by_hand(self):
        """In order of their losses: 1, then 0 which makes it worse, then 2 which helps."""
        table = {(0, 1, 0): 0.4, (1, 0, 0): 0.5, (0, 0, 1): 0.6, (0.5, 0.5, 0): 0.45, (0, 0.5, 0.5): 0.3}
        asked = []

        def score(mix: Mix) -> Loss:
            asked.append(mix.weights)
            return alike(table[mix.weights] - (0.01 if mix.reestimated else 0))

        chosen = greedy_soup(3, Scores.options, score)
        assert chosen == Mix((0, 0.5, 0.5), reestimated=True)
        assert (1 / 3, 1 / 3, 1 / 3) not in asked

    def test_an_ingredient_that_changes_nothing_is_kept(self):
        assert greedy_soup(3, Scores.options, lambda mix: Loss(0.0, 1.0, 1.0)) == Mix((1 / 3, 1 / 3, 1 / 3))

    def test_accuracy_alone_and_nll_alone_are_not_enough(self):
        for soup in (Loss(0.1, 0.9, 0.9), Loss(0.3, 0.1, 0.1)):
            chosen = uniform_soup(
                2, Scores.options, lambda mix, s=soup: Loss(0.2, 0.5, 0.5) if mix.member is not None else s
            )
            assert chosen.member is not None

    @given(st.data(), st.integers(0, 1))
    def test_wise_ft_takes_the_lowest_nll_of_its_grid_that_keeps_up(self, data, probe):
        scores = Scores(data)
        chosen = wise_ft(probe, (0.0, 0.25, 0.5, 1.0), scores.options, scores)
        best = scores.best(2)
        assert scores(chosen).bounded == min(loss.bounded for loss in scores.known.values() if loss.no_worse_than(best))
        assert {alone(0, 2), alone(1, 2)} <= set(scores.known)
        assert len(scores.known) == 2 + 2 * 2

    def test_alpha_is_the_share_of_the_fine_tuned_one(self):
        for probe in (0, 1):

            def score(mix: Mix) -> Loss:
                return alike(0.5 if mix.member is None else 1.0)

            assert wise_ft(probe, (0.0, 0.25, 1.0), Scores.options, score).weights[probe] == 0.75
