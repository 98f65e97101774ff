"""The papers' claims, tested on data that anyone can have.

``python -m evidence --full`` trains what the claims compare, measures it and writes results files; ``docs/evidence.md`` is made
from those. ``arms.py`` lists what is trained, ``claims/`` what is compared, ``measures.py`` how it is measured, and
``statistics.py`` how a verdict is reached.
"""
