"""What every dictionary transform does: show its arguments, leave the study alone, name it in errors, forward seeds."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from monai.transforms import MapTransform, Transform
from monai.transforms.transform import Randomizable

import medvl.transforms
from medvl.transforms import PadToSquared, RandRadiographAffined, SplitSentencesd
from medvl.transforms.study import RandStudyMapTransform, StudyMapTransform, study_error_context, study_id_of
from medvl.utils.errors import StudyError

EXPORTED = {name: getattr(medvl.transforms, name) for name in medvl.transforms.__all__}
TRANSFORMS = {n: c for n, c in EXPORTED.items() if inspect.isclass(c) and issubclass(c, Transform)}
PAIRS = sorted({c for c in TRANSFORMS.values() if issubclass(c, MapTransform)}, key=lambda c: c.__name__)
VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_signatures_show_every_argument_with_its_type(name):
    transform = TRANSFORMS[name]
    parameters = inspect.signature(transform).parameters
    assert not [p for p in parameters.values() if p.kind in VARIADIC]
    assert all(p.annotation is not inspect.Parameter.empty for p in parameters.values())
    own = [p for p in inspect.signature(transform.__init__).parameters if p != "self"]
    if transform.__init__ is not object.__init__:
        assert list(parameters) == own


@pytest.mark.parametrize("transform", PAIRS)
def test_dictionary_transforms_state_their_signature_themselves(transform):
    # Sphinx and editors would else take that of MapTransform.__new__(*args, **kwargs).
    signature = transform.__dict__["__signature__"]
    assert next(iter(signature.parameters)) == "keys"
    assert list(signature.parameters)[-1] == "allow_missing_keys"
    assert signature.return_annotation is inspect.Signature.empty
    assert "__init__" in transform.__dict__


@pytest.mark.parametrize("transform", PAIRS)
def test_arguments_of_the_array_transform_come_back_with_the_same_defaults(transform):
    array = TRANSFORMS[transform.__name__.removesuffix("d")]
    given = inspect.signature(transform).parameters
    for name, parameter in inspect.signature(array, eval_str=True).parameters.items():
        assert given[name].annotation == parameter.annotation or parameter.default is inspect.Parameter.empty
        if parameter.default is not inspect.Parameter.empty:
            assert given[name].default == parameter.default


def test_sphinx_shows_the_signature():
    sphinx = pytest.importorskip("sphinx.util.inspect")
    for transform in PAIRS:
        assert "*args" not in sphinx.stringify_signature(sphinx.signature(transform))


def test_a_subclass_shows_its_own_arguments():
    class Tallerd(PadToSquared):
        def __init__(self, keys: str, extra: int = 3) -> None:
            super().__init__(keys)

    class Samed(PadToSquared):
        pass

    assert str(inspect.signature(Tallerd)) == "(keys: str, extra: int = 3)"
    assert inspect.signature(Samed) == inspect.signature(PadToSquared)


class Doubled(StudyMapTransform):
    def __init__(self, keys, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, lambda value: 2 * int(value), allow_missing_keys)


def test_results_replace_values_in_a_copy():
    study = {"a": 1, "b": 2, "c": 3}
    assert Doubled(["a", "b"])(study) == {"a": 2, "b": 4, "c": 3}
    assert study == {"a": 1, "b": 2, "c": 3}


def test_a_missing_key_is_an_error_unless_allowed():
    assert Doubled(["a", "z"], allow_missing_keys=True)({"a": 1}) == {"a": 2}
    with pytest.raises(KeyError, match="z"):
        Doubled(["a", "z"])({"a": 1})


def test_fixed_outputs_take_a_single_key():
    with pytest.raises(ValueError, match=r"^keys must be a single key, since .* fixed keys, got \['a', 'b'\]\.$"):
        SplitSentencesd(keys=["a", "b"])


@pytest.mark.parametrize("error", [TypeError, ValueError, OSError, FileNotFoundError])
def test_errors_of_a_value_name_study_and_key(error):
    with (
        pytest.raises(StudyError, match=r"^study 's3', age: no\.$") as raised,
        study_error_context({"study_id": "s3"}, "age"),
    ):
        raise error("no.")
    assert (raised.value.study_id, raised.value.key, raised.value.reason) == ("s3", "age", "no.")
    assert isinstance(raised.value.__cause__, error)


def test_a_study_error_passes_as_it_is():
    inner = StudyError("s1", "mask", "gone.")
    with pytest.raises(StudyError) as raised, study_error_context({"study_id": "s3"}, "age"):
        raise inner
    assert raised.value is inner


@pytest.mark.parametrize("error", [KeyError, RuntimeError, MemoryError, KeyboardInterrupt])
def test_other_errors_pass_as_they_are(error):
    with pytest.raises(error), study_error_context({}, "age"):
        raise error


def test_a_study_without_an_id():
    assert study_id_of({}) == "without an id"
    assert study_id_of({"study_id": 7}) == "7"


@pytest.mark.parametrize("transform", [c for c in PAIRS if issubclass(c, Randomizable)])
def test_random_transforms_share_one_base(transform):
    assert issubclass(transform, RandStudyMapTransform)


def test_the_array_transform_draws_from_the_given_state():
    rotate = RandRadiographAffined("image")
    assert rotate.set_random_state(seed=5) is rotate
    assert rotate.transform.R is rotate.R
    state = np.random.RandomState(3)
    rotate.set_random_state(state=state)
    assert rotate.transform.R is state
    rotate.randomize(torch.zeros(1, 4, 4))
    assert rotate.transform._draw == np.random.RandomState(3).uniform(size=8).tolist()


def test_a_random_view_of_what_is_no_image_names_the_study():
    with pytest.raises(StudyError, match=r"study 's7', image: image must have shape"):
        RandRadiographAffined("image")({"study_id": "s7", "image": torch.zeros(4, 4)})
