"""Augmentors that mix samples of a batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gymtrain.data.augmentors import Augmentation, CutMix, Flip, Mixing, MixUp
from gymtrain.data.augmentors.mixing import beta
from gymtrain.errors import DataError


def batch_of(count, shape=(8, 10, 3)):
    """Images each of one value, by which they can be told, and the shares of as many classes."""
    images = (torch.arange(count) + 1.0).view(-1, *[1] * len(shape)).expand(count, *shape).contiguous()
    return images, torch.eye(count)


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.5, 1.0, 2.0, 8.0, 60.0])
def test_shares_follow_the_beta_distribution(alpha):
    draws = (torch.arange(20_000) + 0.5) / 20_000
    found = beta(draws, alpha).double().numpy()
    # A share of nearly 1 rounds to 1; the other half is the same from the other end.
    shares = stats.beta(alpha, alpha).cdf(found[:10_000])
    assert np.abs(shares - draws[:10_000].numpy()).max() < 1e-3
    np.testing.assert_allclose(found[::-1], 1 - found, atol=1e-4)
    assert np.all(np.diff(found) >= -1e-6)
    assert found.min() >= 0
    assert found.max() <= 1


@pytest.mark.parametrize("kind", [MixUp, CutMix])
def test_images_and_targets_are_mixed_in_the_same_proportion_with_one_other(kind):
    images, targets = batch_of(40)
    mixed, shares = Augmentation([kind(alpha=1.0)], seed=0).mix(images, targets, 1, torch.arange(40))
    values = torch.arange(40) + 1.0
    torch.testing.assert_close(mixed.flatten(1).mean(dim=1), shares @ values, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(40))
    assert (shares >= 0).all()
    # One other, and everyone is somebody's other: on average all count alike.
    assert ((shares > 0).sum(dim=1) <= 2).all()
    off_diagonal = (shares * (1 - torch.eye(40)) > 0).sum(dim=0)
    assert off_diagonal.max() == 1
    assert mixed.is_contiguous()


def test_what_cutmix_pastes_is_a_rectangle_of_the_other_image_at_its_place():
    images = torch.rand(30, 8, 10, 3, generator=torch.Generator().manual_seed(0))
    mixed, shares = Augmentation([CutMix()], seed=0).mix(images, torch.eye(30), 1, torch.arange(30))
    for row in range(30):
        is_own = (mixed[row] == images[row]).all(dim=2)
        other = (shares[row] * (torch.arange(30) != row)).argmax()
        assert (is_own | (mixed[row] == images[other]).all(dim=2)).all()
        pasted = ~is_own
        assert torch.equal(pasted, pasted.any(dim=1)[:, None] & pasted.any(dim=0)[None])
        assert shares[row, row] == pytest.approx(float(is_own.float().mean()), abs=1e-6)


@pytest.mark.parametrize("kind", [MixUp, CutMix])
def test_the_share_of_mixed_samples_is_the_probability_and_the_others_keep_their_bits(kind):
    images, targets = torch.rand(3000, 4, 4), torch.rand(3000)
    mixed, numbers = Augmentation([kind(0.3, alpha=5.0)], seed=0).mix(images, targets, 1, torch.arange(3000))
    is_mixed = (mixed != images).flatten(1).any(dim=1)
    assert is_mixed.float().mean() == pytest.approx(0.3, abs=0.03)
    assert torch.equal(numbers[~is_mixed], targets[~is_mixed])
    none, same = Augmentation([kind(0.0)], seed=0).mix(images, targets, 1, torch.arange(3000))
    assert torch.equal(none, images)
    assert torch.equal(same, targets)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    epoch=st.integers(1, 1000), count=st.integers(1, 9), kinds=st.lists(st.sampled_from([MixUp, CutMix]), max_size=3)
)
def test_a_batch_is_mixed_the_same_way_again_and_in_any_order(epoch, count, kinds):
    images, targets = batch_of(count)
    augmentation = Augmentation([kind(0.8) for kind in kinds], seed=2)
    ids = torch.arange(count) * 7
    mixed, shares = augmentation.mix(images, targets, epoch, ids)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(epoch))
    again, shares_again = augmentation.mix(images[order], targets[order], epoch, ids[order])
    assert torch.equal(again, mixed[order])
    assert torch.equal(shares_again, shares[order])


def test_a_batch_of_one_is_left_alone_and_an_empty_one_too():
    for count in (0, 1):
        images, targets = batch_of(count)
        mixed, shares = Augmentation([MixUp(), CutMix()], seed=0).mix(images, targets, 1, torch.arange(count))
        assert torch.equal(mixed, images)
        torch.testing.assert_close(shares, targets)


def test_partners_change_with_the_epoch():
    images, targets = batch_of(20)
    shares = [Augmentation([MixUp(alpha=1.0)], 0).mix(images, targets, epoch, torch.arange(20))[1] for epoch in (1, 2)]
    assert ((shares[0] > 0) != (shares[1] > 0)).any(dim=1).float().mean() > 0.5


def test_a_chain_leaves_mixing_to_mix():
    images, _ = batch_of(6)
    augmentation = Augmentation([Flip(0.5), MixUp()], seed=0)
    assert torch.equal(augmentation(images, 1, torch.arange(6)), images)
    assert augmentation.mixes
    assert not Augmentation([Flip()], seed=0).mixes


def test_an_augmentor_behind_a_mixing_is_refused():
    message = r"^dataset.data_augmentors\[2\]: Flip stands behind CutMix, which mixes finished images; list that last$"
    with pytest.raises(DataError, match=message):
        Augmentation([MixUp(), CutMix(), Flip()], seed=0).check((8, 8))


def test_the_batch_of_the_caller_is_not_mixed_in_place():
    images, targets = batch_of(12)
    before = images.clone(), targets.clone()
    Augmentation([MixUp(alpha=1.0), CutMix()], seed=0).mix(images, targets, 1, torch.arange(12))
    assert torch.equal(images, before[0])
    assert torch.equal(targets, before[1])


def test_a_mixing_of_ones_own_is_one_method():
    class Swap(Mixing):
        def mix(self, images, others, draws):
            return others, torch.zeros(len(images))

    images, targets = batch_of(5)
    mixed, shares = Augmentation([Swap()], seed=0).mix(images, targets, 1, torch.arange(5))
    assert torch.equal(mixed[:, 0, 0, 0].long() - 1, shares.argmax(dim=1))
    assert sorted(shares.argmax(dim=1).tolist()) == list(range(5))
