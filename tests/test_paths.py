import pytest

from fpn_jax import paths
from tests import conftest


def test_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert paths.expanded("~/runs/a") == f"{tmp_path}/runs/a"
    assert paths.expanded("runs/~a") == "runs/~a"


def test_paths_in_a_config_begin_in_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = conftest.tiny(data__source="folder", data__root="~/photos")
    assert config.data.root == f"{tmp_path}/photos"


def test_a_file_that_can_be_written_is_not_changed(tmp_path):
    path = tmp_path / "a.csv"
    paths.check_writable(path)
    assert not list(tmp_path.iterdir())
    path.write_text("kept")
    paths.check_writable(path)
    assert path.read_text() == "kept"


def test_a_file_that_cannot_be_written_raises_the_system_s_error(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file/a.csv", tmp_path, tmp_path / ("x" * 300)):
        with pytest.raises(OSError, match=r"Not a directory|Is a directory|too long"):
            paths.check_writable(path)
