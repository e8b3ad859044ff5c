"""The command `completions`: what bash, zsh and fish complete, from the parsers of the help."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from _dockeraudit.commandline import OneLineParser
from _dockeraudit.helptext import Commands
from _dockeraudit.options import OPTION
from _dockeraudit.text import SEVERITY_RANK
from _dockeraudit.values import OneOf

FILES, FILE_RULES, COMMAND_NAMES, ANYTHING = "@files", "@rules", "@commands", "@anything"
#: what stands for a value in the help, and what may be offered for it
KINDS = {
    "FILE": FILES,
    "PATH": FILES,
    "AUDIT_LOG": FILES,
    "ID": FILE_RULES,
    "SEVERITY": " ".join(SEVERITY_RANK),
}


class Word(NamedTuple):
    """An option or argument of a command.

    `flags`: its names; an argument has none. `value`: the words to offer for its value, or one of
    FILES, FILE_RULES, COMMAND_NAMES and ANYTHING; None: it takes no value.
    """

    flags: tuple[str, ...]
    value: str | None
    help: str


def words_of(parser: OneLineParser) -> Iterator[Word]:
    """The options and arguments of a command, in the order of its help."""
    for action in parser.actions():
        takes = action.nargs != 0
        yield Word(
            tuple(action.option_strings), value_kind(action) if takes else None, about(action)
        )


def value_kind(action: argparse.Action) -> str:
    """What to offer for the value of an option or argument."""
    if action.choices:
        return " ".join(map(str, action.choices))
    if action.metavar == "COMMAND" and not action.option_strings:
        return COMMAND_NAMES  # of an option it is a command of the shell
    option = OPTION.get(action.dest.replace("_", "-"))
    if option and isinstance(option.read, OneOf) and option.metavar == action.metavar:
        return " ".join(option.read.words)
    return KINDS.get(str(action.metavar), ANYTHING)


def about(action: argparse.Action) -> str:
    """The first words of an option's help: what stands before a semicolon or a bracket."""
    return (action.help or "").split(";")[0].split(" (")[0].replace("%%", "%")


def completions_parser() -> OneLineParser:
    """The parser of `completions`."""
    parser = OneLineParser(
        "dockeraudit completions",
        "`completions SHELL`: a script that completes commands, options and values.\n\n"
        "In the shell's start file:\n"
        "  bash: source <(dockeraudit completions bash)\n"
        "  zsh:  source <(dockeraudit completions zsh)   (after compinit)\n"
        "  fish: dockeraudit completions fish | source",
    )
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))
    return parser


def run_completions(arguments: Sequence[str], commands: Commands) -> int:
    """Write the script for one shell."""
    shell = completions_parser().parse_args(arguments).shell
    sys.stdout.write(SHELLS[shell](commands))
    return 0


# ---- bash ----

BASH = r"""# bash completion for dockeraudit, made by `dockeraudit completions bash`
_dockeraudit_values() {
    case $1 in
@VALUES@
    esac
}

_dockeraudit_words() {
    case $1 in
@WORDS@
    esac
}

_dockeraudit() {
    local commands="@COMMANDS@" command=serve offer prefix= at=$COMP_CWORD before
    local current=${COMP_WORDS[at]}
    if [[ $current == ":" ]]; then  # bash splits words at = and :
        current= at=$((at - 1)) prefix=${COMP_WORDS[COMP_CWORD-1]}:
    elif (( at > 1 )) && [[ ${COMP_WORDS[at-1]} == ":" ]]; then
        at=$((at - 2)) prefix=${COMP_WORDS[COMP_CWORD-2]}:
    fi
    if [[ $current == "=" ]]; then
        current=
    elif [[ ${COMP_WORDS[at-1]} == "=" ]]; then
        at=$((at - 1))
    fi
    before=${COMP_WORDS[at-1]}
    if (( COMP_CWORD > 1 )) && [[ " $commands " == *" ${COMP_WORDS[1]} "* ]]; then
        command=${COMP_WORDS[1]}
    fi
    offer=$(_dockeraudit_values "$command $before")
    if [[ -z $offer && $current == -* ]]; then
        offer=$(_dockeraudit_words "$command")
    elif [[ -z $offer && $COMP_CWORD == 1 ]]; then
        offer=$commands
    elif [[ -z $offer ]]; then
        offer=$(_dockeraudit_values "$command")
    fi
    case $offer in
    @anything) offer= ;;
    @commands) offer=$commands ;;
    @rules) offer=$("${COMP_WORDS[0]}" rules 2>/dev/null | awk '{print $2}') ;;
    @files)
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
        return
        ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$offer" -- "$prefix$current")
    COMPREPLY=("${COMPREPLY[@]#"$prefix"}")
}

complete -F _dockeraudit dockeraudit
"""


