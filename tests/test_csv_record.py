"""The CSV files that benchmarks fill, run by run."""

from __future__ import annotations

from pathlib import Path

import pytest

from lpcvc_zoo.errors import ZooError

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def record(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from csv_record import Record

    return lambda path: Record(path, ("model", "threads"), ("ms", "note"))


def test_what_is_measured_again_takes_its_old_place_and_the_rest_stays(record, tmp_path) -> None:
    path = tmp_path / "results" / "speed.csv"
    first, other = record(path), record(path)
    first.add([{"model": "one", "threads": 1, "ms": 2.5, "note": "a, b"}, {"model": "two", "threads": 1}])
    other.add([{"model": "three", "threads": 1}])
    first.add([{"model": "one", "threads": 1, "ms": 2.0}, {"model": "one", "threads": 2, "ms": 1.5}])
    expected = ["model,threads,ms,note", "one,1,2.0,", "two,1,,", "three,1,,", "one,2,1.5,"]
    assert path.read_text().splitlines() == expected
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "held",
    [
        b"model,ms\none,1.0\n",
        b"model,threads,ms,note\none,1,2.0\n",
        b"model,threads,ms,note\none,1,2.0,a, b\n",
        b"",
        b"\x89PNG\r\n",
        None,
    ],
    ids=["other columns", "a short line", "a long line", "empty", "no text", "a folder"],
)
def test_a_file_of_anything_else_is_an_error_at_once_and_stays_as_it_is(record, tmp_path, held) -> None:
    path = tmp_path / "speed.csv"
    path.mkdir() if held is None else path.write_bytes(held)
    with pytest.raises(ZooError, match=r"speed\.csv.*Name another --out"):
        record(path)
    assert held is None or path.read_bytes() == held
