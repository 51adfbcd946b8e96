"""Decoding from which elements leave: refused where rows would count for others, because the batch keeps its size.

Whisper of transformers decodes long recordings window by window. A recording that is finished, or whose window need not
be decoded again, leaves the batch, and those after it move up. With a static cache the batch is filled up to its old
size with silence, so that no tensor shows it. The only place where it can be seen is the call that does it.
"""

from __future__ import annotations

import sys

import torch

from lhuc_asr.base.errors import SiteError

# The method of transformers' WhisperGenerationMixin that decodes a window of the recordings that are left.
_WINDOW = "generate_with_fallback"


def check_nobody_left() -> None:
    """Refuse to go on with several speakers in what is left of a batch of transformers' Whisper.

    Raises:
        SiteError: Elements have left the batch, or that method no longer says how many are left.
    """
    if torch.is_grad_enabled():  # decoding needs no gradient, and training should not search for it
        return
    frame = sys._getframe()
    while frame.f_back is not None and frame.f_code.co_name != _WINDOW:
        frame = frame.f_back
    if frame.f_code.co_name == _WINDOW and frame.f_locals.get("cur_bsz", 0) < frame.f_locals.get("batch_size", 1):
        raise SiteError(
            "recordings have left the batch that Whisper decodes, so that rows would count for others; "
            "decode one speaker at a time: bank.speaker(name)"
        )
