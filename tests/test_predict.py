import csv
import io
import json
import os

import numpy as np
import pytest
from PIL import Image

from fpn_jax import predict
from fpn_jax.predict import Classifier


@pytest.fixture
def classifier():
    """Says how white an image is."""

    def probabilities(images):
        white = images.astype(np.float32).mean(axis=(1, 2, 3)) / 255
        return np.stack([1 - white, white], axis=1)

    return Classifier(probabilities, lambda x: x[:4, :4], ("black", "white"), 4)


NAMES = (b"a.png", b"not utf-8 \xff.png", b'two\nlines, "quoted".png', b"--x.png")


@pytest.fixture
def folder(tmp_path):
    for grey, name in enumerate(NAMES):
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
            Image.new("RGB", (8, 8), (85 * grey,) * 3).save(file, "png")
    (tmp_path / "broken.png").write_bytes(b"x")
    return tmp_path


@pytest.mark.parametrize("output", [None, "out.csv", "out.json"])
def test_files_of_any_name(classifier, folder, tmp_path, capfdbinary, output):
    given = None if output is None else str(tmp_path / output)
    assert predict.run(classifier, [str(folder)], given) == 1
    said = capfdbinary.readouterr().out
    content = said if output is None else (tmp_path / output).read_bytes()
    text = os.fsdecode(content)
    if output == "out.json":
        rows = json.loads(text)
    else:
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
    by_name = {os.path.basename(os.fsencode(row["path"])): row for row in rows}
    assert set(by_name) == {*NAMES, b"broken.png"}
    for grey, name in enumerate(NAMES):
        assert float(by_name[name]["probability_white"]) == pytest.approx(grey / 3)
    assert "none of JPEG" in by_name[b"broken.png"]["error"]
