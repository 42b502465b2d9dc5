"""Recognition of secrets in text: what no experiment may hold, and no message may show.

An experiment is copied to run folders, ConfigMaps, trackers and reports. Only the standard library
is needed, so that errors can use it.
"""

import logging
import re

HIDDEN = "***"

# Such as https://me:word@host, and for http also https://token@host. A user alone is no secret in
# the address of a database.
_PASSWORD = re.compile(
    r"(?i)(\b[a-z][a-z0-9+.-]*://)[^\s/?#@:]*:[^\s/?#]+@|(\bhttps?://)[^\s/?#]+@"
)
# Such as ?password=word, and the signatures of object stores' links.
_PARAMETER = re.compile(
    r"(?i)([?&;](?:[a-z_-]*(?:api[_-]?key|password|passwd|pwd|secret|signature|token)|sig)=)"
    r"[^\s&;#'\"]+"
)
# After the name of the header any word is a secret. Elsewhere "basic" and "bearer" may be words,
# so that what follows them must look like a token: with a digit or "=", for basic in base64.
_HEADER = re.compile(
    r"(?i)(\bauthorization\W{1,6}(?:bearer|basic) +)[A-Za-z0-9._~+/=-]+"
    r"|\b(bearer )(?=[A-Za-z._~+/-]*[0-9=])[A-Za-z0-9._~+/=-]{8,}"
    r"|\b(basic )(?=[A-Za-z+/]*[0-9=])[A-Za-z0-9+/]{6,}=*(?![\w.~+/=-])"
)
# As charts/fedtrain/templates/_checks.tpl has it, here also for names of several.
_NAME = re.compile(
    r"(?i)(api[_-]?key|(access|account|private)[_-]?key|password|passwd|secret|token)s?$"
)


def is_named_like_one(name: str) -> bool:
    """Return whether a variable or setting of this name would hold a secret, or several."""
    return bool(_NAME.search(name))


def in_url(text: str) -> bool:
    """Return whether the text has a URL with a password, a token or a signature in it."""
    return bool(_PASSWORD.search(text) or ("://" in text and _PARAMETER.search(text)))


def redacted(text: str) -> str:
    """Return the text with every such secret, and those of HTTP's headers, replaced."""
    text = _PASSWORD.sub(lambda found: f"{found[1] or found[2]}{HIDDEN}@", text)
    text = _PARAMETER.sub(rf"\1{HIDDEN}", text)
    return _HEADER.sub(lambda found: f"{found[1] or found[2] or found[3]}{HIDDEN}", text)


def redact(record: logging.LogRecord) -> bool:
    """Redact a record of a log; a filter of `logging`."""
    record.msg, record.args = redacted(record.getMessage()), ()
    return True
