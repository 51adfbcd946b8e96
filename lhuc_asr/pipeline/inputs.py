"""The check of all files that a recipe names, before hours of work."""

from __future__ import annotations

from lhuc_asr.base.local_path import check_inputs
from lhuc_asr.corpus.noise import check_clips
from lhuc_asr.pipeline.config import ExperimentConfig


def check_files(config: ExperimentConfig) -> None:
    """Refuse missing files and folders; no recording is opened.

    Raises:
        ConfigError: A path of the recipe does not exist.
        CorpusError: The corpus lacks the pronunciations that come with it, or the noise a class or a clip.
    """
    check_inputs(config)
    config.corpus.lexicon_path()
    if config.noise is not None:
        check_clips(config.noise)
