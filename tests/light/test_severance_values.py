"""``Severance`` as a value: what it accepts, how it is written and read, and which blocks it severs."""

import math

import pytest

from deop.errors import SettingError
from deop.severance import KINDS, PRESETS, Severance

DEFAULT = Severance("self", layers=(3,), residual=0.5, levels=())


def kind_of_mine(tokens):
    return tokens


@pytest.mark.parametrize(
    "text", [*KINDS, *PRESETS, "region:similarity=qk:neighbours=3:mlp=no:layers=-2/-1:residual=1/0.2"]
)
def test_text_is_read_as_it_is_written(text):
    value = Severance.parse(text)
    assert Severance.parse(value.text) == value


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("self:residual=0", "residual", 0.0), ("self:residual=0.25", "residual", 0.25), ("self:mlp=no", "mlp", False),
        ("self:mlp=FALSE", "mlp", False), ("self:mlp=0", "mlp", False), ("self:mlp=yes", "mlp", True),
        ("self:class_key=True", "class_key", True), ("self:class_key=1", "class_key", True),
        ("self:layers=1 2", "layers", (1, 2)), ("self:layers=-1", "layers", (-1,)), ("self:layers=", "layers", ()),
        ("self:layers=2/3:residual=1/0.5", "residual", (1.0, 0.5)), ("region:similarity=qk", "similarity", "qk"),
        ("region:uncovered=similar", "uncovered", "similar"), ("self:parallel=yes", "parallel", True),
        ("self:class_token=severed", "class_token", "severed"), ("self:gain=2.5", "gain", 2.5),
    ],
)  # fmt: skip
def test_fields_after_a_name(text, field, value):
    read = getattr(Severance.parse(text), field)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing", "unknown severance 'nothing': choose one of none, self"), ("", "unknown severance ''"),
        ("self:mlp", "'mlp' after severance 'self' is not a field and its value"),
        ("self:kind=gate", "'kind=gate' after severance 'self' is not a field"),
        ("self:text=x", "'text=x' after severance 'self' is not a field"),
        ("self:=1", "is not a field and its value: the fields are layers, residual"),
        ("self:nothing=1", "'nothing=1' after severance 'self' is not a field and its value"),
        ("self:gain=1=2", "'gain=1=2' after severance 'self': expected a number"),
        ("self:mlp=maybe", "'mlp=maybe' after severance 'self': expected yes or no"),
        ("self:gain=x", "expected a number, or several joined by /"),
        ("self:layers=x", "expected a number, or several joined by /"),
    ],
)  # fmt: skip
def test_texts_with_mistakes(text, message):
    with pytest.raises(SettingError) as caught:
        Severance.parse(text)
    assert message in str(caught.value)


def test_a_kind_keeps_the_other_fields_of_the_default_and_a_method_does_not():
    assert Severance.parse(None, DEFAULT) is DEFAULT
    assert Severance.parse(None) == Severance()
    assert Severance.parse(DEFAULT, Severance("gate")) is DEFAULT
    assert Severance.parse("gate", DEFAULT) == Severance("gate", layers=(3,), residual=0.5)
    assert Severance.parse("naclip", DEFAULT) == PRESETS["naclip"].severance
    mine = Severance.parse(kind_of_mine, DEFAULT)
    assert (mine.kind, mine.layers, mine.name) == (kind_of_mine, (3,), "kind_of_mine")
    with_levels = Severance("region", levels=(2, 3), similarity="k", neighbours=2.0)
    assert Severance.parse("none", with_levels).levels == ()
    assert Severance.parse("self", with_levels).levels == (2, 3)
    normalized = Severance.parse("affinity-normalized", with_levels)
    assert normalized == Severance("region", levels=(2, 3))
    assert Severance("affinity-normalized").kind == "region"
    proxy = Severance("region", similarity="proxy", residual=0.0, merge=0.2, shift=1.0)
    assert Severance.parse("affinity-normalized", proxy) == Severance("region", residual=0.0)


class Callable:
    def __call__(self, tokens):
        return tokens


def test_names_of_functions():
    assert Severance(Callable()).name == "Callable"
    assert Severance("self").name == "self"


@pytest.mark.parametrize(
    ("kind", "uses", "needs"),
    [("none", False, False), ("self", False, False), ("similar", False, False), ("gate", True, True),
     ("gate-normalized", True, True), ("affinity", True, True), ("region", True, True), (kind_of_mine, True, False)],
)  # fmt: skip
def test_masks(kind, uses, needs):
    assert (Severance(kind).uses_masks, Severance(kind).needs_masks) == (uses, needs)


