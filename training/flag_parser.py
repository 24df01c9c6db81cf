"""How the words of a command line are read: faults in one sentence, help on each flag once, files of flags."""

import argparse
import difflib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn, get_args, get_origin, get_type_hints

import yaml
from transformer2017.configuration import UsageError, in_a_line
from transformers import HfArgumentParser


class Parser(HfArgumentParser):
    """Faults of the user are raised as one sentence, without the list of all flags."""

    beside: Sequence[str] = ()  # flags of the command that another parser reads

    def error(self, message: str) -> NoReturn:
        """As argparse calls it."""
        unknown = re.match(r"unrecognized arguments: --([\w-]+)", message)
        if unknown:
            self.refuse_unknown([unknown[1].replace("-", "_")])
        raise UsageError(f"{message}. All flags: {self.prog} --help")

    def fields_of(self, words: Iterable[str]) -> set[str]:
        """The names of the fields that flags among the words set: --no_drop_broken sets drop_broken."""
        fields = {option: action.dest for action in self._actions for option in action.option_strings}
        names = {word.split("=")[0] for word in words}
        return {fields[name] for name in names if name in fields}

    def read_file(self, path: Path) -> tuple[list[str], dict[str, object]]:
        """A file of flags as the words that would say the same, and the values that are no words.

        These are the booleans of switches, and none, lists and mappings where a flag's field may have them.

        Raises:
            UsageError: If it cannot be read, a flag is unknown, or its value is of the wrong kind.
        """
        values = read_flag_file(path)
        words, not_words = [], {}
        try:
            self.refuse_unknown(values)
            several, switches = ({one.dest for one in self._actions if one.nargs == kind} for kind in "+?")
            for name, value in values.items():
                if isinstance(value, bool) and name in switches:  # --fsdp false would be a word that turns it on
                    not_words[name] = value
                elif value is False and name.endswith("_strategy"):  # YAML's `no`
                    words.append(f"--{name}=no")
                elif value == [] and name in several:
                    not_words[name] = value
                elif isinstance(value, list) and name in several:
                    words += [f"--{name}", *map(_word, value)]
                elif not isinstance(value, list | dict | None):
                    words.append(f"--{name}={_word(value)}")
                elif type(value) in self._kinds_of(name):
                    not_words[name] = value
                elif value is not None:
                    raise UsageError(f"--{name} takes one value, not {in_a_line(repr(value), most=60)}.")
            self.parse_args(words)
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from error
        return words, not_words

    def _kinds_of(self, name: str) -> set[type]:
        """The types that a flag's field may have."""
        of_each = map(get_type_hints, self.dataclass_types)
        hint = next((hints[name] for hints in of_each if name in hints), None)  # --help has none
        return {get_origin(kind) or kind for kind in get_args(hint) or (hint,)}

    def refuse_unknown(self, names: Iterable[str]) -> None:
        """Raises for the first name that is no flag, with the flag it may have been meant for."""
        known = [action.dest for action in self._actions]
        for name in names:
            if name not in known:
                close = difflib.get_close_matches(name, [*known, *self.beside], n=1)
                hint = f" Did you mean --{close[0]}?" if close else ""
                raise UsageError(f"There is no flag --{name}.{hint} All flags: {self.prog} --help")


class ReadableHelp(argparse.ArgumentDefaultsHelpFormatter):
    """One spelling of each flag, its value's name short, and a default only where there is one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.option_strings and action.option_strings[0].startswith("--no_"):  # whose help is that of the other
            return f"Switches --{action.option_strings[0].removeprefix('--no_')} off."
        if _has_many_choices(action):
            chosen = f" (default: {action.default})" if action.default is not None else ""
            return f"{action.help or ''} One of: {', '.join(map(str, action.choices or ()))}.{chosen}".strip()
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.dest == "help":
            return super()._format_action_invocation(action)
        value = "VALUE" if _has_many_choices(action) else self._format_args(action, "VALUE")
        return action.option_strings[0] + ("" if action.nargs == 0 else f" {value}")


def _has_many_choices(action: argparse.Action) -> bool:
    """Whether the choices are too many to stand behind the flag's name."""
    return action.choices is not None and len(",".join(map(str, action.choices))) > 40


def _word(value: object) -> str:
    """A value of a file of flags as the command line has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def read_flag_file(path: Path) -> dict[str, object]:
    """Reads flags from a YAML or JSON file.

    Raises:
        UsageError: If it cannot be read, or does not hold names and values.
    """
    try:
        text = path.read_text(encoding="utf-8")
        flags = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)  # to which 1e-5 is no number
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UsageError(f"{path} cannot be read as a YAML or JSON file of flags: {in_a_line(error)}") from error
    if not isinstance(flags, dict):
        raise UsageError(f"{path} must hold flags as names and values, such as `d_model: 256`.")
    return {str(name).replace("-", "_"): value for name, value in flags.items()}
