"""Rules from a user's file: what is taken, what is refused, and with which sentence."""

from __future__ import annotations

import json
import re

import pytest

from _dockeraudit.backtracking import ambiguity, repetitions
from _dockeraudit.scanner import Scanner
from _dockeraudit.userrules import RuleError, load_rules, select_rules
from patterns import RULES


def user_rules(tmp_path, **changes):
    rule = {
        "id": "ours",
        "name": "Ours",
        "severity": "HIGH",
        "keywords": ["ours-"],
        "regex": "ours-[0-9]{6}",
        "examples": ["ours-123456"],
        **changes,
    }
    path = tmp_path / "rules.json"
    path.write_text(json.dumps([rule]))
    return str(path)


def test_users_rules_are_found(tmp_path):
    scanner = Scanner([*RULES, *load_rules(user_rules(tmp_path))])
    assert [match.rule.name for match in scanner.scan(b"x ours-654321 y\nours-1")] == ["Ours"]


def test_rules_are_chosen_by_their_ids():
    assert [rule.id for rule in select_rules(RULES, only=["password"])] == ["password"]
    assert len(select_rules(RULES, disable=["password"])) == len(RULES) - 1
    with pytest.raises(RuleError, match="no rule 'nonsense'"):
        select_rules(RULES, only=["nonsense"])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"regex": "("}, "regex is wrong"),
        ({"regex": "ours-a{1}{2}"}, "regex is wrong"),
        ({"examples": ["ours-x"]}, "is not found"),
        ({"keywords": []}, "needs keywords"),
        ({"keywords": ["o"]}, "needs keywords"),
        ({"keywords": ["ours-", 1]}, "needs keywords"),
        ({"keywords": ["absent"]}, "none of the keywords"),
        ({"examples": []}, "needs examples"),
        ({"examples": "ours-123456"}, "needs examples"),
        ({"severity": None}, "needs the texts"),
        ({"regex": 5}, "needs the texts"),
        ({"severity": "LOUD"}, "severity"),
        ({"id": "password"}, "one of ours"),
        ({"group": 3}, "group 3"),
        ({"group": -1}, "group -1"),
        ({"group": True}, "group True"),
    ],
)
def test_a_wrong_rule_is_refused_with_one_sentence(tmp_path, changes, message):
    with pytest.raises(RuleError, match=message):
        load_rules(user_rules(tmp_path, **changes))


@pytest.mark.parametrize("text", ["", "{", "{}", "[1]", '"rule"', "null", "[[]]"])
def test_a_file_that_holds_no_list_of_rules_is_refused(tmp_path, text):
    path = tmp_path / "rules.json"
    path.write_text(text)
    with pytest.raises(RuleError, match=re.escape(str(path))):
        load_rules(str(path))


@pytest.mark.parametrize(
    "regex, example, message",
    [
        (
            "ours-(a+)+b",
            "ours-ab",
            "`(a+)+` repeats a part that can take the same text in several ways",
        ),
        (r"ours-\s*\s*x", "ours- x", r"`\s*` and `\s*` can take the same characters"),
        (r"ours-\d{2,}?[0-9]*x", "ours-12x", r"`\d{2,}?` and `[0-9]*` can take the same"),
        (
            r'ours-(?:\\.|[^\\"])*"',
            'ours-"',
            r'`(?:\\.|[^\\"])*` can run on over the next place where a match may begin',
        ),
        ("ours-" + "[a-z0-9]{200}[A-Z]" * 10, "ours-", "too many parts"),
    ],
)
def test_a_slow_regex_is_refused_with_its_slow_part(tmp_path, regex, example, message):
    with pytest.raises(RuleError, match=re.escape(message)) as refusal:
        load_rules(user_rules(tmp_path, regex=regex, examples=[example]))
    assert "rule 'ours'" in str(refusal.value)


