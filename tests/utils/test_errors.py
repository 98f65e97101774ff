"""The error of a study that cannot be used."""

from __future__ import annotations

import copy
import pickle

from medvl.utils.errors import StudyError


def test_one_sentence_that_survives_a_worker_process():
    error = StudyError("s17", "image", "the file does not exist")
    for twin in (error, pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert isinstance(twin, ValueError)
        assert str(twin) == "study 's17', image: the file does not exist"
        assert (twin.study_id, twin.key, twin.reason) == ("s17", "image", "the file does not exist")
