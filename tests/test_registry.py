"""The registry: specs, arguments, and classes from outside the package."""

import dataclasses
import functools

import pytest

from fpn_jax.errors import InputError
from fpn_jax.registry import Registry


@dataclasses.dataclass
class Kettle:
    """A dataclass to choose.

    Attributes:
      litres: An argument without a default.
      colours: An argument with a default factory.
    """

    litres: float
    colours: list = dataclasses.field(default_factory=lambda: ["red"])
    pour: int = 1

    @property
    def boils(self) -> bool:
        return True


class Fire:
    """A class with an ordinary constructor."""

    def __init__(self, wood: str, *, width: int = 2):
        self.wood, self.width = wood, width


@dataclasses.dataclass
class Kitchen:
    """A class with an argument that is a choice itself."""

    kettle: object = "small"

    def __post_init__(self):
        self.kettle = KETTLES.build(self.kettle)


TABLE = {"kettle": Kettle, "small": functools.partial(Kettle, litres=0.5), "fire": Fire}
KETTLES = Registry("kettle", TABLE, members=("boils",))
KITCHENS = Registry("kitchen", {"kitchen": Kitchen})


def test_a_string_is_short_for_a_dict_with_a_name():
    assert KETTLES.build("small") == KETTLES.build({"name": "small"}) == Kettle(0.5)
    assert KETTLES.build({"name": "kettle", "litres": 2.0}).litres == 2.0
    assert KETTLES.build("kettle", litres=3.0).litres == 3.0
    assert KETTLES.spec("small") == {"name": "small"}


def test_a_default_factory_is_a_default():
    one, two = (KETTLES.build("small") for _ in range(2))
    assert one.colours == ["red"]
    assert one.colours is not two.colours


def test_arguments_fixed_by_a_partial_cannot_be_set():
    assert KETTLES.accepts("small") == {"colours", "pour"}
    with pytest.raises(InputError, match="'litres' is unknown; choose one of colours"):
        KETTLES.build("small", litres=3.0)


def test_constructors_need_not_be_dataclasses():
    assert KETTLES.accepts("fire") == {"wood", "width"}
    assert KETTLES.build({"name": "fire", "wood": "oak"}).width == 2


def test_specs_can_be_nested():
    built = KITCHENS.build({"name": "kitchen", "kettle": {"name": "small", "pour": 4}})
    assert built.kettle == Kettle(0.5, pour=4)
    with pytest.raises(InputError, match="argument of kettle 'small' 'por' is unknown"):
        KITCHENS.build({"name": "kitchen", "kettle": {"name": "small", "por": 4}})


def test_arguments_of_the_caller_reach_constructors_that_take_them():
    given = {"width": 7, "pour": 3}
    assert KETTLES.build({"name": "fire", "wood": "oak"}, given).width == 7
    assert KETTLES.build("small", given).pour == 3
    with pytest.raises(InputError, match="argument of kettle 'small' 'pour' is unk"):
        KETTLES.build({"name": "small", "pour": 2}, given)
    with pytest.raises(InputError, match="argument of kettle 'small' 'pour' is unk"):
        KETTLES.build({"name": "small", "pour": 2}, withheld=("pour",))


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("ketle", "kettle 'ketle' is unknown; did you mean 'kettle'"),
        ("kettle", "kettle 'kettle' needs the argument 'litres'"),
        ({"litres": 2}, "give a name, or a dict with 'name'"),
        (3, "kettle is 3; give a name"),
        ({"name": "small", "size": 2}, "'size' is unknown; choose one of colours, p"),
        ("no_such_module:Kettle", "module 'no_such_module' cannot be imported"),
        ("json:Kettle", "module 'json' has no class 'Kettle'"),
        ("json:dumps", "module 'json' has no class, but a value, 'dumps'"),
        (":Kettle", "module '' is not the name of a Python module"),
        ("json:JSONDecoder", "it lacks boils"),
        ("subprocess:Popen", "it lacks boils"),
    ],
)
def test_invalid_specs_are_refused(spec, says):
    with pytest.raises(InputError, match=says):
        KETTLES.build(spec)


def test_a_class_from_outside_is_built_by_its_module_and_name():
    spec = {"name": "tests.test_registry:Kettle", "litres": 1.5}
    assert KETTLES.build(spec).litres == 1.5


def test_a_class_from_outside_must_inherit_from_the_base():
    modules = Registry("module", {}, base=Fire)
    with pytest.raises(
        InputError, match="the class must inherit from Fire; it lacks Fire"
    ):
        modules.build("tests.test_registry:Kettle")
