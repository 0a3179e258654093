"""Name maps in both directions, layouts of leaves, and every way not to fit."""

import numpy as np
import pytest

from fpn_jax.errors import InputError
from fpn_jax.pretrained import convert

PAIRS = (
    ("backbone/stem/conv", "conv1"),
    ("backbone/stem/norm", "bn1"),
    ("backbone/stage{i}/block{j}/conv{k}", "layer{i}.{j}.conv{k}"),
    ("head/hidden1", "classifier.0", (4, 2, 3)),
    ("head/logits", "fc"),
)


def variables(seed=0):
    generator = np.random.default_rng(seed)

    def array(*shape):
        return generator.normal(size=shape).astype(np.float32)

    norm = {"scale": array(4), "bias": array(4)}
    return {
        "params": {
            "backbone": {
                "stem": {"conv": {"kernel": array(3, 5, 2, 4)}, "norm": norm},
                "stage12": {"block0": {"conv3": {"kernel": array(3, 3, 1, 4)}}},
            },
            "head": {
                "hidden1": {"kernel": array(24, 7), "bias": array(7)},
                "logits": {"kernel": array(7, 2), "bias": array(2)},
            },
        },
        "batch_stats": {"backbone": {"stem": {"norm": {"mean": array(4)}}}},
    }


def assert_same(ours, theirs):
    ours = convert.traverse_util.flatten_dict(ours)
    theirs = convert.traverse_util.flatten_dict(theirs)
    assert ours.keys() == theirs.keys()
    for path, x in ours.items():
        np.testing.assert_array_equal(theirs[path], x)
        assert theirs[path].dtype == np.float32


def test_ours_to_theirs_to_ours_is_the_identity():
    ours = variables()
    theirs = convert.to_state_dict(ours, PAIRS)
    assert_same(ours, convert.from_state_dict(theirs, ours, PAIRS))


def test_names_and_layouts_are_theirs():
    ours = variables()
    theirs = convert.to_state_dict(ours, PAIRS)
    assert {name: x.shape for name, x in theirs.items()} == {
        "conv1.weight": (4, 2, 3, 5),
        "bn1.weight": (4,),
        "bn1.bias": (4,),
        "bn1.running_mean": (4,),
        "layer12.0.conv3.weight": (4, 1, 3, 3),
        "classifier.0.weight": (7, 24),
        "classifier.0.bias": (7,),
        "fc.weight": (2, 7),
        "fc.bias": (2,),
    }
    stem = ours["params"]["backbone"]["stem"]["conv"]["kernel"]
    assert theirs["conv1.weight"][3, 1, 2, 4] == stem[2, 4, 1, 3]


def test_a_dense_kernel_behind_a_flatten_reads_the_same_cells():
    ours = variables()
    theirs = convert.to_state_dict(ours, PAIRS)["classifier.0.weight"]
    x = np.random.default_rng(1).normal(size=(5, 2, 3, 4))
    expected = x.reshape(5, -1) @ ours["params"]["head"]["hidden1"]["kernel"]
    given = np.moveaxis(x, -1, 1).reshape(5, -1) @ theirs.T
    np.testing.assert_allclose(given, expected, rtol=1e-6)


def test_a_convolution_over_its_whole_map_is_a_dense_kernel():
    ours = variables()
    theirs = convert.to_state_dict(ours, PAIRS)
    theirs["classifier.0.weight"] = theirs["classifier.0.weight"].reshape(7, 4, 2, 3)
    theirs["fc.weight"] = theirs["fc.weight"][:, :, None, None]
    assert_same(ours, convert.from_state_dict(theirs, ours, PAIRS))


def test_both_directions_of_a_name():
    assert convert.our_module("layer4.11.conv2", PAIRS) == (
        "backbone/stage4/block11/conv2"
    )
    assert convert.their_module("head/logits", PAIRS)[0] == "fc"
    assert convert.our_module("layer4.x.conv2", PAIRS) is None
    # A dot of theirs is a dot.
    assert convert.our_module("layer4-11.conv2", PAIRS) is None
    assert convert.their_module("backbone/stem/conv2", PAIRS) is None


def test_a_field_that_stands_twice_is_one_number():
    pairs = (("backbone/stage{i}/stage{i}_conv", "block{i}.conv{i}"),)
    assert convert.our_module("block2.conv2", pairs) == "backbone/stage2/stage2_conv"
    assert convert.our_module("block2.conv3", pairs) is None


def test_halves_and_doubles_become_single():
    ours = variables()
    theirs = convert.to_state_dict(ours, PAIRS)
    theirs["conv1.weight"] = theirs["conv1.weight"].astype(np.float64)
    assert_same(ours, convert.from_state_dict(theirs, ours, PAIRS))


def test_missing_extra_and_mis_shaped_names_are_listed_together():
    ours = variables()
    theirs = convert.to_state_dict(ours, PAIRS)
    del theirs["conv1.weight"]
    theirs["bn1.num_batches_tracked"] = np.array(3)
    theirs["fc.weight"] = np.zeros((1000, 7), np.float32)
    theirs |= {f"extra{number}": np.zeros(1) for number in range(11)}
    with pytest.raises(convert.Misfit) as error:
        convert.from_state_dict(theirs, ours, PAIRS, known=("extra10",))
    assert str(error.value) == (
        "1 missing: conv1.weight (backbone/stem/conv/kernel); 10 extra: extra0, extra1,"
        " extra2, extra3, extra4, extra5, extra6, extra7 and 2 more; 1 of another "
        "shape: fc.weight is (1000, 7), not (2, 7) (head/logits/kernel)"
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused_by_name(value):
    ours = variables()
    theirs = convert.to_state_dict(ours, PAIRS)
    theirs["bn1.running_mean"][2] = value
    with pytest.raises(InputError, match=r"not finite numbers in bn1\.running_mean"):
        convert.from_state_dict(theirs, ours, PAIRS)


def test_whole_numbers_are_refused_by_name():
    ours = variables()
    theirs = convert.to_state_dict(ours, PAIRS)
    theirs["bn1.bias"] = np.zeros(4, np.int64)
    with pytest.raises(InputError, match=r"bn1\.bias are int64"):
        convert.from_state_dict(theirs, ours, PAIRS)


def test_a_map_that_lacks_a_module_says_which():
    with pytest.raises(convert.Misfit, match="does not contain head/logits/"):
        convert.to_state_dict(variables(), PAIRS[:-1])


def test_arrays_are_not_changed_in_place():
    ours = variables()
    theirs = convert.to_state_dict(ours, PAIRS)
    before = {name: x.copy() for name, x in theirs.items()}
    convert.from_state_dict(theirs, ours, PAIRS)
    for name, x in before.items():
        np.testing.assert_array_equal(theirs[name], x)
