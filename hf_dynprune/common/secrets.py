"""Tokens, keys and passwords, kept out of everything that is written: the one function that makes settings safe.

A value is left out by the name of its flag or variable, wherever that is given (`--hub_token x`, `--hub_token=x`, JSON,
`api_key=x` inside a text), by its look (`hf_...`, `sk-...`, `https://user:password@host`), and, where a program's own
words are written down, by being the value of a flag or variable with such a name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

HIDDEN = "<hidden>"
"""What stands for a secret that has no name; one with a name gives `<HUB_TOKEN>`, as the stock Trainer writes it."""
_LEAST = 6
"""Letters of a value that is looked for in text: shorter ones would be found in other words."""

# ---- Names ----

_ALWAYS = frozenset(
    {
        *("password", "passwords", "passwd", "passphrase", "pwd", "secret", "secrets", "credential", "credentials"),
        *("apikey", "apitoken", "authtoken", "accesstoken", "accesskey", "secretkey", "privatekey", "bearer"),
        *("authorization", "webhook", "cookie", "cookies", "pat", "jwt", "dsn"),
    }
)
"""Words that make a name that of a secret, anywhere in it."""
_KEYS_OF = frozenset(
    {
        *("api", "access", "private", "secret", "account", "auth", "signing", "encryption", "subscription", "service"),
        *("ssh", "storage", "master", "license", "hf", "hub", "huggingface", "wandb", "comet", "neptune", "openai"),
        *("anthropic", "aws", "azure", "gcp", "google", "s3", "trackio", "swanlab", "clearml", "mlflow", "dagshub"),
    }
)
"""What stands before "key" in the name of a secret; `prune_key` and `label_key` name columns."""
_MARKS = frozenset(
    {
        *("pad", "eos", "bos", "unk", "sep", "cls", "mask", "special", "image", "video", "audio", "start", "end"),
        *("stop", "prefix", "suffix", "newline", "response", "instruction", "per", "max", "min", "num", "by", "each"),
    }
)
"""What stands before "token" where it is a piece of text: `pad_token`."""


def is_secret_name(name: str) -> bool:
    """Whether a flag, key or variable of this name holds a secret.

    Examples:
        >>> is_secret_name("hub_token"), is_secret_name("WANDB_API_KEY")
        (True, True)
        >>> is_secret_name("pad_token"), is_secret_name("max_tokens"), is_secret_name("prune_key")
        (False, False, False)
    """
    words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]
    if name in ("PWD", "OLDPWD"):  # the shell's folders
        return False
    for place, word in enumerate(words):
        before = words[place - 1] if place else ""
        is_last = place == len(words) - 1
        if word in _ALWAYS:
            return True
        if word == "key" and before in _KEYS_OF:
            return True
        if word == "token" and is_last and before not in _MARKS:
            return True
        if word in ("auth", "tokens") and is_last and (word == "auth" or before in _KEYS_OF):
            return True
    return False


def secret_values(arguments: Sequence[str], variables: Mapping[str, str]) -> list[str]:
    """The values of a command line's flags and of variables whose names are those of secrets, the longest first."""
    found = {value for name, value in variables.items() if is_secret_name(name)}
    flag = ""
    for word in arguments:
        if word.startswith("--"):
            flag, _, word = word[2:].partition("=")
        if is_secret_name(flag):
            found.add(word)
        found |= {value for name, value in _pairs(word) if is_secret_name(name)}
    return sorted((value for value in found if len(value) >= _LEAST), key=lambda value: (-len(value), value))


def _pairs(text: str) -> Iterable[tuple[str, str]]:
    """(name, value) of texts in JSON at any depth."""
    todo: list[Any] = [_as_json(text)]
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            yield from ((name, each) for name, each in value.items() if isinstance(each, str))
            todo += value.values()
        elif isinstance(value, list):
            todo += value


# ---- Values ----

