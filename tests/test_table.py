"""Reading tables and turning columns into inputs: what is understood, and what is refused with its place."""

from __future__ import annotations

import json

import numpy as np
import pytest

from balinp import InvalidArgumentError, ModelFileError, table
from balinp.schema import Column, Schema, choose_task, oddities
from balinp.table import read_table


def write(folder, content, name="t.csv"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.fixture
def read(tmp_path):
    return lambda content, text=(): read_table(write(tmp_path, content), text)


@pytest.mark.parametrize(
    "content",
    [
        "a,b\n1,x\n2.5,y\n",
        "a,b\r\n1,x\r\n2.5,y\r\n",
        "a,b\r1,x\r2.5,y\r",
        b"\xef\xbb\xbfa,b\n1,x\n2.5,y",
        '"a", b\n\n 1 , "x"\n2.5,y \n\n',
        "a;b\n1;x\n2.5;y\n",
        b"\xef\xbb\xbf\na\tb\r\n\r\n1\tx\r\n2.5\ty\r\n",
        '"a";"b"\n1; "x"\n2.5;y',
        "a,b\n1,x\n \t \n2.5,y\n  ",
    ],
    ids=[
        "plain",
        "crlf",
        "cr",
        "bom, no last line end",
        "quotes, blanks and blank lines",
        ";",
        "tab",
        "quotes and ;",
        "lines of blanks",
    ],
)
def test_the_same_table_in_many_writings(read, content):
    t = read(content)
    assert list(t.columns) == ["a", "b"]
    assert t.numbers("a").tolist() == [1, 2.5]
    assert t.text("b").tolist() == ["x", "y"]
    assert t.is_text("b")
    assert not t.is_text("a")


def test_quoted_cells_hold_commas_quotes_and_line_ends_and_lines_are_counted(read):
    t = read('a,b\n"x, ""y""\nz",1\n\nw,2\n')
    assert t.text("a").tolist() == ['x, "y"\nz', "w"]
    assert t.lines.tolist() == [2, 5]


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("a;b,c\n1;2,3\n", ["a;b", "c"]),  # both would do: the comma
        ("a (m,s);b\n1;2\n", ["a (m,s)", "b"]),  # the comma is in the header's text alone
        ('"a;b"\tc\n1\t2\n', ["a;b", "c"]),
        ('"a;b",c\n1,2\n', ["a;b", "c"]),
        ("a\n1;2\n", ["a"]),
    ],
)
def test_the_separator_is_the_one_that_fits(read, content, names):
    assert list(read(content).columns) == names


def test_cells_of_a_table_with_semicolons_are_counted_and_may_hold_commas(read):
    assert read('a;b\nx, y;1\n"u; v";2\n').text("a").tolist() == ["x, y", "u; v"]
    with pytest.raises(InvalidArgumentError, match=r"line 3: 3 cells where the header has 2; .*with semicolons in"):
        read("a;b\n1;2\n3;4;5\n")


@pytest.mark.parametrize("separator", [";", "\t"])
@pytest.mark.parametrize("cells", [["0,5", "1,5"], ["1", "-2,5e3"], [",5", "1"]])
def test_decimal_commas_are_refused_however_few(read, separator, cells):
    """Beside semicolons and tabs they are likely, and two or three different ones would pass for categories."""
    table = read(f"a{separator}b\n" + "".join(f"{cell}{separator}1\n" for cell in 3 * cells))
    with pytest.raises(InvalidArgumentError, match=r"column 'a': .* is not a number|reads as a number to people only"):
        table.is_text("a")
    with pytest.raises(InvalidArgumentError, match=r"is not a number"):
        table.numbers("a")


def test_few_kinds_that_are_no_decimals_stay_text_beside_semicolons(read):
    assert read("a;b\n" + "5%;1\n10%;2\n" * 9).is_text("a")
    assert read("a;b\n1,5;1\nx;2\n" * 1 + "2,5;1\ny;2\n" * 9).is_text("a")


def test_numbers_come_back_bit_for_bit(read):
    values = np.random.default_rng(0).standard_normal(1000) * 10.0 ** np.arange(-150, 150, 0.3)
    assert np.array_equal(read("a,b\n" + "".join(f"{v!r},1\n" for v in values.tolist())).numbers("a"), values)


def test_text_that_begins_late_in_the_file_keeps_its_first_cells(read, monkeypatch):
    monkeypatch.setattr(table, "_CHUNK", 3)
    cells = ["007", "1.50", "08", "09", "x", "y", "z", "v", "w"]
    assert read("a,b\n" + "".join(f"{c},1\n" for c in cells)).text("a").tolist() == cells
    assert read("a,b\n007,1\n", text=["a"]).text("a").tolist() == ["007"]


def test_underscores_make_text_not_numbers(read):
    assert read("a,b\n1_0,1\n2_0,2\n").is_text("a")


