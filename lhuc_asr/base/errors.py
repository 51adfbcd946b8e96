"""Every error that a user can cause, one class a room.

Each is also the built-in that a caller would expect, so that ``except ValueError`` still works. A message
names the file, line or id, what was found, what was expected, and what to do.
"""


class LhucError(Exception):
    """Base of all errors of this package."""


class ConfigError(LhucError, ValueError):
    """A configuration file or a key=value override does not fit its model."""


class CorpusError(LhucError, ValueError):
    """A corpus, a transcript or a recording is not what its layout promises."""


class AudioError(CorpusError):
    """One recording cannot be used: unreadable, empty, truncated, not finite."""


class DownloadError(LhucError, OSError):
    """A download failed, or what arrived is not what was asked for."""


class FeatureError(LhucError, ValueError):
    """Features cannot be computed or a feature store is damaged."""


class LexiconError(LhucError, ValueError):
    """A pronunciation lexicon is malformed, or does not cover what it must."""


class LanguageModelError(LhucError, ValueError):
    """A language model cannot be estimated, or an ARPA file is malformed."""


class AlignmentError(LhucError, ValueError):
    """An utterance cannot be aligned, or an alignment does not fit its features."""


class GraphError(LhucError, ValueError):
    """A decoding graph cannot be built or read."""


class SearchError(LhucError, RuntimeError):
    """Decoding failed."""


class ScoreError(LhucError, ValueError):
    """References and hypotheses cannot be compared."""


class CheckpointError(LhucError, ValueError):
    """A saved model or training state is damaged or belongs to something else."""


class ExamplesError(LhucError, ValueError):
    """A table of ranking examples is not what its schema promises: a column, a type, a value."""


class SiteError(LhucError, LookupError):
    """No module matches the pattern of a site, or its output cannot carry an amplitude."""


class SpeakerError(LhucError, LookupError):
    """A speaker is unknown to a bank, is there already, or has a name that no file can carry."""


class ModelMismatchError(LhucError, ValueError):
    """A speaker's amplitudes belong to another model."""


class FoldError(LhucError, ValueError):
    """Amplitudes cannot be folded into the weights exactly."""


class ExperimentError(LhucError, RuntimeError):
    """An experiment's folder is in use, damaged, or was made with other options."""


class MissingExtraError(LhucError, ImportError):
    """An optional dependency is not installed."""
