"""Untrusted text loses every power over a terminal and a CI log, and nothing else."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, strategies as st

from leakaudit.report.escape import not_a_command, plain, shorten, without_surrogates


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("a\nb\r\tc", r"a\x0ab\x0d\x09c"),
        ("\x9b31m", r"\x9b31m"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("a\u2066b\u2069", r"a\u2066b\u2069"),
        ("conv\u200b1\ufeff", r"conv\u200b1\ufeff"),
        ("line\u2028break", r"line\u2028break"),
        ("lone\udcff", r"lone\udcff"),
        ("tag\U000e0041", r"tag\U000e0041"),
        ("::error file=a::b", r"\x3a:error file=a::b"),
        ("x ::set-output name=a::b", r"x \x3a:set-output name=a::b"),
        ("a##[group]b", r"a\x23#[group]b"),
        ("##vso[task.complete]", r"\x23#vso[task.complete]"),
    ],
)
def test_dangerous_text_is_written_out(text: str, shown: str) -> None:
    assert plain(text) == shown


@pytest.mark.parametrize(
    "name",
    [
        "features.0",
        "com.microsoft::FusedMatMul",
        "torch::nn::Conv2d",
        "C:\\m\\a b.onnx",
        "Größe 層 ✓",
    ],
)
def test_ordinary_names_stay_as_they_are(name: str) -> None:
    assert plain(name) == name


@given(st.text())
def test_any_text_comes_out_printable_and_on_one_line(text: str) -> None:
    shown = plain(text)
    categories = {unicodedata.category(character) for character in shown}
    assert not categories & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert len(shown.splitlines()) <= 1
    assert not shown.lstrip().startswith("::")
    assert "##[" not in shown
    shown.encode("utf-8")


@given(st.text(alphabet="a:# ["))
def test_no_finished_line_is_a_command(line: str) -> None:
    assert not not_a_command(line).lstrip().startswith("::")


def test_shorten_keeps_both_ends_and_the_limit() -> None:
    name = "encoder." + "block." * 20 + "query.weight"
    assert shorten(name, 60).startswith("encoder.")
    assert shorten(name, 60).endswith("query.weight")
    assert "..." in shorten(name, 60)
    assert [len(shorten(name, limit)) for limit in (16, 59, 60)] == [16, 59, 60]
    assert shorten("x" * 60, 60) == "x" * 60


def test_surrogates_become_text_that_can_be_encoded() -> None:
    assert without_surrogates("caf\udce9 \x1b é") == "caf\\udce9 \x1b é"
