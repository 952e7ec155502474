"""The report on dark pages and on phones: a picture for each ground, in the colours of the page."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest

pytest.importorskip("matplotlib")
import matplotlib
from PIL import Image

from hf_dynprune.report.charts import DARK_GROUND, DARK_INK
from hf_dynprune.report.page import Page, Picture, Section, as_html
from hf_dynprune.report.write import write_report
from tests.benchmarks.report_scale import make_run

PICTURE = re.compile(
    r'<picture><source media="\(prefers-color-scheme: dark\)" srcset="data:image/png;base64,([^"]+)">'
    r'<img src="data:image/png;base64,([^"]+)" alt="[^"]+"></picture>'
)


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("run")
    make_run(folder, 400, 4, classes=5)
    return write_report(folder).read_text(encoding="utf-8")


def pixels(base64_png: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(base64_png, validate=True))).convert("RGB"))


def rgb(color: str) -> list[int]:
    return [int(color[place : place + 2], 16) for place in (1, 3, 5)]


def test_each_picture_has_one_for_dark_pages(page):
    before = dict(matplotlib.rcParams)
    pairs = PICTURE.findall(page)
    assert len(pairs) == page.count("<img") > 4
    for dark, light in (map(pixels, pair) for pair in pairs):
        assert dark.shape == light.shape
        for picture, ground in ((dark, rgb(DARK_GROUND)), (light, [255, 255, 255])):
            corners = picture[[0, 0, -1, -1], [0, -1, 0, -1]]
            assert (corners == ground).all()
            assert (picture == ground).all(-1).mean() > 0.4
        assert (dark == rgb(DARK_INK)).all(-1).any()
        assert not (dark == 0).all(-1).any()  # nothing is black on dark
        assert not (dark == 255).all(-1).any()
    assert dict(matplotlib.rcParams) == before


def test_the_pictures_have_the_colours_of_the_page(page):
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert "color-scheme: light dark" in style
    (dark,) = re.findall(r"@media \(prefers-color-scheme: dark\) \{\s*:root \{(.*?)\}", style)
    assert f"--text: {DARK_INK}; --back: {DARK_GROUND};" in dark
    assert not re.search(r"img \{[^}]*background", style)


def test_nothing_is_wider_than_a_phone(page):
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page
    assert re.search(r"img \{[^}]*width: 100%; height: auto", style)
    assert re.search(r"\.table \{[^}]*overflow-x: auto", style)
    assert page.count("<table>") == page.count('<div class="table"><table>')


def test_a_picture_without_a_dark_one_is_shown_on_both():
    html = as_html(Page("title", [Section("section", pictures=[Picture("name", b"png", "alt")])]))
    assert '<picture><img src="data:image/png;base64,cG5n" alt="alt"></picture>' in html
