import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fpn_jax.train import parallel, state, steps


@pytest.fixture(scope="module")
def draws_of():
    """Returns a function: step and example → the random draws of dropout and mix.

    The gradient of `a · dropout + b · mixed` equals the two draws. All of the weight is
    on one example, so the draws are those of its replica and slice.
    """

    def mix(rng, images):
        draws = jnp.broadcast_to(jax.random.uniform(rng), images.shape)
        return draws, jnp.arange(len(images)), jnp.ones(len(images))

    def apply(variables, images, *, train, rngs, mutable):
        params = variables["params"]
        dropout = jax.random.uniform(rngs["dropout"], (len(images),))
        return params["a"] * dropout + params["b"] * images[:, 0, 0, 0], {}

    step_fn = parallel.map_train_step(
        steps.make_train_step(
            apply,
            lambda predictions, batch: {"loss": predictions},
            optax.sgd(1.0),
            mix=mix,
            accumulation_steps=2,
        )
    )

    def draws(step, example):
        params = {"params": {"a": jnp.zeros(()), "b": jnp.zeros(())}}
        start = state.create(lambda _: params, optax.sgd(1.0), seed=0, with_ema=False)
        start = parallel.replicate(start.replace(step=jnp.int32(step)))
        batch = {
            "image": np.zeros((16, 1, 1, 1), np.float32),
            "weight": np.float32(np.arange(16) == example),
        }
        end, _ = step_fn(start, parallel.shard(batch))
        return -float(end.params["a"]), -float(end.params["b"])

    return draws


def test_randomness_differs_by_step_replica_slice_and_use(draws_of):
    keys = [(step, example) for step in (0, 1) for example in range(16)]
    values = [value for key in keys for value in draws_of(*key)]
    assert all(0 < value < 1 for value in values)
    assert len(set(values)) == len(values) == 64


def test_randomness_is_reproducible(draws_of):
    assert [draws_of(5, 3) for _ in range(3)] == [draws_of(5, 3)] * 3
