"""EM over Gaussian mixtures and the statistics of transforms, on one core, against their bare matrix products.

An iteration of training scores every frame with every Gaussian, to align, and sums over the Gaussians of each frame's
pdf. The products are those two, of the same shapes, in allocated memory. Aim: at most twice their time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from timing import Turns, show

from lhuc_asr.hmm.fmllr import estimate_fmllr, fmllr_statistics
from lhuc_asr.hmm.gmm import CACHED_DENSITIES, FEWEST_CACHED_FRAMES, DiagonalGmm
from lhuc_asr.hmm.lda_mllt import LdaStatistics, MlltStatistics
from lhuc_asr.hmm.posteriors import GaussianPosteriors
from lhuc_asr.hmm.row_updates import RowStatistics
from lhuc_asr.hmm.scatter import CACHED_FRAMES as SCATTER_FRAMES

AIM = 2
FRAMES = 20_000
# Name, Gaussians, pdfs, features: AN4's monophones and triphones, LibriSpeech's triphones.
CASES = (
    ("1,000 Gaussians of 105 pdfs", 1_000, 105, 39),
    ("4,000 of 500", 4_000, 500, 40),
    ("15,000 of 2,500", 15_000, 2_500, 40),
)
SPLICED, SPEAKERS, SPEAKER_FRAMES = 117, 32, 3_000


def main() -> None:
    """Measure with random Gaussians and frames."""
    torch.set_num_threads(1)
    show(
        f"{FRAMES:,} frames, one core: milliseconds of processor time, and over its matrix products (aim: {AIM})",
        ["model", "what", "ms", "products, ms", "ratio [quartiles]"],
        [row for case in CASES for row in measured(*case)],
    )
    gmm = random_gmm(4_000, 500, 40)
    turns = Turns(estimations(gmm), 5)
    show(
        f"Estimation of fMLLR from {SPEAKER_FRAMES:,} frames a speaker, 40 features, 40 sweeps over the rows",
        ["what", "ms"],
        [[name, f"{1000 * turns.of(name).median:.0f}"] for name in turns.seconds],
    )


def measured(name: str, gaussians: int, pdfs: int, dimension: int) -> list[list[object]]:
    """Rows of the table for a model."""
    gmm = random_gmm(gaussians, pdfs, dimension)
    features, aligned = random_frames(gmm, FRAMES)
    spliced = torch.randn(FRAMES, SPLICED)
    posteriors = gmm.posteriors(features, aligned)
    scoring, sums = score_products(gmm, features), block_products(posteriors, 2 * dimension)
    candidates: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "EM: log-likelihoods and statistics": (
            lambda: (gmm.log_likelihoods(features), gmm.accumulate(features, aligned)),
            lambda: (scoring(), sums()),
        ),
        "log-likelihoods": (partial(gmm.log_likelihoods, features), scoring),
        "statistics": (partial(gmm.accumulate, features, aligned), sums),
        "MLLT statistics": (
            partial(MlltStatistics.of, posteriors, gmm, features),
            scatter_products(posteriors, dimension, dimension),
        ),
        "fMLLR statistics": (
            partial(fmllr_statistics, "speaker", posteriors, gmm, features),
            scatter_products(posteriors, dimension, dimension + 1),
        ),
        "LDA statistics": (
            partial(LdaStatistics.of, spliced, aligned, pdfs),
            partial(torch.mm, spliced.double().T, spliced.double()),
        ),
    }
    rows: list[list[object]] = []
    for what, (whole, products) in candidates.items():
        turns = Turns({"whole": whole, "products": products}, 5)
        milliseconds = [f"{1000 * turns.of(part).median:.1f}" for part in ("whole", "products")]
        rows.append([name, what, *milliseconds, turns.ratio("whole", "products")])
    return rows


def random_gmm(gaussians: int, pdfs: int, dimension: int) -> DiagonalGmm:
    """Mixtures of random sizes."""
    generator = torch.Generator().manual_seed(1)
    pdf = torch.cat([torch.arange(pdfs), torch.randint(pdfs, (gaussians - pdfs,), generator=generator)]).sort().values
    sizes = torch.bincount(pdf)
    mean = torch.randn(gaussians, dimension, generator=generator)
    variance = 0.5 + torch.rand(gaussians, dimension, generator=generator)
    return DiagonalGmm(pdf, 1.0 / sizes[pdf], mean, variance, pdfs)


def random_frames(gmm: DiagonalGmm, frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames and the pdf of each."""
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(frames, gmm.mean.shape[1], generator=generator)
    return features, torch.randint(gmm.pdf_count, (frames,), generator=generator)


def score_products(gmm: DiagonalGmm, features: torch.Tensor) -> Callable[[], None]:
    """The product of all frames and all Gaussians, in the pieces that the model takes."""
    frames = max(FEWEST_CACHED_FRAMES, CACHED_DENSITIES // gmm.gaussians)
    values = torch.randn(len(features), 2 * gmm.mean.shape[1])
    weights = torch.randn(gmm.gaussians, values.shape[1])
    scores = torch.empty(gmm.gaussians, frames)

    def run() -> None:
        for part in values.split(frames):
            torch.mm(weights, part.T, out=scores[:, : len(part)])

    return run


def block_products(posteriors: GaussianPosteriors, columns: int) -> Callable[[], None]:
    """The scores of each block, and the sums with its posteriors."""
    values = torch.randn(len(posteriors.order), columns)
    weights, sums = torch.randn(posteriors.gaussians, columns), torch.empty(posteriors.gaussians, columns)
    scores = [torch.empty_like(block.weight) for block in posteriors.blocks]

    def run() -> None:
        for block, score in zip(posteriors.blocks, scores, strict=True):
            torch.mm(values[block.frames], weights[block.gaussians].T, out=score)
            torch.mm(block.weight.T, values[block.frames], out=sums[block.gaussians])

    return run


def scatter_products(posteriors: GaussianPosteriors, dimension: int, size: int) -> Callable[[], None]:
    """Means over the Gaussians of each frame, sums over the frames of each, and D sums of outer products."""
    frames, triangle = len(posteriors.order), size * (size + 1) // 2
    table, means = torch.randn(posteriors.gaussians, dimension), torch.empty(frames, dimension)
    outer, scatter = torch.randn(triangle, SCATTER_FRAMES), torch.empty(dimension, triangle)

    def run() -> None:
        for block in posteriors.blocks:
            torch.mm(block.weight, table[block.gaussians], out=means[block.frames])
            # MLLT's sums for each Gaussian, fMLLR's second half of the table: of one shape.
            torch.mm(block.weight, table[block.gaussians], out=means[block.frames])
        for part in means.split(SCATTER_FRAMES):
            torch.mm(part.T, outer[:, : len(part)].T, out=scatter)

    return run


def estimations(gmm: DiagonalGmm) -> dict[str, Callable[[], object]]:
    """The estimation of one speaker, and of many together."""
    features, aligned = random_frames(gmm, SPEAKER_FRAMES)
    one = fmllr_statistics("speaker", gmm.posteriors(features, aligned), gmm, features)
    many = RowStatistics.stacked([one] * SPEAKERS)
    return {"one speaker": partial(estimate_fmllr, one), f"{SPEAKERS} speakers": partial(estimate_fmllr, many)}


if __name__ == "__main__":
    main()
