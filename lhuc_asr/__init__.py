"""lhuc_asr: speaker adaptation of DNN acoustic models with Learning Hidden Unit Contributions.

```
recognizer = lhuc_asr.load("exp/an4")
alice = recognizer.adapt(["a.wav", "b.wav"])
recognizer.transcribe("c.wav", speaker=alice)
```
"""

from typing import TYPE_CHECKING

from lhuc_asr.base.version import __version__

if TYPE_CHECKING:
    from lhuc_asr.recognizer.recognizer import load

__all__ = ["__version__", "load"]


def __getattr__(name: str) -> object:
    """``load`` brings torch with it, seconds: not before it is asked for."""
    if name == "load":
        from lhuc_asr.recognizer.recognizer import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
