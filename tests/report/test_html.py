"""The report page, with invented contents."""

import dataclasses
import re
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from markupsafe import Markup

from fpn_jax.report import html, plots
from tests.report import page as pages

ATTACK = '"><script>alert(1)</script>'


def section(anchor="answers", **changes):
    made = html.Section(anchor, "All answers", Markup("<p>Forty-<b>two</b>.</p>"))
    return dataclasses.replace(made, **changes)


def contents(**changes):
    entries = [
        {"step": step, "train/loss": 1 / step, "train/learning_rate": 0.1}
        for step in range(1, 101)
    ]
    entries.append({"step": 100, "validate/accuracy": 0.8, "validate/loss": 0.4})
    made = html.Contents(
        title="A run",
        config={"model": {"levels": (2, 3), "width": 256}, "seed": 0},
        environment={"jax": "0.10.2"},
        entries=entries,
        headline=html.Headline(
            "All questions answered.",
            (
                html.Number("Answer", "42", "of 42", (0.25, 0.5)),
                html.Number("Questions", "1"),
            ),
        ),
        sections=[section()],
        skipped=[("Train/Cat/666.jpg", "is empty")],
        split="validate",
        step=1234,
    )
    return dataclasses.replace(made, **changes)


@pytest.fixture
def read(tmp_path):
    def write_and_read(made):
        path = tmp_path / "made" / "report.html"
        html.write(path, made)
        return pages.read(path)

    return write_and_read


def test_page_is_self_contained_and_accessible(read):
    page = read(contents())
    pages.assert_self_contained(page)
    pages.assert_accessible(page)


def test_page_forbids_scripts_and_requests(read):
    policies = [
        attributes["content"]
        for attributes in read(contents()).all("meta")
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policies == [
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    ]


def test_styles_and_plots_fetch_nothing_and_have_a_dark_scheme(tmp_path):
    html.write(tmp_path / "report.html", contents())
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert set(re.findall(r"url\((.)", source)) <= {"#"}
    assert "@import" not in source
    assert "prefers-color-scheme: dark" in source
    assert "@media print" in source
    for role in plots.ROLES:
        assert role not in source


def test_same_contents_give_the_same_bytes(tmp_path):
    before = dict(matplotlib.rcParams)
    html.write(tmp_path / "a.html", contents())
    html.write(tmp_path / "b.html", contents())
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert dict(matplotlib.rcParams) == before


def test_page_shows_the_contents(read):
    page = read(contents(headline=html.Headline("Lead.", (), ("Beware.", "Careful."))))
    text = page.text
    assert "validation split" in text
    assert "Lead. Step 1,234 of the checkpoint" in text
    assert "Beware. Careful." in text
    assert "All answers Forty- two ." in text
    assert "model.levels [2, 3]" in text
    assert "jax 0.10.2" in text
    assert "Train/Cat/666.jpg is empty" in text
    assert "1 file could not be used and is excluded from all metrics." in text
    assert "Resolved config, 3 values" in text


def test_headline_numbers_have_notes_and_intervals(read):
    page = read(contents())
    assert "Answer 42 of 42 Questions 1 Step 1,234" in page.text
    styles = [attributes.get("style") for attributes in page.all("span")]
    assert "left:25.00%;width:25.00%" in styles


def test_sections_are_in_order_between_training_and_skipped_files(read):
    sections = [
        section("first"),
        section("left", paired=True),
        section("right", paired=True, label="Right one"),
        section("last"),
    ]
    page = read(contents(sections=sections))
    expected = ["training", "first", "left", "right", "last", "skipped", "config"]
    assert [attributes["id"] for attributes in page.all("section")] == expected
    assert [link["href"] for link in page.all("a")] == [f"#{a}" for a in expected]
    assert "All answers All answers Right one All answers Skipped files" in page.text
    pairs = [a for a in page.all("div") if a.get("class") == "pair"]
    assert len(pairs) == 1


def test_every_validation_metric_has_a_plot_and_accuracy_is_first(read):
    entries = [
        {"step": 1, "train/loss": 1.0, "train/learning_rate": 0.1},
        {"step": 1, "validate/loss": 0.5, "validate/absolute_error": 123.0},
        {"step": 2, "validate/accuracy": 0.9, "validate/absolute_error": 125.0},
    ]
    page = read(contents(entries=entries))
    titles = [
        "Loss",
        "Learning rate",
        "Validation accuracy",
        "Validation absolute error",
    ]
    labels = [a["aria-label"] for a in page.all("div") if a.get("role") == "img"]
    assert labels == [f"{title} by training step" for title in titles]
    assert "90 %" in page.text
    assert "124" in page.text


def test_only_a_long_loss_curve_is_smoothed(read):
    def loss(count):
        return [{"step": step, "train/loss": 1.0} for step in range(count)]

    validation = [{"step": 5, "validate/loss": 0.5}]
    assert "smoothed" not in read(contents(entries=loss(59) + validation)).text
    assert "smoothed validation" in read(contents(entries=loss(60) + validation)).text


def test_page_without_entries_sections_and_skipped_files(read):
    page = read(
        contents(entries=[], sections=[], skipped=[], config={}, environment={})
    )
    assert "The metrics have no entry of training." in page.text
    assert "No file was skipped." in page.text
    assert "Resolved config, 0 values" in page.text
    assert page.all("svg") == []


def test_page_with_a_single_entry(read):
    entry = {"step": 7, "train/loss": 0.5, "train/images_per_second": 800.4}
    text = read(contents(entries=[entry])).text
    assert "800 images/s" in text
    assert "Learning rate" not in text


def test_nonfinite_values_are_counted_but_not_plotted(read):
    entries = [{"step": 1, "train/loss": float("nan")}, {"step": 2, "train/loss": 1.0}]
    page = read(contents(entries=entries))
    assert "1 non-finite value not plotted" in page.text
    assert len(page.all("svg")) == 1
    page = read(contents(entries=entries[:1]))
    assert "1 non-finite value not plotted" in page.text
    assert page.all("svg") == []


def test_text_is_escaped(read):
    entries = [{"step": 1, f"validate/{ATTACK}": 1.0, "train/loss": 1.0}]
    page = read(
        contents(
            title=ATTACK,
            config={ATTACK: ATTACK},
            environment={ATTACK: ATTACK},
            entries=entries,
            headline=html.Headline(
                ATTACK, (html.Number(ATTACK, ATTACK, ATTACK),), (ATTACK,)
            ),
            sections=[section(ATTACK, title=ATTACK, label=ATTACK, html=ATTACK)],
            skipped=[(ATTACK, ATTACK)],
            split=ATTACK,
        )
    )
    assert not page.all("script")
    assert page.text.count(ATTACK) > 15


@pytest.mark.parametrize("anchor", ["answers", "training", "skipped", "config"])
def test_two_sections_with_one_anchor_are_refused(anchor):
    with pytest.raises(ValueError, match=f"are called '{anchor}'"):
        contents(sections=[section("answers"), section(anchor)])


def test_import_loads_neither_matplotlib_nor_jax():
    code = (
        "import sys, fpn_jax.report.html; "
        "sys.exit(bool({'matplotlib', 'jax'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_non_finite_config_value_is_shown(read):
    assert "rate NaN" in read(contents(config={"rate": np.nan})).text
