"""Scores: the sheet, its table, intervals and strata."""
