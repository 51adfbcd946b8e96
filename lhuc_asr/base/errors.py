"""The errors that a user can cause, one class or more for each room.

Each is also the built-in error that a caller expects, so that ``except ValueError`` works. A message names the file,
line or id, what was found, what was expected, and what to do.
"""

# A message is one line that can be read. Its beginning says where, its end what to do; between them it may quote
# whole files, of others, and libraries, which say more than one line.
LONGEST_MESSAGE = 2000
_KEPT_OF_END = 500


class LhucError(Exception):
    """Base of all errors of this package."""

    def __str__(self) -> str:
        """The message in one line, with its middle left out where it is longer than ``LONGEST_MESSAGE``."""
        line = " ".join(filter(None, map(str.strip, super().__str__().splitlines())))
        if len(line) <= LONGEST_MESSAGE:
            return line
        return f"{line[: LONGEST_MESSAGE - _KEPT_OF_END]} [{len(line)} characters] {line[-_KEPT_OF_END:]}"


class ConfigError(LhucError, ValueError):
    """A configuration file or a key=value override does not fit its model."""


class OutputError(LhucError, OSError):
    """A file or a folder cannot be written."""


class CorpusError(LhucError, ValueError):
    """A corpus, a transcript or a recording does not fit its layout."""


class AudioError(CorpusError):
    """A recording cannot be used: it is unreadable, empty, truncated, or not finite."""


class DownloadError(LhucError, OSError):
    """A download failed, or brought another file than expected."""


class FeatureError(LhucError, ValueError):
    """Features cannot be computed or a feature store is damaged."""


class LexiconError(LhucError, ValueError):
    """A pronunciation lexicon is malformed, or lacks words that it must have."""


class LanguageModelError(LhucError, ValueError):
    """A language model cannot be estimated, or an ARPA file is malformed."""


class AlignmentError(LhucError, ValueError):
    """An utterance cannot be aligned, or an alignment does not fit its features."""


class TransformError(LhucError, ValueError):
    """A transform of features cannot be estimated or read, or does not fit the features."""


class SingularError(TransformError):
    """Statistics do not tell all features apart, so that a transform of them has no maximum."""


class GraphError(LhucError, ValueError):
    """A decoding graph cannot be built or read."""


class SearchError(LhucError, RuntimeError):
    """Decoding failed."""


class SearchBoundError(SearchError):
    """An utterance takes more memory than the search for its lattice may."""


class LatticeError(LhucError, ValueError):
    """A lattice is empty, damaged, or does not fit its vocabulary, its utterance or its network."""


class LatticeBoundError(LatticeError):
    """An utterance takes more memory or time than its lattices may."""


class ScoreError(LhucError, ValueError):
    """References and hypotheses cannot be compared."""


class CheckpointError(LhucError, ValueError):
    """A saved model or training state is damaged, or belongs to another model or run."""


class ExamplesError(LhucError, ValueError):
    """A table of ranking examples does not fit its schema: a column, a type, a value."""


class SiteError(LhucError, LookupError):
    """The pattern of a site matches no module, or the module's output cannot carry an amplitude."""


class SpeakerError(LhucError, LookupError):
    """A bank lacks a speaker or has them already, or the speaker's name cannot be a file name."""


class ModelMismatchError(LhucError, ValueError):
    """A speaker's amplitudes belong to another model."""


class FoldError(LhucError, ValueError):
    """Amplitudes cannot be folded into the weights exactly."""


class ExperimentError(LhucError, RuntimeError):
    """An experiment's folder is in use, damaged, or was made with other options."""


class MissingExtraError(LhucError, ImportError):
    """An optional dependency is not installed."""


class IncompatibleError(LhucError, ImportError):
    """Two libraries are installed in versions or builds that do not work together."""
