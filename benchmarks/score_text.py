"""Print a score table as aligned text."""

from __future__ import annotations

from collections.abc import Sequence

from vlwm.core.evaluation.scores.score_table import ScoreTable


def table_text(table: ScoreTable) -> str:
    """Return the table as plain aligned text."""
    full = [table.columns, *(row for row in table.rows if len(row) > 1)]
    widths = [max(len(row[i]) for row in full) for i in range(len(table.columns))]

    def line(row: Sequence[str]) -> str:
        if len(row) == 1:
            return row[0]
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True)]
        return "  ".join(cells)

    return "\n".join([table.title, *map(line, [table.columns, *table.rows]), *table.sentences])
