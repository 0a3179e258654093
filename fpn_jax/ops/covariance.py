"""Global covariance pooling: how the channels of a map vary together.

Three steps: the covariance of the channels over the cells of a map, a function of that
matrix that compresses large eigenvalues, and the upper triangle as a vector.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from fpn_jax import errors
from fpn_jax.ops.kernels.linear import align_varying

HIGHEST = jax.lax.Precision.HIGHEST
MAX_ITERATIONS = 20
"""Largest number of Newton–Schulz steps. An eigenvalue that rounding makes negative
grows by 9/4 a step, and in float32 the iteration diverges after about 25."""


def covariance(x: jax.Array, centre: bool = True) -> jax.Array:
    """Returns `Σ = Xᵀ X / n` over the `n` cells of a map.

    Args:
      x: Maps, `[B, H, W, C]`.
      centre: Whether the mean of every channel is subtracted first. Without it, Σ is
        the matrix of second moments, as in O2P (Ionescu et al., arXiv 1509.07838).

    Returns:
      `[B, C, C]` float32, symmetric and without negative eigenvalues. The rank is at
      most `min(C, n - 1)`, or `min(C, n)` without centring.

    Example:
      >>> x = jnp.array([[1.0, 2.0], [3.0, 6.0]]).reshape(1, 1, 2, 2)
      >>> covariance(x).tolist()
      [[[1.0, 2.0], [2.0, 4.0]]]
    """
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    cells = jax.lax.collapse(x, 1, 3)
    if centre:
        cells = cells - cells.mean(axis=1, keepdims=True)
    product = jnp.einsum("bnc,bnd->bcd", cells, cells, precision=HIGHEST)
    return product / cells.shape[1]


def matrix_power(
    matrix: jax.Array,
    power: float = 0.5,
    *,
    epsilon: float = 1e-5,
    truncation: float = 0.0,
) -> jax.Array:
    """Returns `U Λ^α Uᵀ` for a matrix `U Λ Uᵀ`, from its eigenvalues.

    Li et al., "Is Second-order Information Helpful for Large-scale Visual
    Recognition?" (MPN-COV), arXiv 1703.08050. Below `epsilon` the power is replaced by
    the straight line through 0, so that its slope, which for the root is infinite at 0,
    is at most `epsilon ** (power - 1)`.

    The derivative is `U (K ∘ Uᵀ dΣ U) Uᵀ` with the divided differences
    `K_ij = (f(λ_i) - f(λ_j)) / (λ_i - λ_j)`, and `f'` where the two are equal
    (Daleckii & Krein, 1965). It is correct and finite even where eigenvalues repeat or
    are 0 and the derivative of the eigenvectors does not exist. There is no second
    derivative.

    Args:
      matrix: `[..., C, C]`, symmetric, without negative eigenvalues.
      power: α, above 0.
      epsilon: Eigenvalue below which the straight line is used. The slope multiplies
        the rounding of the eigenvalues, about 1e-7 of the largest in float32.
      truncation: Eigenvalues up to this share of the matrix's largest count as 0, in
        [0, 1). `K` is large for a pair of close eigenvalues of which only one counts.

    Returns:
      `[..., C, C]`, symmetric.

    Raises:
      InputError: `power` or `epsilon` is not above 0, or `truncation` not in [0, 1).

    Example:
      >>> print(matrix_power(jnp.diag(jnp.array([4.0, 9.0]))).round())
      [[2. 0.]
       [0. 3.]]
    """
    check_spectrum(power=power, epsilon=epsilon, truncation=truncation)
    function = functools.partial(_power, power=power, epsilon=epsilon)
    return _spectral(function, epsilon, truncation, matrix)


def matrix_log(
    matrix: jax.Array, *, epsilon: float = 1e-3, truncation: float = 0.0
) -> jax.Array:
    """Returns `U log(Λ + ε) Uᵀ` for a matrix `U Λ Uᵀ`, from its eigenvalues.

    The log-Euclidean map: Ionescu et al., "Matrix Backpropagation for Deep Networks
    with Structured Layers" (DeepO2P), arXiv 1509.07838. The derivative has the form of
    that of `matrix_power`.

    Args:
      matrix: `[..., C, C]`, symmetric, without negative eigenvalues.
      epsilon: Added to every eigenvalue, because the logarithm of 0 is infinite.
      truncation: Eigenvalues up to this share of the matrix's largest count as 0, in
        [0, 1).

    Returns:
      `[..., C, C]`, symmetric.

    Raises:
      InputError: `epsilon` is not above 0, or `truncation` not in [0, 1).

    Example:
      >>> print(matrix_log(jnp.eye(2), epsilon=1e-6).round(3))
      [[0. 0.]
       [0. 0.]]
    """
    check_spectrum(epsilon=epsilon, truncation=truncation)
    function = functools.partial(_log, epsilon=epsilon)
    return _spectral(function, epsilon, truncation, matrix)


def matrix_sqrt_newton_schulz(
    matrix: jax.Array, iterations: int = 5, *, epsilon: float = 1e-6
) -> jax.Array:
    """Returns an approximate `Σ^½` from matrix products alone, fast on accelerators.

    Li et al., "Towards Faster Training of Global Covariance Pooling Networks by
    Iterative Matrix Square Root Normalization" (iSQRT-COV), arXiv 1712.01034. From
    `Y = Σ / tr Σ` and `Z = I`, every step is `T = (3 I - Z Y) / 2`, `Y ← Y T`,
    `Z ← T Z`; the result is `√(tr Σ) Y`. The root of an eigenvalue `λ` below
    `tr Σ · 2.25^-N` is still too small after `N` steps, which keeps the gradient
    finite. Differs from the paper: `epsilon` is added to the trace, which is 0 for a
    map of zeros.

    Args:
      matrix: `[..., C, C]`, symmetric, without negative eigenvalues.
      iterations: Steps `N`, 1 to 20; the paper's is 5.
      epsilon: Added to the trace, above 0.

    Returns:
      `[..., C, C]`, symmetric up to rounding.

    Raises:
      InputError: `iterations` is outside 1 to 20, or `epsilon` is not above 0.

    Example:
      >>> print(matrix_sqrt_newton_schulz(jnp.diag(jnp.array([4.0, 9.0]))).round())
      [[2. 0.]
       [0. 3.]]
    """
    check_spectrum(epsilon=epsilon)
    errors.within("iterations", iterations, 1, MAX_ITERATIONS)
    trace = jnp.trace(matrix, axis1=-2, axis2=-1)[..., None, None] + epsilon
    identity = jnp.eye(matrix.shape[-1], dtype=matrix.dtype)

    def step(_, pair):
        y, z = pair
        t = 1.5 * identity - 0.5 * jnp.matmul(z, y, precision=HIGHEST)
        return (
            jnp.matmul(y, t, precision=HIGHEST),
            jnp.matmul(t, z, precision=HIGHEST),
        )

    # A loop keeps the axes of `jax.shard_map` over which its values vary.
    start = align_varying(matrix / trace, jnp.broadcast_to(identity, matrix.shape))
    root, _ = jax.lax.fori_loop(0, iterations, step, tuple(start))
    return jnp.sqrt(trace) * root


def upper_triangle(matrix: jax.Array) -> jax.Array:
    """Returns the upper triangle row by row, with off-diagonal elements times √2.

    With that weight, the length of the vector is the Frobenius norm of the matrix, and
    the inner product of two vectors is that of their matrices.

    Args:
      matrix: `[..., C, C]`, symmetric.

    Returns:
      `[..., C (C + 1) / 2]`.

    Example:
      >>> print(upper_triangle(jnp.array([[1.0, 2.0], [2.0, 4.0]])).round(2))
      [1.   2.83 4.  ]
    """
    rows, columns = np.triu_indices(matrix.shape[-1])
    weights = np.where(rows == columns, 1, np.sqrt(2)).astype(matrix.dtype)
    return matrix[..., rows, columns] * weights


def covariance_pool(
    x: jax.Array,
    transform: Callable[[jax.Array], jax.Array] = matrix_power,
    centre: bool = True,
) -> jax.Array:
    """Returns the transformed covariance of a map's channels, as a vector.

    Args:
      x: Maps, `[B, H, W, C]`.
      transform: Function of `[B, C, C]` to the same shape: `matrix_power`,
        `matrix_log` or `matrix_sqrt_newton_schulz`, or a `functools.partial` of one.
      centre: Whether the mean of every channel is subtracted first.

    Returns:
      The `upper_triangle`, `[B, C (C + 1) / 2]`, of the input's type; computed in
      float32.

    Example:
      >>> x = jnp.array([[1.0, 0.0], [3.0, 0.0]]).reshape(1, 1, 2, 2)
      >>> covariance_pool(x).tolist()
      [[1.0, 0.0, 0.0]]
    """
    vector = upper_triangle(transform(covariance(x, centre)))
    # The covariance of integers is no integer, as in NumPy.
    return vector.astype(x.dtype) if jnp.issubdtype(x.dtype, jnp.floating) else vector


def check_spectrum(
    *, power: float = 1.0, epsilon: float = 1.0, truncation: float = 0.0
) -> None:
    """Refuses arguments that no function of eigenvalues takes.

    Args:
      power: Exponent, above 0.
      epsilon: Smallest eigenvalue that is distinguished from 0, above 0.
      truncation: Share of the largest eigenvalue, in [0, 1).

    Raises:
      InputError: An argument is out of its range.
    """
    for name, value in (("power", power), ("epsilon", epsilon)):
        errors.within(name, value, 0, math.inf, open_low=True)
    errors.within("truncation", truncation, 0, 1, open_high=True)


def _power(values: jax.Array, power: float, epsilon: float) -> jax.Array:
    line = values * epsilon ** (power - 1)
    return jnp.where(values > epsilon, jnp.maximum(values, epsilon) ** power, line)


def _log(values: jax.Array, epsilon: float) -> jax.Array:
    # Rounding can make eigenvalues negative: there, use the tangent at 0.
    tangent = np.log(epsilon) + values / epsilon
    return jnp.where(values > 0, jnp.log(jnp.maximum(values, 0) + epsilon), tangent)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def _spectral(function, epsilon, truncation, matrix):
    return _decompose(function, truncation, matrix)[-1]


@_spectral.defjvp
def _spectral_jvp(function, epsilon, truncation, primals, tangents):
    (matrix,), (tangent,) = primals, tangents
    values, limit, vectors, images, result = _decompose(function, truncation, matrix)
    gaps = values[..., :, None] - values[..., None, :]
    middles = (values[..., :, None] + values[..., None, :]) / 2
    slopes = jax.jvp(function, (middles,), (jnp.ones_like(middles),))[1]
    slopes = jnp.where(middles > limit[..., None], slopes, 0)
    # Below this gap d, the error of the slope, d², is smaller than the rounding error
    # of the quotient, eps / d.
    tolerance = float(jnp.finfo(values.dtype).eps) ** 0.25
    near = jnp.abs(gaps) <= tolerance * jnp.maximum(jnp.abs(middles), epsilon)
    rises = images[..., :, None] - images[..., None, :]
    differences = jnp.where(near, slopes, rises / jnp.where(near, 1, gaps))
    tangent = (tangent + jnp.matrix_transpose(tangent)) / 2
    inner = _rotate(jnp.matrix_transpose(vectors), tangent)
    return result, _rotate(vectors, differences * inner)


def _decompose(function, truncation, matrix):
    """Returns eigenvalues, their limit, eigenvectors, images, and the result.

    Eigenvalues up to the limit count as 0. Without truncation the limit is -∞, because
    eigenvalues that rounding makes negative have a slope as well.
    """
    values, vectors = jnp.linalg.eigh(matrix)
    largest = values[..., -1:]
    limit = truncation * largest if truncation else jnp.full_like(largest, -jnp.inf)
    images = function(jnp.where(values > limit, values, 0))
    scaled = vectors * images[..., None, :]
    result = jnp.matmul(scaled, jnp.matrix_transpose(vectors), precision=HIGHEST)
    return values, limit, vectors, images, result


def _rotate(basis: jax.Array, matrix: jax.Array) -> jax.Array:
    half = jnp.matmul(basis, matrix, precision=HIGHEST)
    return jnp.matmul(half, jnp.matrix_transpose(basis), precision=HIGHEST)
