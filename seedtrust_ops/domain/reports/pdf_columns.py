"""Fits the columns of a table in a PDF to their content: how wide each is, and in which size all of them are printed.

What is drawn in them is in `pdf_writer`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIZES = (8.0, 7.5, 7.0, 6.5, 6.0)
"""In points, the preferred one first."""
MIN_WIDTH = 5.0
STEP = 1.0


@dataclass(frozen=True)
class ColumnContent:
    """The content of one column, in mm per point of size: its cells on one line each, and what must not be broken."""

    cells: Sequence[float]
    least: float


def fit_columns(columns: Sequence[ColumnContent], available: float, margins: float) -> tuple[float, list[float]]:
    """Return the size in points and the widths of the columns in mm, which add up to `available`.

    Nothing is broken that should stay whole, if the smallest size allows that. Beyond this, the widths are those with
    which the table is shortest.

    Args:
        columns: the content of each column, with the same number of cells.
        available: the width of the page without its margins, in mm.
        margins: what each cell needs beside its content, in mm.
    """
    room = available - margins * len(columns)
    size = next((size for size in SIZES if size * sum(one.least for one in columns) <= room), SIZES[-1])
    widths = _narrow(np.array([size * one.least for one in columns]), room)
    cells = size * np.array([one.cells for one in columns]).T
    while widths.sum() + STEP <= room:
        length = _length(cells, widths)
        wider = widths + STEP * np.eye(len(columns))
        gains = [length - _length(cells, one) for one in wider]
        if max(gains) <= 0:
            break
        widths = wider[int(np.argmax(gains))]
    widths += max(room - widths.sum(), 0.0) / len(columns)
    return size, [float(width) + margins for width in widths]


def _length(cells: NDArray[np.float64], widths: NDArray[np.float64]) -> float:
    """Return about how many lines the table has; parts of a line count too, so that each step may be a gain."""
    return float(np.maximum(cells / widths, 1.0).max(axis=1, initial=1.0).sum())


def _narrow(widths: NDArray[np.float64], room: float) -> NDArray[np.float64]:
    """Narrow the widest columns until all fit: short words stay whole, and long ones are broken."""
    limit = float(widths.max())
    while np.minimum(widths, limit).sum() > room and limit > MIN_WIDTH:
        limit -= STEP
    return np.minimum(widths, limit)
