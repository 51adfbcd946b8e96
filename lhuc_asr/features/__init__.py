"""Log-mel filterbanks and MFCC, normalised per speaker, in memory-mapped stores, with context splicing."""
