from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gymtrain.data.randomness import draw, mix, order, uniform

int64s = st.integers(-(2**63), 2**63 - 1)
keys = st.integers(0, 2**63 - 1)


def reference_uniform(key: int, sample: int, count: int) -> list[float]:
    """The same numbers in Python's own integers, which never wrap."""

    def finalise(bits: int) -> int:
        bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) % 2**64
        return bits ^ (bits >> 31)

    gamma = 0x9E3779B97F4A7C15
    stream = finalise((key + sample * gamma) % 2**64)
    return [(finalise((stream + j * gamma) % 2**64) >> 40) / 2**24 for j in range(1, count + 1)]


def test_mix_is_splitmix64():
    # The first number of the published generator for the state 0, without its lowest bit.
    assert mix(0) == 0xE220A8397B1DCDAF >> 1


def test_importing_the_module_does_not_import_torch():
    code = "import sys, gymtrain.data.randomness as r; r.mix(1, 2); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@settings(deadline=None)
@given(st.lists(st.integers(), max_size=4))
def test_a_key_fits_an_int64_whatever_went_in(integers):
    assert 0 <= mix(*integers) < 2**63


@settings(deadline=None)
@given(int64s, int64s)
def test_mix_tells_order_and_length_apart(a, b):
    assert mix(a, b) != mix(a)
    assert a == b or mix(a, b) != mix(b, a)


def test_keys_of_neighbouring_seeds_epochs_and_places_all_differ():
    found = {mix(seed, epoch, index) for seed in range(20) for epoch in range(20) for index in range(20)}
    assert len(found) == 20**3


@settings(deadline=None)
@given(keys, st.lists(int64s, max_size=8), st.integers(0, 5))
def test_draws_are_those_of_exact_arithmetic(key, samples, count):
    drawn = uniform(key, torch.tensor(samples, dtype=torch.int64), count)
    assert drawn.dtype == torch.float32
    assert drawn.shape == (len(samples), count)
    assert drawn.tolist() == [reference_uniform(key, sample, count) for sample in samples]


@settings(deadline=None)
@given(keys, st.permutations(range(40)), st.integers(0, 40))
def test_draws_do_not_depend_on_the_batch(key, permutation, cut):
    ids = torch.tensor(permutation)
    whole = uniform(key, torch.arange(40), 3)
    parts = torch.cat([uniform(key, ids[:cut], 3), uniform(key, ids[cut:], 3)])
    assert torch.equal(parts, whole[ids])


def test_the_first_draws_do_not_depend_on_how_many_are_drawn():
    ids = torch.arange(100)
    assert torch.equal(uniform(mix(1), ids, 2), uniform(mix(1), ids, 5)[:, :2])


def test_draws_leave_the_generator_of_torch_alone():
    before = torch.get_rng_state()
    uniform(mix(0), torch.arange(10), 3)
    order(0, 1, 10, shuffle=True)
    draw(0, 1, torch.ones(10))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("seed", range(5))
def test_draws_are_uniform(seed):
    drawn = uniform(mix(seed, 1, 0), torch.arange(20_000), 4)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    for column in drawn.T:
        counts = torch.histc(column, bins=100, min=0, max=1)
        chi_square = ((counts - 200) ** 2 / 200).sum()
        assert 50 < chi_square < 165  # 99 degrees of freedom: all but about 1 in 20 000 columns


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((0, 1, 0, slice(0, -1), 0), (0, 1, 0, slice(1, None), 0)),  # a sample and the next one
        ((0, 1, 0, slice(None), 0), (0, 1, 0, slice(None), 1)),  # a draw and the next one
        ((0, 1, 0, slice(None), 0), (0, 2, 0, slice(None), 0)),  # an epoch and the next one
        ((0, 1, 0, slice(None), 0), (1, 1, 0, slice(None), 0)),  # a seed and the next one
        ((0, 1, 0, slice(None), 0), (0, 1, 1, slice(None), 0)),  # an augmentor and the next one
    ],
)
def test_neighbours_do_not_correlate(first, second):
    def draws(seed, epoch, index, samples, column):
        return uniform(mix(seed, epoch, index), torch.arange(100_000), 2)[samples, column]

    correlation = torch.corrcoef(torch.stack([draws(*first), draws(*second)]).double())[0, 1]
    assert abs(correlation) < 4 / 100_000**0.5


def test_an_order_without_shuffling_is_the_one_of_the_rows():
    assert order(3, 7, 5, shuffle=False).tolist() == [0, 1, 2, 3, 4]


@settings(deadline=None)
@given(st.integers(), st.integers(1, 1000), st.integers(0, 300))
def test_a_shuffled_order_has_every_row_once_and_is_a_function_of_its_arguments(seed, epoch, size):
    shuffled = order(seed, epoch, size, shuffle=True)
    assert shuffled.dtype == torch.int64
    assert torch.equal(shuffled.sort().values, torch.arange(size))
    torch.rand(3)
    assert torch.equal(order(seed, epoch, size, shuffle=True), shuffled)


def test_orders_of_different_seeds_and_epochs_differ():
    orders = {tuple(order(seed, epoch, 50, shuffle=True).tolist()) for seed in range(10) for epoch in range(1, 11)}
    assert len(orders) == 100


weights_of_samples = st.lists(st.just(0.0) | st.floats(1e-30, 1e30), min_size=1, max_size=50).filter(any)


@given(st.integers(), st.integers(1, 1000), weights_of_samples)
def test_drawn_samples_have_weight_and_are_a_function_of_the_arguments(seed, epoch, weights):
    given_weights = torch.tensor(weights)
    drawn = draw(seed, epoch, given_weights)
    assert drawn.dtype == torch.int64
    assert drawn.shape == (len(weights),)
    assert (given_weights[drawn] > 0).all()
    torch.rand(3)
    assert torch.equal(draw(seed, epoch, given_weights), drawn)


@pytest.mark.parametrize("scale", [1.0, 1e-20, 1e20])
def test_samples_are_drawn_in_proportion_to_their_weights(scale):
    weights = torch.tensor([1.0, 0.0, 3.0, 6.0]).repeat(10_000)
    counts = torch.bincount(draw(0, 1, weights * scale) % 4, minlength=4)
    expected = torch.tensor([4_000.0, 0.0, 12_000.0, 24_000.0])
    assert counts[1] == 0
    assert ((counts - expected) ** 2 / expected)[[0, 2, 3]].sum() < 20  # 2 degrees of freedom: all but 1 in 20 000


def test_draws_of_different_seeds_and_epochs_differ():
    drawn = {tuple(draw(seed, epoch, torch.ones(50)).tolist()) for seed in range(10) for epoch in range(1, 11)}
    assert len(drawn) == 100
