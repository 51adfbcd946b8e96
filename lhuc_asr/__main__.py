"""``python -m lhuc_asr`` is the command ``lhuc-asr``."""

from lhuc_asr.cli.entry import main

if __name__ == "__main__":
    main()
