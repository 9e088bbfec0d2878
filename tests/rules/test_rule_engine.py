"""The rules on layers whose counts, ranks and outcomes are known from elsewhere."""

from __future__ import annotations

from dataclasses import replace

import pytest

from leakaudit.errors import UsageError
from leakaudit.findings import Finding, Severity
from leakaudit.rules.engine import LayerFacts, ModelFacts, apply, evaluate_layer
from leakaudit.rules.registry import load_rules

RULES = load_rules()
QUIET = ModelFacts(
    {
        "reaches_input": False,
        "complete": True,
        "furthest_size": 0,
        "position_embedding": False,
        "branch_sums": 0,
        "stops": 0,
        "unfollowed": 0,
    }
)


def conv(
    name: str, X: int, A: int, B: int, bound: int, gradient_bound: int, unread: int = 0
) -> LayerFacts:
    symbols = {
        "X": X,
        "A": A,
        "B": B,
        "bound": bound,
        "gradient_bound": gradient_bound,
        "redundant": A + B - bound,
        "unread": unread,
        "trainable": True,
        "weight_shared": False,
    }
    return LayerFacts(name, "conv", (f"{X}", f"{A}"), symbols)


def dense(**changes: int | bool) -> LayerFacts:
    symbols: dict[str, int | bool] = {
        "N": 192,
        "F": 100,
        "X": 192,
        "positions": 1,
        "has_bias": True,
        "bias_trainable": True,
        "trainable": True,
        "weight_shared": False,
        "bias_shared": False,
        "reads_input": False,
        "path_reaches": True,
        "input_exact": True,
    }
    return LayerFacts("fc", "linear", ("192", "100"), symbols | changes)


def found(layer: LayerFacts) -> dict[str, Finding]:
    return {finding.rule: finding for finding in apply(RULES, [layer], QUIET)}


# (X, A, B, rank bound, gradient-only bound) of lenet_main's four convolutions; the bounds equal the
# numerical ranks of the dense matrices for random weights and output gradients. 32x32 input, k5 p2,
# 3-12 s2, 12-16 s2, 16-12 s1, 12-3 s1. R-CONV reconstructs all of them.
LENET_MAIN = [
    conv("conv1", 3072, 900, 3072, 3072, 900),
    conv("conv2", 3072, 4800, 1024, 3072, 3072),
    conv("conv3", 1024, 4800, 768, 1024, 1024),
    conv("conv4", 768, 900, 192, 768, 768),
]
# R-GAP's published code runs 280 equations short in this layer and fails.
CNN6_D_SECOND = conv("conv2", 3468, 2160, 1620, 3188, 1968)


def test_every_layer_of_lenet_main_is_flagged_in_order() -> None:
    findings = apply(RULES, LENET_MAIN, QUIET)
    assert [(it.layer, it.rule, it.severity.value) for it in findings] == [
        ("conv1", "LA001", "high"),
        ("conv2", "LA001", "high"),
        ("conv2", "LA002", "high"),
        ("conv3", "LA001", "high"),
        ("conv3", "LA002", "high"),
        ("conv4", "LA001", "high"),
        ("conv4", "LA002", "high"),
    ]
    first = findings[0]
    for number in ("900", "3072"):
        assert number in first.message
    assert first.message.startswith("900 gradient constraints and 3072 weight constraints")
    assert (first.url, first.downgraded_because) == ("rules/LA001.toml", "")


def test_cnn6_d_is_flagged_by_the_count_and_downgraded_by_the_rank() -> None:
    findings = found(CNN6_D_SECOND)
    assert set(findings) == {"LA001", "LA007"}
    assert findings["LA001"].severity is Severity.NOTE
    because = findings["LA001"].downgraded_because
    assert "592 of the 2160 + 1620 equations are redundant" in because
    assert "underdetermined by 280" in because
    assert "not private" in because
    assert findings["LA007"].severity is Severity.MEDIUM
    assert "0.919" in findings["LA007"].message


@pytest.mark.parametrize(
    ("rank", "expected"),
    [
        (3468, None),
        (2775, Severity.MEDIUM),
        (2774, Severity.LOW),
        (1388, Severity.LOW),
        (1387, None),
    ],
)
def test_nearly_determined_from_two_fifths_on(rank: int, expected: Severity | None) -> None:
    finding = found(conv("c", 3468, 1000, 1000, rank, 1000)).get("LA007")
    assert (finding.severity if finding else None) == expected


