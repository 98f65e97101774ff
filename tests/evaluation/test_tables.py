"""The table model: cells, columns of chance and of the untrained model, text, dictionaries and CSV."""

from __future__ import annotations

import csv
import io
import json
import math

import pytest

from medvl.evaluation import Cell, Column, Estimate, Row, Table
from medvl.evaluation.tables import CSV_COLUMNS, text_table, to_csv


def table(value=0.75, chance=0.5):
    columns = [Column("AUROC", compared=True, chart=True), Column("Cases")]
    rows = [
        Row("Edema", [Cell(value, (0.5, 1.0), chance=chance), Cell(4, spec="d")], note="rare"),
        Row("Fracture", [Cell(math.nan), Cell(0, spec="d")]),
        Row("Macro", [Cell(value, chance=chance), Cell()], summary=True),
    ]
    return Table("demo", "Demo", "Finding", columns, rows, description="What it is.", note="What to know.")


class TestCell:
    def test_of_an_estimate(self):
        cell = Cell.of(Estimate(0.5, 0.25, 0.75), ".1f", chance=0.1, note="n")
        assert cell == Cell(0.5, (0.25, 0.75), note="n", spec=".1f", chance=0.1)
        assert Cell.of(Estimate(0.5)).interval is None
        assert str(Cell.of(Estimate(0.5, 0.25, 0.75))) == str(Estimate(0.5, 0.25, 0.75))

    @pytest.mark.parametrize(
        ("cell", "value", "interval", "whole"),
        [
            (Cell(0.5, (0.25, 0.75)), "0.500", "0.250–0.750", "0.500 [0.250, 0.750]"),
            (Cell(-0.5, (-1, 0.1)), "-0.500", "-1.000 to 0.100", "-0.500 [-1.000, 0.100]"),
            (Cell(math.nan, (0.1, 0.2)), "n/a", "", "n/a"),
            (Cell(3, spec="d"), "3", "", "3"),
            (Cell(text="a"), "a", "", "a"),
            (Cell(2.0, (1.0, 3.0), text="two"), "two", "1.000–3.000", "two"),
            (Cell(), "", "", ""),
        ],
    )
    def test_texts(self, cell, value, interval, whole):
        assert (cell.value_text, cell.interval_text, str(cell)) == (value, interval, whole)

    def test_dictionary(self):
        cell = Cell(math.nan, chance=0.5, untrained=Cell(1.0, (0.0, 2.0)))
        expected = {"value": None, "interval": None, "chance": 0.5, "untrained": {"value": 1.0, "interval": [0.0, 2.0]}}
        assert cell.to_dict() == expected
        assert Cell(text="a", note="b").to_dict() == {"text": "a", "note": "b"}


class TestTable:
    def test_columns_of_chance_and_of_the_untrained_model(self):
        both = table().with_untrained(table(0.25))
        assert both.titles == ["AUROC", "Chance", "Cases", "Untrained AUROC"]
        assert list(map(str, both.rendered(both.rows[0]))) == [
            "0.750 [0.500, 1.000]",
            "0.500",
            "4",
            "0.250 [0.500, 1.000]",
        ]
        assert list(map(str, both.rendered(both.rows[2]))) == ["0.750", "0.500", "", "0.250"]
        assert table(chance=None).titles == ["AUROC", "Cases"]
        assert table().with_untrained(None) == table()

    def test_several_columns_of_chance_are_named_and_missing_rows_stay_empty(self):
        columns = [Column("A", compared=True), Column("B", compared=True)]
        first = Table("t", "T", "Row", columns, [Row("x", [Cell(1, chance=0), Cell(2, chance=0)])])
        other = Table("t", "T", "Row", columns[:1], [Row("x", [Cell(3)]), Row("y", [Cell(4)])])
        both = first.with_untrained(other)
        assert both.titles == ["A", "Chance A", "B", "Chance B", "Untrained A"]
        missing = first.with_untrained(Table("t", "T", "Row", columns, [Row("z", [Cell(3), Cell(4)])]))
        assert missing.titles == ["A", "Chance A", "B", "Chance B"]

    def test_text_has_a_rule_above_a_last_row_that_summarizes(self):
        lines = table().to_text().splitlines()
        assert lines[0].split() == ["Finding", "AUROC", "Chance", "Cases"]
        assert lines[-2] == lines[1]
        assert lines[-3].split() == ["Fracture", "n/a", "0"]

    def test_dictionary_and_csv(self):
        content = json.loads(json.dumps(table().to_dict(), allow_nan=False))
        assert content["rows"]["Edema"]["AUROC"] == {"value": 0.75, "interval": [0.5, 1.0], "chance": 0.5}
        both = table().with_untrained(table(0.25))
        lines = list(csv.DictReader(io.StringIO(to_csv({"protocol": "p", **r} for r in both.records()))))
        assert tuple(lines[0]) == CSV_COLUMNS
        assert [(line["row"], line["column"]) for line in lines] == [
            ("Edema", "AUROC"),
            ("Edema", "Cases"),
            ("Fracture", "AUROC"),
            ("Fracture", "Cases"),
            ("Macro", "AUROC"),
        ]
        assert list(lines[0].values()) == [
            "p",
            "demo",
            "Edema",
            "AUROC",
            "0.75",
            "0.5",
            "1.0",
            "",
            "0.5",
            "0.25",
            "0.5",
            "1.0",
        ]
        assert lines[2]["value"] == ""

    def test_a_spreadsheet_gets_what_is_read_with_the_ends_of_intervals(self):
        cells = [Cell(0.75, (0.5, 1.0), chance=0.5), Cell(-1, spec="d"), Cell(text="=1+2")]
        rows = [Row("@Edema", cells), Row("Fracture", [Cell(math.nan), Cell(), Cell(text="low, high")])]
        table = Table("t", "T", "Finding", [Column("AUROC", compared=True), Column("Cases"), Column("Text")], rows)
        lines = list(csv.reader(io.StringIO(table.with_untrained(table).to_csv())))
        assert lines[0] == [
            "Finding", "AUROC", "AUROC, low", "AUROC, high", "Chance", "Cases", "Text",
            "Untrained AUROC", "Untrained AUROC, low", "Untrained AUROC, high",
        ]  # fmt: skip
        assert lines[1] == ["'@Edema", "0.75", "0.5", "1.0", "0.5", "-1", "'=1+2", "0.75", "0.5", "1.0"]
        assert lines[2] == ["Fracture", "", "", "", "", "", "low, high", "", "", ""]

    def test_titles_stand_in_lower_case_after_a_word_unless_they_are_names(self):
        columns = [Column(name, compared=True) for name in ("Pointing game", "mIoU", "AUROC", "P", "k")]
        table = Table("t", "T", "Row", columns, [Row("x", [Cell(1)] * 5)])
        assert table.with_untrained(table).titles[5:] == [
            "Untrained pointing game", "Untrained mIoU", "Untrained AUROC", "Untrained P", "Untrained k"
        ]  # fmt: skip

    def test_a_row_of_another_width_is_refused(self):
        with pytest.raises(ValueError, match=r"^row 'x' must have a cell for each of the 1 columns of t, got 2\.$"):
            Table("t", "T", "Row", [Column("A")], [Row("x", [Cell(), Cell()])])


def test_text_table_draws_no_rule_above_an_only_row():
    assert text_table(["A", "B"], [["x", "1"]], rule_before_last=True) == "A  B\n-  -\nx  1"
