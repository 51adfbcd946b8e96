"""MovieLens as ranking examples: whether a user rates a film 4 or more, and whether they give it the full 5.

Reads the layout of GroupLens' releases since 2013 (ml-latest-small, ml-20m, ml-25m, ml-32m):

    ratings.csv   userId,movieId,rating,timestamp
    movies.csv    movieId,title,genres               a title ends in "(1995)"; genres as "Comedy|Drama"

The ratings of each user are ordered by time: the first go to training, the next to validation, the last to the test.
The history in an example is strictly older than its time stamp, because ratings of one session often have the same
second. Within a split, other users' ratings may be later: each user is split by time, the corpus is not split by date.

Source of the data: Harper and Konstan, "The MovieLens Datasets: History and Context", ACM TiiS 5(4), 2015.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from lhuc_asr.base.atomic import atomic_folder
from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.errors import ExamplesError
from lhuc_asr.base.extras import extra
from lhuc_asr.base.local_path import InputFolder
from lhuc_asr.ppnet.reader import READING_ERRORS
from lhuc_asr.ppnet.table_files import one_line

with extra("rank"):
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.csv as pacsv
    import pyarrow.parquet as pq

logger = logging.getLogger(__name__)

RATINGS = {"userId": pa.int64(), "movieId": pa.int64(), "rating": pa.float64(), "timestamp": pa.int64()}
FILMS = {"movieId": pa.int64(), "title": pa.string(), "genres": pa.string()}
NO_GENRES = "(no genres listed)"
YEAR = re.compile(r"\((\d{3})\d\)\s*$")

EXAMPLES = pa.schema(
    {
        "user": pa.int64(),
        "movie": pa.int64(),
        "genres": pa.list_(pa.string()),
        "decade": pa.string(),
        "history": pa.list_(pa.int64()),
        "click": pa.bool_(),
        "full": pa.bool_(),
        "timestamp": pa.int64(),
    }
)
# Number of ratings that are in memory as Python values, and go into one row group of each split.
CHUNK = 100_000


class MovieLensConfig(StrictModel):
    """Options of the examples made from MovieLens.

    Attributes:
        kind: Name of this kind of corpus in a recipe.
        dir: Folder of ratings.csv and movies.csv.
        valid: Share of each user's ratings for validation.
        test: Share of each user's ratings for the test.
        liked: Lowest rating that counts as a click, the first task.
        full: Lowest rating that counts for the second task.
        history: Length of the history: the films that the user liked last.
        unknown_films: Whether ratings of films that movies.csv lacks stop the run, or are left out with a warning. The
            releases have no such ratings.
    """

    kind: Literal["movielens"] = "movielens"
    dir: InputFolder
    valid: float = Field(0.1, gt=0.0, lt=0.5)
    test: float = Field(0.1, gt=0.0, lt=0.5)
    liked: float = Field(4.0, ge=-1e6, le=1e6)
    full: float = Field(5.0, ge=-1e6, le=1e6)
    history: int = Field(20, ge=1, le=1_000_000)
    unknown_films: Literal["error", "skip"] = "error"

    def paths(self) -> tuple[Path, Path]:
        """The files of films and of ratings."""
        return self.dir / "movies.csv", self.dir / "ratings.csv"


@dataclass(frozen=True, slots=True)
class Rating:
    """A line of ratings.csv."""

    movie: int
    rating: float
    timestamp: int


@dataclass(frozen=True, slots=True)
class Film:
    """A line of movies.csv; the decade is as "1990s", or "unknown" where the title does not name a year."""

    genres: list[str]
    decade: str


def write_movielens(config: MovieLensConfig, folder: Path) -> None:
    """Make a folder of ``train.parquet``, ``valid.parquet`` and ``test.parquet``.

    Raises:
        ExamplesError: A file is missing or of another layout, a rated film is missing in movies.csv or appears twice
            there, or a split would have no example.
    """
    films_file, ratings_file = config.paths()
    films = _films(films_file)
    ratings = _of_known_films(_read(ratings_file, RATINGS), films, config)
    order = [("userId", "ascending"), ("timestamp", "ascending"), ("movieId", "ascending")]
    with atomic_folder(folder) as temporary:
        writers = {
            split: pq.ParquetWriter(temporary / f"{split}.parquet", EXAMPLES) for split in ("train", "valid", "test")
        }
        waiting: dict[str, list[dict[str, object]]] = {split: [] for split in writers}
        for user, rated in _users(ratings.sort_by(order)):
            examples = list(_examples(user, rated, films, config))
            first_test = len(examples) - round(config.test * len(examples))
            first_valid = first_test - round(config.valid * len(examples))
            waiting["train"] += examples[:first_valid]
            waiting["valid"] += examples[first_valid:first_test]
            waiting["test"] += examples[first_test:]
            if sum(map(len, waiting.values())) >= CHUNK:
                _write(writers, waiting)
        _write(writers, waiting)
        for split, writer in writers.items():
            writer.close()
            if not pq.read_metadata(temporary / f"{split}.parquet").num_rows:
                raise ExamplesError(
                    f"{ratings_file}: no user has enough ratings of known films for one in the {split} split; give "
                    f"more ratings, or other shares than valid={config.valid:g}, test={config.test:g}"
                )


def _examples(
    user: int, rated: list[Rating], films: dict[int, Film], config: MovieLensConfig
) -> Iterator[dict[str, object]]:
    """The examples of a user's ratings, which are in the order of time."""
    liked: list[int] = []
    same_second: list[Rating] = []
    for rating in rated:
        if same_second and same_second[0].timestamp < rating.timestamp:
            liked += [earlier.movie for earlier in same_second if earlier.rating >= config.liked]
            same_second = []
        same_second.append(rating)
        film = films[rating.movie]
        yield {
            "user": user,
            "movie": rating.movie,
            "genres": film.genres,
            "decade": film.decade,
            "history": liked[-config.history :],
            "click": rating.rating >= config.liked,
            "full": rating.rating >= config.full,
            "timestamp": rating.timestamp,
        }


