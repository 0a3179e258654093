"""Mixing the examples of a batch with each other: mixup and CutMix.

Each function returns the mixed images, the partner of each example and the weight of
its own label, so that the loss of an example is `lam * loss(own label) + (1 - lam) *
loss(partner's label)`. The partner of example `i` is example `B - 1 - i`: the order of
a shuffled batch is random already, and a reversal needs no gather. The middle of an odd
batch is its own partner and does not change.
"""

import functools
import math

import jax
import jax.numpy as jnp

from fpn_jax import errors


def _sample_beta(rng: jax.Array, alpha: float, batch_size: int) -> jax.Array:
    # A Dirichlet distribution of two numbers is Beta. It compiles twice as fast as
    # random.beta, which has a gamma sampler for each of its two parameters.
    concentration = jnp.full((2,), alpha, jnp.float32)
    return jax.random.dirichlet(rng, concentration, (batch_size,), jnp.float32)[:, 0]


def _reversal(batch_size: int) -> jax.Array:
    return jnp.arange(batch_size - 1, -1, -1, dtype=jnp.int32)


def mixup(
    rng: jax.Array, images: jax.Array, alpha: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Blends each image with its partner: `lam * own + (1 - lam) * partner`.

    "mixup: Beyond Empirical Risk Minimization" (arXiv 1710.09412), equation 1, with
    `lam ~ Beta(alpha, alpha)`. Differs from the paper's code: each example draws its
    own `lam`.

    Args:
      rng: Key of the draws.
      images: Float `[B, H, W, C]`.
      alpha: Above 0; near 0, images are hardly mixed.

    Returns:
      The mixed images, of the type of the images; the partner, int32 `[B]`; `lam`,
      float32 `[B]`, in [0, 1].

    Raises:
      InputError: `alpha` is not above 0.
      ValueError: The images are not floating-point.

    Example:
      >>> images = jnp.zeros((4, 8, 8, 3))
      >>> mixed, partner, lam = mixup(jax.random.key(0), images, alpha=0.2)
      >>> mixed.shape, partner.tolist(), lam.shape
      ((4, 8, 8, 3), [3, 2, 1, 0], (4,))
    """
    errors.within("alpha of mixup", alpha, 0, math.inf, open_low=True)
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"images are {images.dtype}; mixup needs floating-point ones")
    batch_size = images.shape[0]
    lam = _sample_beta(rng, alpha, batch_size)
    own = lam[:, None, None, None]
    mixed = own * images + (1 - own) * images[::-1]
    return mixed.astype(images.dtype), _reversal(batch_size), lam


def cutmix(
    rng: jax.Array, images: jax.Array, alpha: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Pastes a box of its partner into each image.

    "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable
    Features" (arXiv 1905.04899). The box has the image's aspect ratio, a share of
    `1 - lam` of its area with `lam ~ Beta(alpha, alpha)`, and a uniform centre; it is
    clipped at the edges. The returned `lam` is the exact share of pixels kept. Differs
    from the paper's published code: each example draws its own box, and its sides are
    rounded to the nearest number of pixels, where that code rounds down to an even
    number. With `alpha = 1` and 32 × 32 pixels the mean of `lam` is 0.68, and 0.70 in
    that code.

    Args:
      rng: Key of the draws.
      images: `[B, H, W, C]`.
      alpha: Above 0; 1 draws the share uniformly.

    Returns:
      The mixed images, of the type of the images; the partner, int32 `[B]`; `lam`,
      float32 `[B]`, in [0, 1].

    Raises:
      InputError: `alpha` is not above 0.

    Example:
      >>> images = jnp.zeros((3, 8, 6, 1))
      >>> mixed, partner, lam = cutmix(jax.random.key(0), images, alpha=1.0)
      >>> mixed.shape, partner.tolist(), lam.shape
      ((3, 8, 6, 1), [2, 1, 0], (3,))
    """
    errors.within("alpha of cutmix", alpha, 0, math.inf, open_low=True)
    batch_size, height, width, _ = images.shape
    share_rng, row_rng, column_rng = jax.random.split(rng, 3)
    side = jnp.sqrt(1 - _sample_beta(share_rng, alpha, batch_size))
    in_rows, box_height = _segment(row_rng, height, side)
    in_columns, box_width = _segment(column_rng, width, side)
    box = in_rows[:, :, None, None] & in_columns[:, None, :, None]
    mixed = jnp.where(box, images[::-1], images)
    lam = 1 - (box_height * box_width).astype(jnp.float32) / (height * width)
    return mixed, _reversal(batch_size), lam


def _segment(
    rng: jax.Array, size: int, share: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns bool `[B, size]`, true on a random segment, and its length `[B]`."""
    length = jnp.round(share * size).astype(jnp.int32)
    center = jax.random.randint(rng, share.shape, 0, size)
    start = center - length // 2
    stop = jnp.minimum(start + length, size)
    start = jnp.maximum(start, 0)
    positions = jnp.arange(size)
    inside = (start[:, None] <= positions) & (positions < stop[:, None])
    return inside, stop - start


def mix(
    rng: jax.Array,
    images: jax.Array,
    *,
    mixup_alpha: float,
    cutmix_alpha: float,
    probability: float,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Applies mixup or CutMix to a batch, with a probability.

    If both have an `alpha` above 0, they are equally likely. If neither has, or if the
    draw decides against mixing, the images are unchanged and `lam` is 1.

    Args:
      rng: Key of the draws.
      images: Float `[B, H, W, C]`.
      mixup_alpha: `alpha` of `mixup`; 0 turns it off.
      cutmix_alpha: `alpha` of `cutmix`; 0 turns it off.
      probability: Share of the batches that are mixed, in [0, 1].

    Returns:
      The images; the partner, int32 `[B]`; `lam`, float32 `[B]`, in [0, 1].

    Raises:
      InputError: An `alpha` is negative, or the probability is outside [0, 1].

    Example:
      >>> images = jax.random.normal(jax.random.key(1), (2, 4, 4, 3))
      >>> mixed, partner, lam = mix(
      ...     jax.random.key(0),
      ...     images,
      ...     mixup_alpha=0.2,
      ...     cutmix_alpha=1.0,
      ...     probability=0.0,
      ... )
      >>> bool((mixed == images).all()), partner.tolist(), lam.tolist()
      (True, [1, 0], [1.0, 1.0])
    """
    for name, alpha in (("mixup_alpha", mixup_alpha), ("cutmix_alpha", cutmix_alpha)):
        errors.at_least(name, alpha, 0)
    errors.within("probability", probability, 0, 1)
    methods = [
        functools.partial(method, alpha=alpha)
        for method, alpha in ((mixup, mixup_alpha), (cutmix, cutmix_alpha))
        if alpha > 0
    ]
    if not methods:
        return _keep(rng, images)
    draw_rng, method_rng, mix_rng = jax.random.split(rng, 3)
    drawn = jax.random.bernoulli(draw_rng, probability)
    method = jax.random.randint(method_rng, (), 0, len(methods))
    branch = jnp.where(drawn, 1 + method, 0)
    return jax.lax.switch(branch, [_keep, *methods], mix_rng, images)


def _keep(rng: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    del rng
    batch_size = images.shape[0]
    return images, _reversal(batch_size), jnp.ones((batch_size,), jnp.float32)