def test_proxy():
    assert not any(Severance(kind, similarity="k").needs_proxy for kind in KINDS)
    for kind in KINDS:
        assert Severance(kind, similarity="proxy", residual=0.0).needs_proxy == (kind in ("similar", "region"))
    Severance("region", similarity="proxy", residual=(0,))
    for wrong in ({"class_key": True}, {"parallel": True}, {"layers": (-2, -1)}, {"residual": 1.0}, {"residual": (1,)}):
        with pytest.raises(SettingError, match='similarity="proxy" is defined for one severed layer'):
            Severance("region", similarity="proxy", **{"residual": 0.0, **wrong})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "x"}, "unknown severance 'x'"), ({"class_token": "x"}, "unknown class_token 'x'"),
        ({"similarity": "kq"}, "unknown similarity 'kq'"), ({"uncovered": "x"}, "unknown uncovered 'x'"),
        ({"layers": 3}, r"severed layers must be a list of integers such as \(-1,\), not 3"),
        ({"levels": "3"}, "levels must be a list of integers such as"),
        ({"residual": [1.0, 2.0]}, "2 residual weights for 1 severed layers"),
        ({"residual": (1.0,), "layers": (1, 2)}, "1 residual weights for 2 severed layers"),
        ({"neighbours": -0.1}, "neighbours must be a number of patches, 0 or more, not -0.1"),
        ({"neighbours": math.inf}, "neighbours must be a number"), ({"neighbours": math.nan}, "neighbours must be"),
        ({"shift": 1.0}, "shift applies to similarity"), ({"merge": 0.1, "similarity": "k"}, "merge applies to"),
        ({"levels": (1,), "kind": "none"}, "levels need a severed last layer"),
        ({"levels": (1,), "parallel": True}, "levels need a severed last layer"),
        ({"mlp": "no"}, "mlp must be True or False, not 'no'"), ({"gain": None}, "gain must be a number, not None"),
        ({"layers": (1.5,)}, "layers must be a tuple, each an integer"), ({"residual": "1"}, "residual must be"),
    ],
)  # fmt: skip
def test_values_that_do_not_fit_are_named(values, message):
    with pytest.raises(SettingError, match=message):
        Severance(**{"kind": "region", **values})


def test_lists_become_tuples():
    value = Severance("region", layers=[1, 2], residual=[0.5, 1], levels=[0])
    assert (value.layers, value.residual, value.levels) == ((1, 2), (0.5, 1), (0,))
    assert hash(value) == hash(Severance("region", layers=(1, 2), residual=(0.5, 1), levels=(0,)))
    Severance("region", neighbours=0)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Severance("none"), {}), (Severance("self"), {11: 1.0}), (Severance("self", layers=(-12, 0)), {0: 1.0}),
        (Severance("self", layers=(-2, -1), residual=(0.5, 0)), {10: 0.5, 11: 0.0}),
        (Severance("self", layers=(3, 11), residual=0.25, levels=(4, -2)), {3: 0.25, 11: 0.25}),
        (Severance("self", levels=(0, -12, 10)), {11: 1.0}), (Severance("self", layers=()), {}),
    ],
)  # fmt: skip
def test_severed_blocks(value, expected):
    assert value.residuals(12) == expected
    assert all(isinstance(weight, float) for weight in value.residuals(12).values())


@pytest.mark.parametrize("layer", [12, -13, 100])
def test_layers_that_the_encoder_lacks(layer):
    with pytest.raises(SettingError, match=f"cannot sever layer {layer}: the encoder has layers 0 to 11"):
        Severance("self", layers=(layer,)).residuals(12)


@pytest.mark.parametrize(("layers", "level"), [((-1,), 11), ((-1,), 12), ((-1,), -13), ((-1,), -1), ((3,), 2)])
def test_levels_that_do_not_precede_a_severed_last_layer(layers, level):
    with pytest.raises(SettingError, match=f"level {level} does not precede a severed last layer: .* layers 0 to 11"):
        Severance("self", layers=layers, levels=(level,)).residuals(12)


def test_the_record_of_a_result():
    assert Severance("none", gain=2.0).record() == {"severance": "none", "severed_layers": [], "residual": None}
    assert Severance("self").record() == {"severance": "self", "severed_layers": [-1], "residual": 1.0}
    assert Severance("region", layers=(1, 2), residual=0.5, similarity="k", mlp=False).record() == {
        "severance": "region", "severed_layers": [1, 2], "residual": 0.5,
        "severance_values": {"similarity": "k", "mlp": False},
    }  # fmt: skip


def test_the_text_has_what_differs_from_the_defaults():
    assert Severance().text == "none"
    assert Severance("similar", layers=(1, -1), residual=(1, 0.25), class_key=True, gain=2.0).text == (
        "similar:layers=1/-1:residual=1/0.25:gain=2:class_key=yes"
    )
