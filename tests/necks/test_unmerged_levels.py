"""Necks that merge no levels: the identity, and the pyramid of images."""

import numpy as np
import pytest

from fpn_jax import necks
from fpn_jax.errors import InputError
from tests.necks.conftest import CHANNELS


def test_identity_returns_the_coarsest_map(maps):
    neck = necks.build("identity")
    result = neck.apply({}, maps, train=True)
    assert list(result) == [5]
    np.testing.assert_array_equal(result[5], maps[5])
    assert neck.output_channels(CHANNELS) == {5: 9}


def test_identity_returns_the_configured_levels(maps):
    neck = necks.build("identity", levels=(4, 2))
    result = neck.apply({}, maps, train=True)
    assert list(result) == [2, 4]
    np.testing.assert_array_equal(result[2], maps[2])
    assert neck.output_channels(CHANNELS) == {2: 3, 4: 7}
    with pytest.raises(InputError, match=r"levels \(4, 2\), but .* only \(3, 4\)"):
        neck.output_channels({3: 5, 4: 7})


@pytest.mark.parametrize(("level", "taken"), [(None, 5), (3, 3)])
def test_image_pyramid_returns_one_level_per_copy(maps, level, taken):
    neck = necks.build("image_pyramid", level=level)
    copies = [{key: x + copy for key, x in maps.items()} for copy in range(3)]
    result = neck.apply({}, *copies, train=True)
    assert list(result) == [taken, taken + 1, taken + 2]
    for copy in range(3):
        np.testing.assert_array_equal(result[taken + copy], maps[taken] + copy)
    assert neck.output_channels(CHANNELS) == dict.fromkeys(result, CHANNELS[taken])
    with pytest.raises(ValueError, match="2 pyramids are given; num_scales is 3"):
        neck.apply({}, *copies[:2], train=True)


def test_only_the_image_pyramid_has_several_scales():
    scales = {name: necks.build(name).num_scales for name in necks.names()}
    assert scales.pop("image_pyramid") == 3
    assert set(scales.values()) == {1}
    assert not any("num_scales" in necks.accepts(name) for name in scales)
