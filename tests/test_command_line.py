"""The flags `--config=FILE` and `--config.KEY=VALUE`."""

import subprocess
import sys

import pytest

from fpn_jax import command_line
from fpn_jax.errors import InputError
from tests.conftest import ROOT

FILE = """
import pathlib
from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

def get_config(variant="plain"):
    with (pathlib.Path(__file__).parent / "executed").open("a") as log:
        log.write(variant + "\\n")
    return ConfigDict({
        "data": {"source": {"name": "drawn", "seed": 3}, "quick": True, "size": 64},
        "head": {"name": "pool", "pool": "average", "levels": (2, 3)},
        "neck": {"name": "fpn", "width": 32, "context": {"name": "ppm", "bins": (1,)}},
        "train": {"rate": 0.5, "steps": placeholder(int)},
    })
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(FILE)
    return path


def read(file, *words):
    _, keys = command_line.split(["main", *words])
    return command_line.read(str(file), keys)


def test_config_words_are_separated_from_other_words():
    rest, keys = command_line.split(
        [
            *("main", "--mode=train", "--config=a.py", "--config.data.size=3"),
            *("--config.train.rate", "-1", "--noconfig.data.quick", "photos"),
            *("--config.data.quick", "--workdir=runs"),
        ]
    )
    assert rest == ["main", "--mode=train", "--config=a.py", "photos", "--workdir=runs"]
    assert keys == [
        *("--config.data.size=3", "--config.train.rate=-1"),
        *("--config.data.quick=false", "--config.data.quick"),
    ]


def test_reading_executes_the_config_file_once(file):
    given = read(f"{file}:mine", "--config.data.size=3", "--config.head=spp")
    assert given.config.data.size == 3
    assert (file.parent / "executed").read_text() == "mine\n"


def test_the_program_executes_the_config_file_once(tmp_path):
    """The program stops at an unknown backbone, after it has executed the file."""
    path = tmp_path / "config.py"
    path.write_text(
        "from configs import fpn\n\n"
        "def get_config(variant=''):\n"
        "    open(__file__ + '.log', 'a').write('x')\n"
        "    return fpn.get_config(variant)\n"
    )
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "fpn_jax.main", f"--config={path}"),
            *("--config.backbone.name=resnet19", f"--workdir={tmp_path}/run"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert "did you mean 'resnet18'" in ran.stderr
    assert (tmp_path / "config.py.log").read_text() == "x"


def test_values_keep_the_types_of_the_config_file(file):
    given = read(
        file,
        *("--config.train.rate=2", "--config.train.steps=7", "--noconfig.data.quick"),
        "--config.head.levels=(4,)",
    )
    assert given.config.train.rate == 2.0
    assert isinstance(given.config.train.rate, float)
    assert given.config.train.steps == 7
    assert given.config.data.quick is False
    assert given.config.head.levels == (4,)
    assert given.overridden == {
        *("train.rate", "train.steps", "data.quick", "head.levels"),
    }


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        # A string becomes a dict if an argument is set.
        (["--config.head.pool=gem"], "head.pool", "gem"),
        (
            ["--config.head.pool=gem", "--config.head.pool.p=3.0"],
            "head.pool",
            {"name": "gem", "p": 3.0},
        ),
        (
            ["--config.head.pool.p=3.0", "--config.head.pool=gem"],
            "head.pool",
            {"name": "gem", "p": 3.0},
        ),
        (["--config.head.pool.p=2"], "head.pool", {"name": "average", "p": 2}),
        # A new name of a nested choice drops the arguments of the config file.
        (["--config.neck.context=aspp"], "neck.context", {"name": "aspp"}),
        (["--config.neck.context.name=aspp"], "neck.context", {"name": "aspp"}),
        (
            ["--config.neck.context=ppm"],
            "neck.context",
            {"name": "ppm", "bins": (1,)},
        ),
        (["--config.data.source=folder"], "data.source", {"name": "folder"}),
        (
            ["--config.data.source=drawn", "--config.data.source.seed=4"],
            "data.source",
            {"name": "drawn", "seed": 4},
        ),
        # A part of the model keeps its arguments; `resolve` drops some of them.
        (["--config.neck=identity"], "neck.name", "identity"),
        (["--config.neck=identity"], "neck.width", 32),
        (["--config.neck.extra_levels=2"], "neck.extra_levels", 2),
        (["--config.neck.upsampling=bilinear"], "neck.upsampling", "bilinear"),
    ],
)
def test_names_and_arguments_of_choices_can_be_set(file, words, key, value):
    found = read(file, *words).config
    for name in key.split("."):
        found = found[name]
    assert (found.to_dict() if isinstance(value, dict) else found) == value


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--config.data.sise=3"], "--config.data key 'sise' is unknown; did you mean"),
        (["--config.dta.size=3"], "--config key 'dta' is unknown; did you mean 'data'"),
        (
            ["--config.data.size.x=3"],
            "--config.data.size is a single value and has no key",
        ),
        (["--config.train.rate=fast"], "could not convert string to float"),
        (["--config.train.steps=2.5"], "invalid literal for int"),
        (["--config.neck.width.x=3"], "'width' is a single value and has no keys"),
        (["--config.data.folder.x=1"], "is now named --config.data.source.x"),
        (["--config.data.tfds.name=m"], "is now named --config.data.source.dataset"),
        (["--config.head.pool_arguments={}"], "is now named --config.head.pool"),
    ],
)
def test_a_mistake_gives_an_error_of_one_line(file, words, says):
    with pytest.raises(InputError, match=says) as raised:
        read(file, *words)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def get_config(): return 3", "has no get_config"),
        ("x = 1", "has no get_config"),
        ("def get_config(", "was never closed"),
        ("def get_config(): raise KeyError('depth')", "depth"),
        ("import no_such_module", "no_such_module"),
    ],
)
def test_an_invalid_config_file_is_refused(tmp_path, text, says):
    (tmp_path / "config.py").write_text(text)
    with pytest.raises(InputError, match=says):
        read(tmp_path / "config.py")
