"""What all charts share: the palette. Matplotlib is imported where a chart is drawn."""

from __future__ import annotations

STYLES = (("#000000", "o"), ("#E69F00", "s"), ("#0072B2", "^"), ("#009E73", "D"), ("#D55E00", "v"), ("#CC79A7", "P"))
"""Colours that colour-blind readers tell apart (Okabe and Ito), each with a marker of its own."""