def bash_script(commands: Commands) -> str:
    """The completion for bash, 4 or newer."""
    values: dict[str, list[str]] = {}
    words = []
    for name, command in commands.items():
        flags: list[str] = []
        for word in words_of(command.parser()):
            flags += word.flags
            if word.value:
                places = [f"{name} {flag}" for flag in word.flags] or [name]
                values.setdefault(word.value, []).extend(places)
        words.append(f'    {name}) echo "{" ".join(flags)}" ;;')
    arms = []
    for offer, places in values.items():
        alternatives = " | \\\n    ".join(f'"{place}"' for place in places)
        arms.append(f'    {alternatives}) echo "{offer}" ;;')
    return (
        BASH.replace("@VALUES@", "\n".join(arms))
        .replace("@WORDS@", "\n".join(words))
        .replace("@COMMANDS@", " ".join(commands))
    )


# ---- zsh ----

ZSH = r"""#compdef dockeraudit
# zsh completion for dockeraudit, made by `dockeraudit completions zsh`
_dockeraudit_rules() {
  local -a ids
  ids=(${(f)"$(dockeraudit rules 2>/dev/null | awk '{print $2}')"})
  compadd -a ids
}

_dockeraudit_commands() {
  local -a commands
  commands=(
@COMMANDS@
  )
  _describe command commands
}

_dockeraudit() {
  local command=serve
  if (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then
    _dockeraudit_commands
    return
  fi
  case $words[2] in
    @NAMES@)
      command=$words[2]
      (( CURRENT-- ))
      shift words
      ;;
  esac
  case $command in
@ARGUMENTS@
  esac
}

if [[ $funcstack[1] == _dockeraudit ]]; then
  _dockeraudit "$@"
else
  compdef _dockeraudit dockeraudit
fi
"""
ZSH_ACTIONS = {
    FILES: "_files",
    FILE_RULES: "_dockeraudit_rules",
    COMMAND_NAMES: "_dockeraudit_commands",
    ANYTHING: "",
}


def zsh_script(commands: Commands) -> str:
    """The completion for zsh."""
    table, arms = [], []
    for name, command in commands.items():
        table.append("    " + zsh_quoted(f"{name}:{command.summary}"))
        lines = [zsh_word(word) for word in words_of(command.parser())]
        arms.append(f"    {name}) _arguments \\\n      " + " \\\n      ".join(lines) + "\n      ;;")
    return (
        ZSH.replace("@COMMANDS@", "\n".join(table))
        .replace("@NAMES@", "|".join(commands))
        .replace("@ARGUMENTS@", "\n".join(arms))
    )


def zsh_word(word: Word) -> str:
    """An option or argument as `_arguments` takes it; an option may be repeated."""
    kind = word.value or ""
    action = ZSH_ACTIONS.get(kind, f"({kind})".replace(":", r"\:"))
    value = f":value:{action}" if word.value else ""
    if not word.flags:
        return zsh_quoted(f"*{value}")
    help_text = word.help.replace("[", "(").replace("]", ")").replace(":", r"\:")
    return " ".join(zsh_quoted(f"*{flag}[{help_text}]{value}") for flag in word.flags)


def zsh_quoted(text: str) -> str:
    """A word in single quotes."""
    return "'" + text.replace("'", "'\\''") + "'"


# ---- fish ----

FISH = """\
# fish completion for dockeraudit, made by `dockeraudit completions fish`
function __dockeraudit_rules
    dockeraudit rules 2>/dev/null | awk '{print $2}'
end
complete -c dockeraudit -f
"""


def fish_script(commands: Commands) -> str:
    """The completion for fish."""
    names = " ".join(commands)
    others = " ".join(name for name in commands if name != "serve")
    lines = [FISH]
    for name, command in commands.items():
        lines.append(
            f"complete -c dockeraudit -n __fish_use_subcommand -a {name} "
            f"-d {fish_quoted(command.summary)}\n"
        )
    for name, command in commands.items():
        when = f"__fish_seen_subcommand_from {name}"
        when = f"not __fish_seen_subcommand_from {others}" if name == "serve" else when
        for word in words_of(command.parser()):
            lines.append(f"complete -c dockeraudit -n '{when}' {fish_word(word, names)}\n")
    return "".join(lines)


def fish_word(word: Word, commands: str) -> str:
    """An option or argument as fish's `complete` takes it."""
    named = [f"-l {flag[2:]}" if flag[1] == "-" else f"-s {flag[1:]}" for flag in word.flags]
    offers = {
        None: [],
        FILES: ["-r -F"],
        ANYTHING: ["-x"],
        FILE_RULES: ["-x -a '(__dockeraudit_rules)'"],
        COMMAND_NAMES: [f"-x -a '{commands}'"],
    }.get(word.value, [f"-x -a '{word.value}'"])
    if not word.flags:
        offers = [offer.replace("-r ", "").replace("-x", "") for offer in offers]
    return " ".join([*named, *offers, "-d", fish_quoted(word.help)])


def fish_quoted(text: str) -> str:
    """A word in single quotes."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SHELLS = {"bash": bash_script, "zsh": zsh_script, "fish": fish_script}