#: patterns that take exponential time on some text
NESTED = r"""
(a+)+b  (a+)+$  (a*)*b  (a+)*b  (a*)+b  (a+)+?b  (?:a+?)+b  (a{2,})+b  (a{1,20}){1,20}b
(?:a{0,9})*b  ([a-z]+)*!  (\w+\s?)*$  (a|aa)+$  (a|a)*b  (a|b|ab)*c  (.*)*x  (.*,)*x  (.+)+x
([0-9]+)+z  (?:[0-9]+-?)+z  (x+x+)+y  (?:x*y*)*z  (?:x?y?)*z  \s*=\s*(\w*\d*)+;  (\d+|\w+)*!
([a-z]+[0-9]*)+!  (?:[a-z0-9]+[._-]?)+@  ((a+)b?)+c  (?:(?:a+)+b)+c  ((?:a|b)+)+c  (?:a+|b+)+c
(?:[ab]x|[bc]x)+d  (?:\w|_\w?)+!  (?:\d\d|[0-5]5)+!  (?:a(?:|))+b  (?:(?:a|a)b)+$
(?i:(Ax|xA|a|X)+)b  (?i)([a-c]x|BX)+!  (?:ab|a|b)*c  (?:aa|aaa)+b  (?:(?:ab)+)+c  (?:a+){5,}b
(?:a+){2,9}b  (?:a?b?){9,}c  (?:.|\n|x)*y  (?s)(?:.|\n)*y  (?:[^"]|\\.)*x  (?:\S+\s*)+!  (?:-?\w+)+!
(?=(a+)+b)a  (?!(a+)+b)a  (?:(?=a)a|a)+b  (?:(a)|b|a)+c  ((a)(?(2)a|b)?)+c  (?:a{3,}|a{5,})+b
""".split()
#: patterns that take quadratic time, or worse, on some text
POLYNOMIAL = r"""
a*a*b  \s*\s*x  .*.*.*.*bar  a+a+b  [a-z]+[a-z0-9]+!  \d+\.?\d+x  \w+\d+!  \s*,?\s*x  .*,.*,.*x
(.*)=(.*);  [a-z]*\w*-x  \S+\s*\S+!  \w*=?\w*:  a{0,50}a{0,50}b  a{33,}a{33,}b  (a*)\1b  .*?.*?x
a*(?:b*a*)c  (?:ab)*(?:ab)*c  .*bar  .+bar  [^\s]+=x  [a-z_]+!  [\w.-]+@x  (?:[a-z_]+\.)+x
.{0,300}bar  \S*$  (?s).*x  [^\n]*x  (?=.*x)y  [a-z_]{9,}(?=!)  (?i)[A-Z_]+!  [^"]*"?!  (?:\w+,)*!x
""".split()


@pytest.mark.parametrize("pattern", NESTED)
def test_a_pattern_of_exponential_time_is_told(pattern):
    found = ambiguity(flagged("foo_", pattern))
    assert found and found.kind == "nested"


@pytest.mark.parametrize("pattern", POLYNOMIAL)
def test_a_pattern_of_polynomial_time_is_told(pattern):
    found = ambiguity(flagged("foo_", pattern))
    assert found and found.kind in ("overlapping", "unanchored")


def flagged(head, pattern):
    """The pattern behind `head`, its flags in front of both."""
    flags = re.match(r"(?:\(\?[a-z]+\))?", pattern).group()
    return (flags + head + pattern[len(flags) :]).encode()