_LOOKS = re.compile(
    r"\bhf_(?=[A-Za-z0-9]*[A-Z0-9])[A-Za-z0-9]{8,}|\bsk-[A-Za-z0-9_-]{12,}|\bgh[opsur]_[A-Za-z0-9]{12,}"
    r"|\bgithub_pat_\w{12,}|\bglpat-[\w-]{12,}|\bxox[abeprs]-[\w-]{8,}|\b(?:AKIA|ASIA)[A-Z0-9]{12,}|\bAIza[\w-]{20,}"
    r"|\bnpm_[A-Za-z0-9]{20,}|\bpypi-[\w-]{16,}|\bdckr_pat_[\w-]{12,}|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)"
    r"|(?<=Bearer )[\w.~+/=-]{8,}|https://hooks\.slack\.com/[\w/]+",
    re.DOTALL,
)
_IN_ADDRESS = re.compile(r"(?<=://)[^/\s@'\"]+@")
_IN_TEXT = re.compile(
    r"(?P<name>[A-Za-z][\w-]*)(?P<between>[\"']?\s*[=:]\s*)(?P<value>\"[^\"]*\"|'[^']*'|[^\s,;&\"'}\])<>]+)"
    r"|(?P<flag>--[\w-]+)(?P<blank>\s+)(?P<given>[^\s-]\S*)"
)


def without_secrets(value: Any, name: str = "") -> Any:
    """Settings, a command line or any text, with a mark in the place of each secret; what has none comes back equal.

    Args:
        value: made of mappings, lists and plain values. A list of words is read as a command line.
        name: of the flag or key that the value belongs to.

    Examples:
        >>> without_secrets(["--hub_token", "hf_abc", "--seed", "1", '--x={"api_key": "k"}'])
        ['--hub_token', '<HUB_TOKEN>', '--seed', '1', '--x={"api_key": "<API_KEY>"}']
        >>> without_secrets({"data": "https://me:pass@host/file", "pad_token": "<|end|>"})
        {'data': 'https://<hidden>@host/file', 'pad_token': '<|end|>'}
    """
    if is_secret_name(name):
        return value if value is None or isinstance(value, bool) or value == "" else _mark(name)
    if isinstance(value, Mapping):
        return {key: without_secrets(each, str(key)) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return _words(value) if isinstance(value, list) else tuple(_words(value))
    return hidden_in(value) if isinstance(value, str) else value


def _words(words: Iterable[Any]) -> list[Any]:
    """A list, of which the words behind `--flag` belong to the flag."""
    found, flag = [], ""
    for word in words:
        if isinstance(word, str) and word.startswith("--"):
            flag, equals, value = word[2:].partition("=")
            found.append(f"--{flag}={without_secrets(value, flag)}" if equals else word)
        else:
            found.append(without_secrets(word, flag))
    return found


def hidden_in(text: str, values: Iterable[str] = ()) -> str:
    """The text with a mark in the place of each secret in it; `values` are further ones, as `secret_values` gives them.

    Examples:
        >>> hidden_in("api_key=k-1 sent to ftp://me:pass@host, token hf_0123456789abc")
        'api_key=<API_KEY> sent to ftp://<hidden>@host, token <hidden>'
    """
    for value in values:
        text = text.replace(value, HIDDEN)
    content = _as_json(text)
    if content is not None and (safe := without_secrets(content)) != content:
        text = text.replace(text.strip(), json.dumps(safe))
    text = _IN_ADDRESS.sub(f"{HIDDEN}@", _LOOKS.sub(HIDDEN, text))
    return _IN_TEXT.sub(_hidden_pair, text)


def _hidden_pair(match: re.Match[str]) -> str:
    if match["flag"]:
        return (
            f"{match['flag']}{match['blank']}{_mark(match['flag'])}" if is_secret_name(match["flag"][2:]) else match[0]
        )
    name, between, value = match["name"], match["between"], match["value"]
    # A single word before a colon may be prose.
    is_pair = "=" in between or between[0] in "\"'" or "_" in name or "-" in name or name.lower() in _ALWAYS
    if not is_pair or not is_secret_name(name) or value in ("None", "null", "True", "False", "true", "false"):
        return match[0]
    quote = value[0] if value[0] in "\"'" else ""
    return match[0] if value == quote * 2 or HIDDEN in value else f"{name}{between}{quote}{_mark(name)}{quote}"


def _as_json(text: str) -> Any:
    """The object or list that the text describes; None where it is no JSON."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _mark(name: str) -> str:
    return f"<{name.lstrip('-').replace('-', '_').upper()}>"