@pytest.mark.parametrize("cell", ["", " ", "NA", "n/a", "NaN", "nan", "null", "NULL", "None", "?", "#N/A", "-nan"])
def test_missing_cells_are_refused_by_line_and_column_in_numbers_and_text(read, cell):
    for other, use in (("1", "numbers"), ("x", "text")):
        t = read(f"a,b\n{other},1\n{other},1\n{cell},1\n")
        if cell == "-nan" and use == "text":
            continue
        with pytest.raises(InvalidArgumentError, match=r"line 4, column 'a': the cell is missing; .*--drop"):
            getattr(t, use)("a")


def test_numbers_refuse_text_and_infinity_by_line_and_column(read):
    with pytest.raises(InvalidArgumentError, match=r"line 3, column 'a': '1,5' is not a number"):
        read('a,b\n1,1\n"1,5",2\n').numbers("a")
    for cell in ("inf", "-Infinity", "1e999"):
        with pytest.raises(InvalidArgumentError, match=r"line 2, column 'a': the cell is infinite"):
            read(f"a,b\n{cell},1\n1,2\n").numbers("a")


def test_a_few_bad_cells_among_numbers_are_refused_many_make_text(read):
    with pytest.raises(InvalidArgumentError, match=r"line 3, column 'a': 'oops' is not a number, but most"):
        read("a,b\n1,1\noops,2\n3,3\n").is_text("a")
    assert read("a,b\n1,1\nx,2\ny,3\n").is_text("a")


TYPES = "n,c,b,y\n1,red,true,0.5\n2,blue,false,0.25\n3,red,true,1\n"


def test_encoding_and_decoding(read):
    t = read(TYPES)
    schema = Schema.from_table(t, ["y"], "regression")
    assert schema.columns == (Column("n", None, (1, 3)), Column("c", ("blue", "red")), Column("b", ("false", "true")))
    assert schema.inputs == 5
    assert schema.text_columns == {"c", "b"}
    assert schema.encode(t).tolist() == [[1, 0, 1, 0, 1], [2, 1, 0, 1, 0], [3, 0, 1, 0, 1]]
    assert schema.target(t).tolist() == [0.5, 0.25, 1]
    assert Schema.from_table(t, ["y", "n"], "regression").target(t).tolist() == [[0.5, 1], [0.25, 2], [1, 3]]
    assert Schema.from_json(schema.to_json()) == schema


def test_columns_are_found_by_name_and_extra_ones_are_ignored(read):
    schema = Schema.from_table(read(TYPES), ["y"], "regression")
    other = read("id,b,c,n\n?,false,red,7\n", schema.text_columns)
    assert schema.encode(other).tolist() == [[7, 0, 1, 1, 0]]


def test_categories_that_look_like_numbers_in_a_new_table(read):
    schema = Schema.from_table(read("c,d,y\n1,1,0\nx,2,0\n1,3,0\ny,4,0\n"), ["y"], "regression")
    assert schema.columns[0].categories == ("1", "x", "y")
    assert schema.encode(read("c,d\n1,5\n1,6\n", schema.text_columns)).tolist() == [[1, 0, 0, 5], [1, 0, 0, 6]]


def test_labels_are_text_or_whole_numbers(read):
    t = read("a,c,k,y\n1,u,3,0.5\n2,v,4,1\n3,u,3,2\n4,u,3,2\n")
    assert Schema.from_table(t, ["c"], "classification").target(t).tolist() == ["u", "v", "u", "u"]
    labels = Schema.from_table(t, ["k"], "classification").target(t)
    assert labels.dtype.kind == "i"
    assert labels.tolist() == [3, 4, 3, 3]
    with pytest.raises(InvalidArgumentError, match=r"line 2, column 'y': 0\.5 is no class label .*regression"):
        Schema.from_table(t, ["y"], "classification").target(t)


@pytest.mark.parametrize(
    ("values", "task"),
    [
        (["a", "b"] * 10, "classification"),
        (["true", "false"] * 10, "classification"),
        ([0, 1] * 10, "classification"),
        (list(range(10)) * 10, "classification"),
        (list(range(11)) * 10, "regression"),
        ([0, 1, 2] * 9, "regression"),
        ([0] * 30 + [1], "classification"),
        ([0, 1] * 10 + [2], "regression"),
        ([0.5, 1.5] * 10, "regression"),
        ([3] * 20, "regression"),
    ],
)
def test_automatic_task(read, values, task):
    t = read("x,y\n" + "".join(f"{i},{v}\n" for i, v in enumerate(values)))
    assert choose_task(t, ["y"])[0] == task
    assert choose_task(t, ["y"], "classification")[0] == "classification"
    assert choose_task(t, ["y", "x"])[0] == "regression" or values[0] in ("a", "true")


HUGE = {"columns": [{"name": "a", "categories": None, "range": [10**400, 1]}], "targets": ["y"]}


