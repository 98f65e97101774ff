"""The evaluation protocols, each in a file of its own that registers it (:mod:`medvl.evaluation.registry`)."""
