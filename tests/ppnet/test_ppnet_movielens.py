"""A small MovieLens by hand: who goes where, and what an example may know of the past."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from lhuc_asr.base.errors import ExamplesError
from lhuc_asr.ppnet.movielens import MovieLensConfig, write_movielens

FILMS = """movieId,title,genres
1,Toy Story (1995),Animation|Comedy
2,"Postman, The (1994)",Drama
3,Untitled,(no genres listed)
4,2001 (1968),Sci-Fi
"""
# User 7's are out of order; films 1 and 4 are rated in the same second.
RATINGS = """userId,movieId,rating,timestamp
7,4,5.0,200
7,1,4.0,200
7,2,4.5,100
7,3,3.5,300
7,1,4.0,500
8,1,0.5,50
"""


def write(folder: Path, ratings: str = RATINGS, films: str = FILMS, **options: Any) -> dict[str, list[dict[str, Any]]]:
    (folder / "ratings.csv").write_text(ratings)
    (folder / "movies.csv").write_text(films)
    config = MovieLensConfig(dir=folder, **({"valid": 0.2, "test": 0.2} | options))
    write_movielens(config, folder / "out")
    return {
        split: pq.read_table(folder / "out" / f"{split}.parquet").to_pylist() for split in ("train", "valid", "test")
    }


def test_each_users_ratings_are_split_by_time(tmp_path: Path) -> None:
    splits = write(tmp_path)
    places = {split: [(row["user"], row["movie"], row["timestamp"]) for row in rows] for split, rows in splits.items()}
    assert places == {
        "train": [(7, 2, 100), (7, 1, 200), (7, 4, 200), (8, 1, 50)],
        "valid": [(7, 3, 300)],
        "test": [(7, 1, 500)],
    }


def test_an_example_knows_the_film_and_what_is_older(tmp_path: Path) -> None:
    splits = write(tmp_path)
    rows = {(row["user"], row["timestamp"], row["movie"]): row for split in splits.values() for row in split}
    assert rows[7, 200, 1] == {
        "user": 7,
        "movie": 1,
        "genres": ["Animation", "Comedy"],
        "decade": "1990s",
        "history": [2],
        "click": True,
        "full": False,
        "timestamp": 200,
    }
    assert rows[7, 200, 4]["history"] == [2]  # film 1 is of the same second
    assert (
        rows[7, 300, 3] | {"history": [2, 1, 4], "genres": [], "decade": "unknown", "click": False} == rows[7, 300, 3]
    )
    assert rows[7, 500, 1]["history"] == [2, 1, 4]  # film 3 was not liked
    assert rows[8, 50, 1]["history"] == []
    assert [(row["click"], row["full"]) for row in (rows[7, 200, 4], rows[8, 50, 1])] == [(True, True), (False, False)]


def test_the_history_is_of_the_latest(tmp_path: Path) -> None:
    assert write(tmp_path, history=2)["test"][0]["history"] == [1, 4]


def test_a_film_that_no_line_describes_is_an_error_unless_it_is_to_be_left_out(tmp_path: Path) -> None:
    ratings = RATINGS + "9,77,5.0,10\n"
    with pytest.raises(ExamplesError, match=r"ratings\.csv: user 9 rated film 77, which is not in.*1 of 7.*=skip"):
        write(tmp_path, ratings)
    assert write(tmp_path, ratings, unknown_films="skip") == write(tmp_path)


@pytest.mark.parametrize(
    ("ratings", "message"),
    [
        ("userId,movieId,timestamp\n1,1,1\n", "not a ratings.csv of MovieLens .*'rating'"),
        ("userId,movieId,rating,timestamp\n1,1,4.0,1\n1,1,good,1\n", r"ratings\.csv: .*Row #3.*'good'"),
        ("userId,movieId,rating,timestamp\n", r"ratings\.csv: has no rows below"),
        ("userId,movieId,rating,timestamp\n1,1,,2\n", r"ratings\.csv: row 1, column 'rating': the cell is empty"),
        ("userId,movieId,rating,timestamp\n1,1,inf,2\n", r"ratings\.csv: row 1: the rating is not a finite number"),
        ("userId,movieId,rating,timestamp\n1,1,4,2\n", r"ratings\.csv: no user has enough .* one in the valid split"),
    ],
)
def test_another_layout_is_refused(ratings: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ExamplesError, match=message):
        write(tmp_path, ratings)
    assert not (tmp_path / "out").exists()


def test_a_film_that_appears_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExamplesError, match=r"movies\.csv: film 2 appears twice; keep one of its lines"):
        write(tmp_path, films=FILMS + "2,Postman (1994),Comedy\n")


@pytest.mark.parametrize("genres", ["Animation||Comedy", "|Animation|Comedy|", "Animation| |Comedy"])
def test_a_genre_without_a_name_is_none(genres: str, tmp_path: Path) -> None:
    assert write(tmp_path, films=FILMS.replace("Animation|Comedy", genres)) == write(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExamplesError, match=r"movies\.csv"):
        write_movielens(MovieLensConfig(dir=tmp_path), tmp_path / "out")


def test_a_rating_that_is_not_a_number_is_named(tmp_path: Path) -> None:
    ratings = RATINGS.replace("7,2,4.5,100", "7,2,nan,100")
    with pytest.raises(ExamplesError, match=r"ratings\.csv: row 3, column 'rating': the cell is empty"):
        write(tmp_path, ratings)
