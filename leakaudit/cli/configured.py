"""The configuration on the command line: its values are the defaults of the options."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from leakaudit.cli.options import FILE, Decorator
from leakaudit.config.config import Config, TargetSettings
from leakaudit.config.find import discover, read
from leakaudit.config.targets import TargetPattern
from leakaudit.errors import UsageError
from leakaudit.findings import Ignore, Severity
from leakaudit.pipeline.per_target import TargetOptions
from leakaudit.rules.registry import load_rules
from leakaudit.rules.rule import Rule
from leakaudit.rules.select import find_rule, with_severities

_META = "leakaudit.config"
_FROM_CONFIGURATION = (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)


def configured(*, but: Collection[str] = ()) -> Decorator:
    """Add `--config` and `--isolated` to a command, and take defaults from the configuration.

    Args:
        but: Options that mean something else here than in `leakaudit check`.
    """

    def load(ctx: click.Context, _param: click.Parameter, file: Path | None) -> Path | None:
        if ctx.resilient_parsing:
            return file
        if not ctx.params.get("isolated"):
            config = discover(_working_folder()) if file is None else read(file)
            ctx.meta[_META] = config
            ctx.default_map = _defaults(ctx, config, but)
        elif file is not None:
            raise UsageError("--config and --isolated exclude each other: leave one of them out")
        return file

    def isolate(ctx: click.Context, _param: click.Parameter, isolated: bool) -> bool:
        if isolated and ctx.params.get("config_file") is not None:
            raise UsageError("--config and --isolated exclude each other: leave one of them out")
        return isolated

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        # Eager: the options after them ask for their defaults.
        command = click.option(
            "--config",
            "config_file",
            type=FILE,
            is_eager=True,
            callback=load,
            metavar="FILE",
            help="Configuration [default: leakaudit.toml, or [tool.leakaudit] in pyproject.toml, "
            "of the nearest folder upward].",
        )(command)
        return click.option(
            "--isolated",
            is_flag=True,
            is_eager=True,
            callback=isolate,
            help="Use no configuration.",
        )(command)

    return decorate


def _working_folder() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError as error:
        raise UsageError("the working folder no longer exists: change to another one") from error


def current() -> Config:
    """The configuration of the command that runs."""
    config = click.get_current_context().meta.get(_META)
    return config if isinstance(config, Config) else Config()


def targets_or_configured(targets: tuple[str, ...]) -> tuple[str, ...]:
    """The targets of the command line, or else those of the configuration.

    Raises:
        UsageError: Neither names one.
    """
    if "" in targets:
        raise UsageError("a target is empty: name a model file, or . for the current folder")
    chosen = targets or current().targets
    if not chosen:
        raise UsageError(
            "there is nothing to audit: name a model file or a folder, or set `targets` in the "
            "configuration"
        )
    return chosen


def target_options(rules: Sequence[Rule] = ()) -> tuple[TargetOptions, ...]:
    """The `[[target]]` settings of the command that runs, less what its command line says.

    Severities may name these rules; without any, severities are left out.

    Raises:
        UsageError: A value is not allowed, or a rule is unknown.
    """
    config = current()
    return tuple(
        _target_options(config, settings, f"{config.file}: target {number}: ", rules)
        for number, settings in enumerate(config.per_target, start=1)
    )


def unmatched(targets: Iterable[str]) -> list[str]:
    """A line for each `[[target]]` that is for none of these targets."""
    config = current()
    names = list(targets)
    return [
        f"warning: {config.file}: target {number}: no target matches {settings.match!r}; mend the "
        "pattern, or take the entry out"
        for number, settings in enumerate(config.per_target, start=1)
        if not any(map(TargetPattern(settings.match, config.folder).matches, names))
    ]


def configured_rules(folders: Sequence[Path]) -> tuple[Rule, ...]:
    """All rules, those of these folders too, with the configuration's severities.

    Raises:
        UsageError: A rule is wrong, or one that the configuration names is unknown.
    """
    config, rules = current(), load_rules(folders)
    return with_severities(rules, _by_id(config.severities, f"{config.file}: severities: ", rules))


def ignores(rules: Sequence[Rule]) -> tuple[Ignore, ...]:
    """What the configuration suppresses, the rules by their ids.

    Raises:
        UsageError: A rule is unknown.
    """
    config = current()
    return tuple(
        replace(ignore, rule=_rule_id(ignore.rule, f"{config.file}: ignore {number}: ", rules))
        for number, ignore in enumerate(config.ignores, start=1)
    )


def _target_options(
    config: Config, settings: TargetSettings, where: str, rules: Sequence[Rule]
) -> TargetOptions:
    ctx = click.get_current_context()
    options = _by_long_name(ctx.command)

    def value(name: str, given: object) -> Any:
        """What the command makes of a value; None where its command line says something."""
        option = options.get(name)
        if given is None or option is None or option.name is None:
            return None
        if ctx.get_parameter_source(option.name) not in _FROM_CONFIGURATION:
            return None
        return _converted(ctx, option, given, f"{where}{name}")

    shapes = value("input-shape", settings.input_shapes)
    load = {
        "input_shapes": None if shapes is None else dict(shapes),
        "batch_size": value("batch-size", settings.batch_size),
        "frozen": value("frozen", settings.frozen),
    }
    return TargetOptions(
        pattern=TargetPattern(settings.match, config.folder),
        load={name: given for name, given in load.items() if given is not None},
        loss=value("loss", settings.loss),
        severities=_by_id(settings.severities, f"{where}severities: ", rules) if rules else {},
    )


def _by_id(
    severities: Mapping[str, Severity], where: str, rules: Sequence[Rule]
) -> dict[str, Severity]:
    return {_rule_id(name, where, rules): severity for name, severity in severities.items()}


def _rule_id(name: str, where: str, rules: Sequence[Rule]) -> str:
    try:
        return find_rule(name, rules).id
    except UsageError as error:
        raise UsageError(f"{where}{error}") from error


def _by_long_name(command: click.Command) -> dict[str, click.Parameter]:
    return {
        name.removeprefix("--"): param
        for param in command.params
        if isinstance(param, click.Option)
        for name in param.opts
        if name.startswith("--")
    }


def _defaults(ctx: click.Context, config: Config, but: Collection[str]) -> dict[str, object]:
    """The configuration's values by the names of the command's parameters."""
    defaults: dict[str, object] = {}
    for name, param in _by_long_name(ctx.command).items():
        if name in config.options and name not in but and param.name is not None:
            value = config.options[name]
            _converted(ctx, param, value, f"{config.file}: {name}")
            defaults[param.name] = value
    return defaults


def _converted(ctx: click.Context, param: click.Parameter, value: object, where: str) -> Any:
    """A value as the option converts it; its error names the file instead of the option."""
    try:
        return param.type_cast_value(ctx, value)
    except click.BadParameter as error:
        raise UsageError(f"{where}: {error.message}") from error
