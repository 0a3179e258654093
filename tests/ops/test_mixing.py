import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax.errors import InputError
from fpn_jax.ops import mixing


def random_images(batch_size, height=12, width=9):
    shape = (batch_size, height, width, 3)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("batch_size", [6, 7])
@pytest.mark.parametrize("alpha", [0.1, 5.0])
def test_mixup_is_the_blend_that_lam_and_partner_name(batch_size, alpha):
    images = random_images(batch_size)
    mixed, partner, lam = mixing.mixup(jax.random.key(3), images, alpha)
    assert partner.dtype == jnp.int32
    assert lam.dtype == jnp.float32
    assert sorted(partner.tolist()) == list(range(batch_size))
    for row in range(batch_size):
        own, other = float(lam[row]), images[int(partner[row])]
        assert 0 <= own <= 1
        expected = own * images[row] + (1 - own) * other
        np.testing.assert_allclose(mixed[row], expected, atol=1e-5)


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixup_lam_follows_the_beta_distribution(alpha):
    images = jnp.zeros((4000, 1, 1, 1))
    lam = np.asarray(mixing.mixup(jax.random.key(0), images, alpha)[2])
    assert lam.mean() == pytest.approx(0.5, abs=0.03)
    assert lam.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), abs=0.01)


@pytest.mark.parametrize("alpha", [0.2, 1.0])
@pytest.mark.parametrize("size", [(12, 9), (1, 1), (1, 30), (64, 64)])
def test_cutmix_pastes_one_box_and_lam_counts_the_pixels_kept(size, alpha):
    batch_size, (height, width) = 64, size
    # Every pixel carries the number of its image.
    images = jnp.broadcast_to(
        jnp.arange(batch_size, dtype=jnp.float32)[:, None, None, None],
        (batch_size, height, width, 3),
    )
    mixed, partner, lam = mixing.cutmix(jax.random.key(1), images, alpha)
    assert partner.dtype == jnp.int32
    assert lam.dtype == jnp.float32
    mixed = np.asarray(mixed)
    for row in range(batch_size):
        pasted = (mixed[row] == int(partner[row])).all(-1)
        assert (mixed[row][~pasted] == row).all()
        assert float(lam[row]) == pytest.approx(1 - pasted.mean(), abs=1e-6)
        rows, columns = np.nonzero(pasted)
        if rows.size:
            box = pasted[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            assert box.all()


def test_cutmix_agrees_with_the_definition_of_the_box():
    images = jnp.zeros((4000, 32, 32, 1))
    lam = np.asarray(mixing.cutmix(jax.random.key(0), images, 1.0)[2])
    rng = np.random.default_rng(0)
    side = np.sqrt(1 - rng.beta(1.0, 1.0, 200_000))
    overlap = 1.0
    for center in rng.uniform(size=(2, side.size)):
        stop, start = np.minimum(center + side / 2, 1), np.maximum(center - side / 2, 0)
        overlap = overlap * (stop - start)
    assert lam.mean() == pytest.approx(1 - overlap.mean(), abs=0.02)
    assert lam.std() == pytest.approx(overlap.std(), abs=0.02)


@pytest.mark.parametrize("mixer", [mixing.mixup, mixing.cutmix])
def test_type_of_the_images_is_kept(mixer):
    images = jnp.asarray(random_images(6), jnp.bfloat16)
    mixed, _, lam = mixer(jax.random.key(0), images, 1.0)
    assert mixed.dtype == jnp.bfloat16
    assert lam.dtype == jnp.float32


@functools.cache
def jitted(mixup_alpha, cutmix_alpha, probability):
    return jax.jit(
        functools.partial(
            mixing.mix,
            mixup_alpha=mixup_alpha,
            cutmix_alpha=cutmix_alpha,
            probability=probability,
        )
    )


def method_used(images, mixed, partner, lam):
    """Returns which method made the batch, by recomposing it both ways."""
    images, mixed, lam = np.asarray(images), np.asarray(mixed), np.asarray(lam)
    if (lam == 1).all():
        np.testing.assert_array_equal(mixed, images)
        return "none"
    weight = lam[:, None, None, None]
    blend = weight * images + (1 - weight) * images[np.asarray(partner)]
    if np.allclose(mixed, blend, atol=1e-5):
        return "mixup"
    foreign = (mixed == images[np.asarray(partner)]).all(-1)
    assert (foreign | (mixed == images).all(-1)).all()
    np.testing.assert_allclose(lam, 1 - foreign.mean((1, 2)), atol=1e-6)
    return "cutmix"


@pytest.mark.parametrize(
    ("alphas", "probability", "expected"),
    [
        ((1.0, 1.0), 0.8, {"none": 0.2, "mixup": 0.4, "cutmix": 0.4}),
        ((0.0, 1.0), 0.5, {"none": 0.5, "cutmix": 0.5}),
        ((0.0, 0.0), 1.0, {"none": 1.0}),
    ],
)
def test_mix_chooses_as_often_as_asked_under_jit(alphas, probability, expected):
    images = random_images(6)
    mix = jitted(*alphas, probability)
    used = [
        method_used(images, *mix(key, images))
        for key in jax.random.split(jax.random.key(0), 200)
    ]
    assert set(used) == set(expected)
    for method, share in expected.items():
        assert used.count(method) / 200 == pytest.approx(share, abs=0.12)


def test_mix_is_a_function_of_the_key():
    images, mix = random_images(6), jitted(1.0, 1.0, 0.8)
    keys = jax.random.split(jax.random.key(1), 8)
    lams = set()
    for key in keys:
        first, again = mix(key, images), mix(key, images)
        for one, other in zip(first, again, strict=True):
            np.testing.assert_array_equal(one, other)
        lams.add(np.asarray(first[2]).tobytes())
    assert len(lams) > 4


def test_mix_of_a_batch_of_one():
    images = random_images(1)
    for key in jax.random.split(jax.random.key(0), 5):
        mixed, partner, lam = jitted(1.0, 1.0, 0.8)(key, images)
        np.testing.assert_allclose(mixed, images, atol=1e-6)
        assert (partner.tolist(), lam.shape) == ([0], (1,))


def test_refused_values_are_named():
    images, key = random_images(2), jax.random.key(0)
    options = {"mixup_alpha": 0.0, "cutmix_alpha": 0.0, "probability": 1.0}
    for wrong in ({"mixup_alpha": -1}, {"cutmix_alpha": -1}, {"probability": 1.5}):
        ((name, value),) = wrong.items()
        with pytest.raises(InputError, match=f"{name} is {value}"):
            mixing.mix(key, images, **options | wrong)
    for mixer in (mixing.mixup, mixing.cutmix):
        with pytest.raises(ValueError, match="above 0"):
            mixer(key, images, 0.0)
    with pytest.raises(ValueError, match="uint8"):
        mixing.mixup(key, images.astype(np.uint8), 1.0)