HONEST = r"""
foo_[a-z0-9]{32}
foo_(live|test)_[A-Za-z0-9]{24}
foo_key\s*[:=]\s*['"]?([A-Za-z0-9_\-]{20,})['"]?
\bfoo_[A-Z0-9]{16}\b
foo_(?:[a-z0-9]{4}-){3}[a-z0-9]{4}
foo_[^\s"']{16,64}
foo_[0-9a-z]+\.[0-9a-z]+\.[0-9a-z_-]+
foo_(?:secret|token)=(\S{12,})
https://foo_[a-z]+\.example\.com/hooks/[A-Za-z0-9/]{20,80}
(?i)foo_[a-f0-9]{8}-[a-f0-9]{4}
foo_[A-Za-z0-9_-]{20,}\b
foo_[A-Za-z0-9_-]{20,}(?![A-Za-z0-9_-])
'foo_(.+)'
foo_token="(.*)"
foo_"(?:\\.|[^\\"])*"
foo_token="([^"\\]*(?:\\.[^"\\]*)*)"
foo_.*$
foo_.*
foo_.{0,100}=x
foo_.{0,250}?bar
foo_\d+(?:\.\d+)*
foo_\d+(?:\.\d+){2}-rc
foo_\d{1,3}(?:\.\d{1,3}){3}:\d{2,5}
foo_(?:[a-z]+,)*[a-z]+;
foo_[a-z]+(?:-[a-z]+)*!
foo_(?:[A-Z]{2,10}-){2,10}\d+
foo_(?:ab)+c
foo_(?:a|b)+c
foo_(?:a[0-9]|b[0-9])*c
foo_(?:0x)?[0-9a-f]+;
foo_-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?;
foo_[a-z]+\d+!
foo_\s+\S+\s+\S+
foo_\s*(?::|=>?)\s*"([^"]+)"
foo_key[ \t]{0,8}[=:][ \t]{0,8}(\S{8,})
foo_[a-z]{2,4}[0-9a-z]{4,6}x
foo_[a-z]{0,20}[0-9a-z]{0,20}!
foo_[A-Za-z0-9+/]{40,}={0,2}
foo_[A-Za-z0-9+/]{43}=
(?<![A-Za-z])foo_[A-Z]{5}(?![A-Za-z])
(?<=key=)foo_[a-z]{10}
foo_(?P<quote>['"])[a-z]{8}(?P=quote)
foo_(["']?)[a-z]{8}\1
(?x) foo_ [a-z]{8}  # a (comment)+ with signs*
(?s)foo_[a-z]+.{0,20}x
(?m)^foo_[a-z]+$
foo_(?:prod|stage|dev)-[a-z]+-[0-9a-f]{12}
foo_[a-z]+://[^:@/\s]+:([^@/\s]+)@
\{foo_[^{}]*\}
foo_\([^()]*(?:\([^()]*\)[^()]*)*\)
<foo_[a-z]+>([^<]+)</foo_
foo_,[^,]+,[^,]+,([^,]+),x
(?:foo_|bar-)[0-9A-Z]{26}
foo_(?:A3T[A-Z0-9]|AKIA|ASIA)[A-Z0-9]{16}
[a-z]{0,50}foo_[0-9]{4}
(?i)[\w.-]{0,50}?foo_[ \t\w.-]{0,20}[\s'"]{0,3}(?:=|>|:=|=>|,)[\s"=]{0,5}([a-z0-9]{32})(?:["\s;]|$)
foo_(?!example)[a-z]{10,40}
foo_(?=[a-z]{0,40}\d)[a-z0-9]{10,40}
foo_\$\d\$[./A-Za-z0-9]{1,16}\$[./A-Za-z0-9]{22}
foo_[[:word:]a-z]{4}
""".strip("\n").split("\n")


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("pattern", HONEST)
def test_an_honest_pattern_is_taken(pattern):
    re.compile(pattern)
    assert ambiguity(pattern.encode()) is None


def test_all_signs_of_repetition_are_found_with_their_operands():
    text = r"a*(b+?[c*\]]{2,3})?\*(?P<n>x{,4}|(?#y+)(?=z++))+{"
    parts = ["a*", "b+?", r"[c*\]]{2,3}", r"(b+?[c*\]]{2,3})?", "x{,4}", "z++"]
    assert repetitions(text) == [*parts, "(?P<n>x{,4}|(?#y+)(?=z++))+"]


@pytest.mark.parametrize("pattern", ["foo_.*bar", r"foo_\{[^}]*\}", r"eyJ\w+\.\w+\.\w+"])
def test_a_pattern_that_runs_over_the_next_match_is_taken_if_it_is_quick(tmp_path, pattern):
    found = ambiguity(pattern.encode())
    example = {"f": "foo_{bar}", "e": "eyJx.y.z"}[pattern[0]]
    assert found and found.kind == "unanchored"
    assert re.search(pattern.encode(), found.word * 5) is None
    assert load_rules(
        user_rules(tmp_path, regex=pattern, keywords=[example[:3]], examples=[example])
    )


def test_a_pattern_with_a_misleading_comment_is_refused_whole():
    pattern = r"(?x)foo_(a+)+b # c*"
    assert ambiguity(pattern.encode()) == ("nested", (pattern,), b"")


def test_our_own_tables_are_read_to_the_end():
    for rule in RULES:
        found = ambiguity(rule.pattern)
        assert found is None or found.kind in ("unanchored", "overlapping"), rule.id
