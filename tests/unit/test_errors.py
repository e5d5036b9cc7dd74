"""What errors show, and to whom they can be handed."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from geventpool import ConfigError, errors
from geventpool.errors import GeventPoolError, printable, without_passwords
from geventpool.sqlalchemy.errors import TWINS

SECRET = "hunter2"


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError(SECRET)


@pytest.mark.parametrize("argument", ["password", "PGPASSWORD", "auth_token", "db_pwd"])
@pytest.mark.parametrize("value", [SECRET, 2, SECRET.encode(), [SECRET], {"a": SECRET}])
def test_the_value_of_an_argument_that_is_a_secret_is_not_shown(argument: str, value: Any) -> None:
    assert str(ConfigError(argument, value, "is wrong")) == f"{argument}=***: is wrong"


@pytest.mark.parametrize(
    "value",
    [
        {"password": ["a", SECRET]},
        {"password": ("a", SECRET)},
        {"passwd": SECRET.encode()},
        {"password": {"a": SECRET}},
        {"user": "shop", "nested": [{"secret": f"it's \"{SECRET}"}]},
        {b"password": SECRET},
        ("host", {"token": f"'{SECRET}'"}),
        f"mysql://shop:x {SECRET}@db/shop",
        f"mysql://sh/op:{SECRET}@db/shop",
        f"mysql://shop:x\n{SECRET}@db/shop",
        f"password='it\\'s {SECRET}' host=db",
        f"password=a'b{SECRET} host=db",
        f"password=b'{SECRET}' host=db",
        Unprintable(),
    ],
)
def test_no_form_in_which_a_value_may_come_shows_its_password(value: Any) -> None:
    assert SECRET not in str(ConfigError("connect", value, "is wrong"))


@pytest.mark.parametrize(
    "text",
    [
        "nothing to hide: 3 of 5 at http://db:80/path",
        "{'password': None, 'user': 'shop'}",
        "give host:port, as in db:3306",
    ],
)
def test_what_is_no_secret_is_left_as_it_is(text: str) -> None:
    assert without_passwords(text) == text


def test_text_of_others_moves_no_cursor_and_adds_no_line() -> None:
    assert printable("a\x1b[2J\nb\u202ec µ 数") == "a?[2J?b?c µ 数"


def all_errors() -> list[Any]:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    ours = [kind for kind in kinds if issubclass(kind, GeventPoolError)]
    return [*ours, *TWINS.values()]


@pytest.mark.parametrize("kind", all_errors())
def test_an_error_reaches_another_process(kind: type[Exception]) -> None:
    """Celery and multiprocessing pickle what a task has raised."""
    for value in (3, lambda: 0) if kind is ConfigError else (None,):
        made = kind("max_size", value, "give more") if value else kind("it is so")
        again = pickle.loads(pickle.dumps(made))
        assert type(again) is kind
        assert str(again) == str(made)
        assert getattr(again, "why", None) == getattr(made, "why", None)
    if kind is ConfigError:
        again = pickle.loads(pickle.dumps(kind("max_size", 0, "give 1")))
        assert (again.argument, again.value, again.cure) == ("max_size", 0, "give 1")


@pytest.mark.parametrize("part", ["a", "password", "://a:", "password=", "password ", "'", "@://"])
def test_a_long_text_is_searched_for_passwords_in_no_time(part: str) -> None:
    """From the square of its length on, each of these would take minutes."""
    text = part * 100_000
    assert len(without_passwords(text)) <= 3 * len(text)
    assert "secret" not in without_passwords(f"{text} ://me:secret@here")