# Random layers, X, unread, A, B, rank bound, gradient bound; last the numerical ranks of the dense
# matrix of both sets of equations and of the gradient constraints alone.
MEASURED = [
    (60, 0, 288, 288, 60, 60, 60, 60),
    (12, 0, 36, 12, 12, 10, 12, 10),
    (400, 0, 192, 132, 316, 192, 316, 192),
    (168, 0, 96, 80, 160, 96, 160, 96),
    (60, 30, 108, 120, 30, 30, 30, 30),
    (210, 30, 192, 24, 164, 156, 164, 156),
    (24, 12, 12, 6, 12, 12, 12, 12),
    (189, 126, 72, 72, 63, 60, 63, 60),
    (360, 160, 24, 240, 200, 24, 200, 24),
    (162, 54, 12, 12, 23, 12, 23, 12),
]


@pytest.mark.parametrize(
    ("X", "unread", "A", "B", "bound", "gradient_bound", "rank", "gradient_rank"), MEASURED
)
def test_high_exactly_where_the_rank_covers_what_is_read(
    X: int,
    unread: int,
    A: int,
    B: int,
    bound: int,
    gradient_bound: int,
    rank: int,
    gradient_rank: int,
) -> None:
    findings = found(conv("c", X, A, B, bound, gradient_bound, unread))
    solved = rank == X - unread
    assert any(it.severity is Severity.HIGH for it in findings.values()) == solved
    assert ("LA002" in findings) == (gradient_rank == X - unread)


@pytest.mark.parametrize("change", [{"trainable": False}, {"weight_shared": True}])
def test_gradient_constraints_need_the_gradient_of_one_use(change: dict[str, bool]) -> None:
    layer = LENET_MAIN[3]
    assert "LA002" in found(layer)
    assert "LA002" not in found(replace(layer, symbols={**layer.symbols, **change}))


def test_a_dense_layer_with_bias_reveals_its_input() -> None:
    finding = found(dense())["LA003"]
    assert finding.severity is Severity.HIGH
    assert "fc (192 inputs, 100 outputs)" in finding.message
    assert finding.remedy


@pytest.mark.parametrize(
    "change",
    [
        {"has_bias": False},
        {"bias_trainable": False},
        {"trainable": False},
        {"positions": 2},
        {"weight_shared": True},
        {"bias_shared": True},
    ],
)
def test_without_one_of_its_premises_it_does_not(change: dict[str, int | bool]) -> None:
    assert found(dense(**change)) == {}


def model(**symbols: int | bool | str) -> ModelFacts:
    defaults: dict[str, int | bool | str] = {
        "reaches_input": False,
        "complete": True,
        "reached": 0,
        "furthest": "",
        "furthest_size": 0,
        "furthest_known": "exactly",
        "input": "image",
        "input_size": 3072,
        "layers": 5,
        "unsupported": 0,
        "unsupported_names": "",
        "position_embedding": False,
        "branch_sums": 0,
        "stops": 0,
        "unfollowed": 0,
        "added_at": "",
        "branches": "",
        "stopped_by": "",
    }
    return ModelFacts(defaults | symbols)


def test_the_model_as_a_whole() -> None:
    assert apply(RULES, [], model()) == ()
    (reached,) = apply(RULES, [], model(reaches_input=True, reached=9, furthest_size=3072))
    assert (reached.rule, reached.severity, reached.layer) == ("LA004", Severity.CRITICAL, None)
    assert "image" in reached.message
    (features,) = apply(RULES, [], model(furthest="relu3", furthest_size=768))
    assert (features.rule, features.severity) == ("LA005", Severity.MEDIUM)
    assert "relu3 (768 numbers)" in features.message
    scaled = model(furthest="relu3", furthest_size=768, furthest_known="up to one unknown factor")
    assert "up to one unknown factor" in rules_of(scaled)["LA005"].message
    (gap,) = apply(RULES, [], model(complete=False, unsupported=2, unsupported_names="Foo, Bar"))
    assert (gap.rule, gap.severity) == ("LA006", Severity.MEDIUM)
    assert "2, by name Foo, Bar" in gap.message


def rules_of(facts: ModelFacts) -> dict[str, Finding]:
    return {finding.rule: finding for finding in apply(RULES, [], facts)}


def test_a_position_embedding_counts_where_the_path_reaches_the_input() -> None:
    reaches = {"reaches_input": True, "reached": 9, "furthest_size": 3072}
    finding = rules_of(model(**reaches, position_embedding=True, added_at="add_1"))["LA009"]
    assert (finding.severity, finding.layer) == (Severity.CRITICAL, None)
    assert "'image' starts at a parameter" in finding.message
    assert "(add_1)" in finding.message
    assert "LA009" not in rules_of(model(**reaches))
    assert "LA009" not in rules_of(model(position_embedding=True, added_at="add_1"))


