"""The docs' table of layouts is what the readers say of the cases now."""

from __future__ import annotations

import pytest

from tests.readers.layouts_page import PAGE, page

pytestmark = pytest.mark.usefixtures("own_datasets_cache", "no_datasets_bars")


def test_the_page_is_up_to_date():
    written, now = PAGE.read_text(encoding="utf-8"), page()
    assert now == written, "write it anew: python -m tests.readers.layouts_page"
    assert written.count("| read |") + written.count("| refused |") >= 60
