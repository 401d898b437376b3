"""One dataclass is the flags, the YAML keys and the defaults; whatever is wrong is one clear error."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from product_retrieval.errors import OptionsError
from product_retrieval.options import parse


@dataclass(frozen=True, slots=True, kw_only=True)
class Oven:
    """An oven."""

    degrees: int = 180
    """Heat in degrees Celsius."""
    has_fan: bool = False
    """Whether air is moved."""

    def __post_init__(self) -> None:
        if self.degrees < 0:
            raise ValueError(f"--oven.degrees must be at least 0, not {self.degrees}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bake:
    """What to bake, and how."""

    output: str
    """Where it goes."""
    oven: Oven = field(default_factory=Oven)
    size: Literal["small", "large"] = "small"
    """How much."""
    num_eggs: int | None = None
    """Eggs; None leaves them out."""
    minutes: tuple[int, ...] = (30,)
    """When to look."""
    share: float = 0.5
    """Of the flour."""
    is_sweet: bool = True
    """Whether there is sugar."""


def bake(*words: str) -> Bake:
    return parse(Bake, words, program="bake", description="Bake.")


def write(tmp_path: Path, text: str) -> str:
    (tmp_path / "bake.yaml").write_text(text)
    return str(tmp_path / "bake.yaml")


def test_flags_set_fields_and_the_rest_are_defaults() -> None:
    assert bake("--output", "table", "--oven.degrees=200", "--oven.has-fan", "--num-eggs", "2") == Bake(
        output="table", oven=Oven(degrees=200, has_fan=True), num_eggs=2
    )


def test_yaml_sets_the_same_fields_as_flags(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "output: table\noven:\n  degrees: 200\n  has_fan: true\nnum_eggs: 2\nminutes: [10, 20]\n"
        "share: 0.25\nis_sweet: false\nsize: large\n",
    )
    assert bake("--config", path) == bake(f"--config={path}")
    assert bake("--config", path) == Bake(
        output="table",
        oven=Oven(degrees=200, has_fan=True),
        num_eggs=2,
        minutes=(10, 20),
        share=0.25,
        is_sweet=False,
        size="large",
    )


@pytest.mark.parametrize("config_first", [True, False])
def test_flags_win_over_yaml_wherever_they_stand(tmp_path: Path, config_first: bool) -> None:
    config = ["--config", write(tmp_path, "output: table\nnum_eggs: 2\nminutes: [10, 20]\nis_sweet: false\n")]
    flags = ["--num-eggs", "5", "--minutes", "7", "--is-sweet"]
    found = bake(*config, *flags) if config_first else bake(*flags, *config)
    assert found == Bake(output="table", num_eggs=5, minutes=(7,), is_sweet=True)


def test_null_in_yaml_is_none(tmp_path: Path) -> None:
    assert bake("--config", write(tmp_path, "output: x\nnum_eggs: null\n")).num_eggs is None


def test_empty_yaml_changes_nothing(tmp_path: Path) -> None:
    assert bake("--config", write(tmp_path, "# nothing\n"), "--output", "x") == Bake(output="x")


@pytest.mark.parametrize("value", ["-5 below", "--output", "a b", "s3://shop/a=b", "#1", "{title}. {text}"])
def test_value_in_yaml_may_look_like_anything(tmp_path: Path, value: str) -> None:
    assert bake("--config", write(tmp_path, f'output: "{value}"\n')).output == value


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "output"),
        (("--output", "x", "--speed", "9"), "speed"),
        (("--output", "x", "--num-eggs", "many"), "num-eggs"),
        (("--output", "x", "--size", "medium"), "size"),
        (("--output", "x", "--oven.degrees", "-1"), "--oven.degrees must be at least 0, not -1"),
        (("--config",), "--config needs the path of a YAML file"),
        (("--config", "nowhere.yaml"), "--config nowhere.yaml: No such file"),
        (("--config", "/"), "--config /: Is a directory"),
    ],
)
def test_wrong_option_is_one_line_that_names_it(words: tuple[str, ...], says: str) -> None:
    with pytest.raises(OptionsError) as raised:
        bake(*words)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("output: [unclosed\n", "not YAML"),
        ("- a\n- b\n", "expected option names with values, found a list"),
        ("just words\n", "expected option names with values, found a str"),
        ("on: 1\n", "is read by YAML as a bool: quote it"),
        ("oven:\n  5: 1\n", "is read by YAML as a int: quote it"),
        ("output: x\nspeed: 9\n", "speed"),
        ("output: x\noven: 200\n", "oven"),
        ("output: x\nsize: medium\n", "size"),
    ],
)
def test_wrong_yaml_is_one_line_that_says_so(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(OptionsError) as raised:
        bake("--config", write(tmp_path, text))
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


def test_yaml_that_is_not_utf8_is_a_wrong_option(tmp_path: Path) -> None:
    (tmp_path / "bake.yaml").write_bytes(b"output: caf\xe9\n")
    with pytest.raises(OptionsError, match=r"bake\.yaml"):
        bake("--config", str(tmp_path / "bake.yaml"))


def test_yaml_does_not_run_code(tmp_path: Path) -> None:
    path = write(tmp_path, f"output: !!python/object/apply:os.mkdir ['{tmp_path}/made']\n")
    with pytest.raises(OptionsError, match="not YAML"):
        bake("--config", path)
    assert not (tmp_path / "made").exists()


def test_help_names_every_option_and_ends_with_code_zero(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        bake("--help")
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    for name in ("--output", "--oven.degrees", "--num-eggs", "Heat in degrees Celsius", "Bake."):
        assert name in shown