def test_sums_of_branches_are_counted_where_the_path_gives_something() -> None:
    passes = {"furthest": "x", "furthest_size": 64, "branch_sums": 2, "branches": "add_1, add_2"}
    finding = rules_of(model(**passes))["LA010"]
    assert (finding.severity, finding.layer) == (Severity.LOW, None)
    assert "2 sum(s) of branches (add_1, add_2)" in finding.message
    assert "LA010" not in rules_of(model(**passes | {"branch_sums": 0}))
    assert "LA010" not in rules_of(model(**passes | {"furthest_size": 0}))


def test_a_dense_layer_on_the_record_itself() -> None:
    finding = found(dense(reads_input=True))["LA011"]
    assert (finding.severity, finding.layer) == (Severity.CRITICAL, "fc")
    assert finding.downgraded_because == ""
    assert "(192 numbers)" in finding.message
    # The bias is not what it takes: without one the path may come from above.
    assert "LA011" in found(dense(reads_input=True, has_bias=False))


@pytest.mark.parametrize(
    "change",
    [
        {"reads_input": False},
        {"path_reaches": False},
        {"trainable": False},
        {"weight_shared": True},
    ],
)
def test_the_record_stays_where_a_premise_is_missing(change: dict[str, int | bool]) -> None:
    assert "LA011" not in found(dense(**{"reads_input": True} | change))


def test_a_record_known_up_to_a_factor_is_not_the_record() -> None:
    finding = found(dense(reads_input=True, input_exact=False))["LA011"]
    assert finding.severity is Severity.HIGH
    assert "up to one unknown factor" in finding.downgraded_because


def test_a_stop_that_is_not_followed_is_no_note() -> None:
    stopped = {"stops": 2, "unfollowed": 1, "stopped_by": "pool (max_pool2d)"}
    finding = rules_of(model(**stopped))["LA012"]
    assert finding.severity is Severity.MEDIUM
    assert finding.message.endswith("no protection: 1 of 2.")


def test_stops_are_noted_where_the_input_is_not_reached() -> None:
    stopped = {"stops": 1, "stopped_by": "pool (max_pool2d)"}
    finding = rules_of(model(**stopped))["LA012"]
    assert (finding.severity, finding.layer) == (Severity.NOTE, None)
    assert "proven by counting" in finding.downgraded_because
    assert "does not reach the input 'image'. It stops at: pool (max_pool2d)." in finding.message
    assert "LA012" not in rules_of(model())
    assert "LA012" not in rules_of(model(**stopped, reaches_input=True, reached=9))


def test_model_findings_come_last_and_rules_in_any_order_give_the_same() -> None:
    facts = model(reaches_input=True, complete=False)
    layers = [dense(), *LENET_MAIN]
    findings = apply(RULES, layers, facts)
    assert [it.rule for it in findings[-2:]] == ["LA004", "LA006"]
    assert findings[0].layer == "fc"
    assert apply(tuple(reversed(RULES)), layers, facts) == findings


def test_fingerprints_outlive_training_and_tell_findings_apart() -> None:
    findings = apply(RULES, LENET_MAIN, QUIET)
    prints = [it.fingerprint for it in findings]
    assert len(set(prints)) == len(prints)
    # Recorded once: a change here makes every user's baseline stale.
    assert prints[0] == "672f54138e1f5bb5"
    frozen_elsewhere = replace(LENET_MAIN[0], symbols={**LENET_MAIN[0].symbols, "B": 3071})
    assert found(frozen_elsewhere)["LA001"].fingerprint == prints[0]
    reshaped = replace(LENET_MAIN[0], fingerprint_parts=("307", "2900"))
    assert found(reshaped)["LA001"].fingerprint != prints[0]


def test_a_hostile_layer_name_is_not_a_template() -> None:
    finding = found(replace(CNN6_D_SECOND, name="{bound}{X.__class__}"))["LA001"]
    assert "{bound}{X.__class__}" in finding.message


def test_a_symbol_that_is_not_stated_is_an_error() -> None:
    with pytest.raises(UsageError, match="rule LA003, layer fc: bias_shared has no value"):
        apply(RULES, [replace(dense(), symbols={"has_bias": True})], QUIET)
    with pytest.raises(
        UsageError, match="rule LA005, the model: no value for furthest, furthest_known, input"
    ):
        apply(RULES, [], ModelFacts({**QUIET.symbols, "furthest_size": 1}))


def test_one_rule_on_one_layer() -> None:
    first = next(rule for rule in RULES if rule.id == "LA001")
    match = evaluate_layer(first, {**CNN6_D_SECOND.symbols, "layer": "conv2"})
    assert match is not None
    assert match.severity is Severity.NOTE
    assert "with 312 to spare" in match.message
    safe = {**CNN6_D_SECOND.symbols, "B": 1307, "layer": "conv2"}  # one equation short of 3468
    assert evaluate_layer(first, safe) is None
