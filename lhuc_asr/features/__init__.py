"""Log-mel filterbanks and MFCC, normalised a speaker, spliced, in memory-mapped stores."""
