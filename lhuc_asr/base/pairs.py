"""Pairs of libraries that work in some versions only: another pair is refused where it is imported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

from lhuc_asr.base.errors import IncompatibleError
from lhuc_asr.base.foreign import reason_of


@contextmanager
def torchaudio_beside_torch() -> Iterator[None]:
    """Around an import of torchaudio, whose binary loads beside the torch that it was built for.

    Which pairs load is known to the binary alone: it depends on the versions, and on the builds, for CUDA or CPU.

    Raises:
        IncompatibleError: It does not load.
    """
    try:
        yield
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        torch, torchaudio = version("torch"), version("torchaudio")
        raise IncompatibleError(
            f"torchaudio {torchaudio} does not load beside torch {torch} ({reason_of(error)}); install the two in one "
            "version and from one index, such as: pip install torch==2.11.0 torchaudio==2.11.0"
        ) from error