@pytest.mark.parametrize(
    "value", [HUGE, None, {}, [], {"columns": 3}, {"columns": [{}]}, "x", {"columns": [], "targets": 1}]
)
def test_a_foreign_schema_is_refused(value):
    with pytest.raises(ModelFileError, match="balinp fit --out"):
        Schema.from_json(value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty; give a CSV"),
        ("\n\n", "is empty; give a CSV"),
        ("a,b\n", "header but no rows"),
        ("1,2\n3,4\n", "no header: .*'1,2'"),
        ("a,a\n1,2\n", "'a' twice; rename"),
        ("a,\n1,2\n", "column 2 has no name"),
        ("a;b\n1\n", "uses ';'; save the table with commas"),
        ("a;b\tc\n1;2\t3\n", "uses ';'; save the table with commas"),
        ("a|b\n1|2\n", r"uses '\|'; save the table with commas"),
        ("1;2\n3;4\n", "no header: .*'1;2'"),
        ("a;b\n", "header but no rows"),
        ("a,b\n1,2\n3\n", "line 3: 1 cells where the header has 2"),
        ("a,b\n1,2\n3,4,5\n", "line 3: 3 cells where the header has 2"),
        ("a\n1\n\n2\n", "line 3: the line is blank"),
        ('a,b\n1,2\n"3,4\n', "line 3: unexpected end of data; check the quotes"),
        (b"a,b\n1,2\n\xff\xfe,3\n", "line 3: not UTF-8"),
        (b"PK\x03\x04\0\0", "binary or UTF-16"),
        ("a,b\n1,2\n".encode("utf-16"), "binary or UTF-16"),
    ],
)
def test_files_that_are_no_tables(read, content, words):
    with pytest.raises(InvalidArgumentError, match=words):
        read(content)


def test_paths_that_cannot_be_read(tmp_path):
    for path in (tmp_path, tmp_path / "none.csv"):
        with pytest.raises(InvalidArgumentError, match=r"cannot read .*give the path"):
            read_table(path)


@pytest.mark.parametrize("cell", ["{}%", "${}.40", '"1,{:03d}"', '"{},5"', "{} €", "-{}%", "1'{:03d}"])
def test_numbers_that_only_people_read_are_refused(read, cell):
    table = read("a,b\n" + "".join(f"{cell.format(i)},{i}\n" for i in range(20)))
    with pytest.raises(InvalidArgumentError, match=r"line 2, column 'a': .* reads as a number to people only"):
        table.is_text("a")


@pytest.mark.parametrize("cell", ["{}-01", "v{}", "{} m", "a,{}", "2024-01-{:02d}", "{}:30"])
def test_text_with_digits_stays_text(read, cell):
    assert read("a,b\n" + "".join(f'"{cell.format(i)}",{i}\n' for i in range(20))).is_text("a")


def test_few_kinds_named_by_shares_stay_text(read):
    assert read("a,b\n" + "".join(f"{10 * (i % 3)}%,{i}\n" for i in range(20))).is_text("a")


def test_oddities_are_noted_and_nothing_else_is(read):
    rows = [(i, 3 + i, i % 5, 7) for i in range(20)]
    table = read("id,year,x,y\n" + "".join(",".join(map(str, row)) + "\n" for row in rows))
    said = oddities(table, Schema.from_table(table, ["y"], "regression"), np.arange(20))
    assert [s.partition(" counts")[0] for s in said[:2]] == ["column 'id'", "column 'year'"]
    assert said[2:] == ["the target 'y' is 7 in every row: there is nothing to learn"]
    said = oddities(table, Schema.from_table(table, ["x"], "regression", ["id", "year"]), np.arange(20))
    assert said[0] == "column 'y' is 7 in every training row: what it does is not learnt"
    assert said[1].startswith(
        "the target 'x' holds 5 whole numbers, some of them in few rows, and is taken for an amount;"
    )
    assert len(said) == 2


def test_what_training_rows_do_not_tell_is_noted(read):
    """Categories that only other rows have, dates that are categories; a column with neither is not mentioned."""
    rows = [("abcdefgh"[max(i - 10, 0)], f"2024-01-{1 + i // 2:02d}", "uv"[i % 2], i) for i in range(18)]
    table = read("shop,day,kind,y\n" + "".join(",".join(map(str, row)) + "\n" for row in rows))
    schema = Schema.from_table(table, ["y"], "regression")
    assert oddities(table, schema, np.arange(18))[0].startswith("column 'day' holds dates, each a category of its own")
    shop, day, dates = oddities(table, schema, np.arange(12))
    assert shop.startswith(
        "column 'shop': 6 of its categories are in no training row ('c', 'd', 'e', 'f', 'g', … (6 in"
    )
    assert day.startswith("column 'day': 3 of its categories are in no training row ('2024-01-07', '2024-01-08', ")
    assert dates.startswith("column 'day' holds dates")
    (shop, *_) = oddities(table, schema, np.arange(17))
    assert shop == "column 'shop': a category is in no training row ('h')"


def test_rows_outside_the_range_of_the_fit_are_found_by_column(read):
    schema = Schema.from_table(read("a,b,c,y\n0,5,u,1\n2,6,v,2\n1,5,v,2\n"), ["y"], "regression")
    assert schema.columns[0].range == (0, 2)
    outside = schema.outside(read("a,b,c,y\n2,5,u,1\n2.1,5,v,1\n-1,5,u,1\n"))
    assert {name: where.tolist() for name, where in outside.items()} == {"a": [False, True, True]}
    assert Schema.from_json(json.loads(json.dumps(schema.to_json()))) == schema