def _of_known_films(ratings: pa.Table, films: dict[int, Film], config: MovieLensConfig) -> pa.Table:
    known = pc.is_in(ratings["movieId"], pa.array(films, pa.int64()))
    unknown = ratings.filter(pc.invert(known))
    if unknown.num_rows and config.unknown_films == "error":
        first = unknown.slice(0, 1).to_pylist()[0]
        raise ExamplesError(
            f"{config.dir / 'ratings.csv'}: user {first['userId']} rated film {first['movieId']}, which is not in "
            f"movies.csv ({unknown.num_rows} of {ratings.num_rows} ratings are of such films); copy the release again, "
            "or leave them out with unknown_films=skip"
        )
    if unknown.num_rows:
        logger.warning("left out %d of %d ratings, of films that movies.csv lacks", unknown.num_rows, len(ratings))
    return ratings.filter(known)


def _users(ratings: pa.Table) -> Iterator[tuple[int, list[Rating]]]:
    """Yield each user and their ratings, from ratings sorted by user and time."""
    current = -1
    rated: list[Rating] = []
    for batch in ratings.to_batches(CHUNK):
        columns = (batch.column(name).to_pylist() for name in RATINGS)
        for user, movie, rating, timestamp in zip(*columns, strict=True):
            if user != current and rated:
                yield current, rated
                rated = []
            current = user
            rated.append(Rating(movie, rating, timestamp))
    if rated:
        yield current, rated


def _write(writers: dict[str, pq.ParquetWriter], waiting: dict[str, list[dict[str, object]]]) -> None:
    for split, rows in waiting.items():
        writers[split].write_table(pa.Table.from_pylist(rows, EXAMPLES))
        rows.clear()


def _films(path: Path) -> dict[int, Film]:
    films: dict[int, Film] = {}
    for row in _read(path, FILMS).to_pylist():
        if row["movieId"] in films:
            raise ExamplesError(f"{path}: film {row['movieId']} appears twice; keep one of its lines")
        genres = [genre for genre in row["genres"].split("|") if genre.strip() and genre != NO_GENRES]
        year = YEAR.search(row["title"])
        films[row["movieId"]] = Film(genres, f"{year[1]}0s" if year else "unknown")
    return films


def _read(path: Path, columns: dict[str, pa.DataType]) -> pa.Table:
    options = pacsv.ConvertOptions(column_types=columns, include_columns=list(columns), strings_can_be_null=False)
    try:
        # One thread: with more an error does not name its row.
        table = pacsv.read_csv(path, pacsv.ReadOptions(use_threads=False), convert_options=options)
    except (*READING_ERRORS, KeyError) as error:
        raise ExamplesError(
            f"{path}: not a {path.name} of MovieLens ({one_line(error)}); expected the columns {', '.join(columns)}"
        ) from error
    if table.num_rows == 0:
        raise ExamplesError(f"{path}: has no rows below the names of the columns; copy the release again")
    for name in columns:
        row = pc.index(pc.is_null(table[name], nan_is_null=True), True).as_py()
        if row >= 0:
            raise ExamplesError(f"{path}: row {row + 1}, column {name!r}: the cell is empty; copy the release again")
    if "rating" in columns and (row := pc.index(pc.is_finite(table["rating"]), False).as_py()) >= 0:
        raise ExamplesError(f"{path}: row {row + 1}: the rating is not a finite number; copy the release again")
    return table
