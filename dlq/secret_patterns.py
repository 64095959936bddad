"""What tells a secret in a text: the name before it, the place where it stands, or its looks.

Every pattern reads each character a bounded number of times, so that no text can hold up the process that shows it.
Possessive quantifiers (`++`) and the look behind at the start of a word are what keeps it so.
"""

from __future__ import annotations

import re

MASK = "••••••"
#: Names of keys of two words, which may have a space between.
KEY_OF = "api|private|access|signing|encryption"
#: Parts of names that say that the value is a secret; the short ones only as a whole part, as in `X-Auth`, and `session` only
#: as the last one.
_SECRET = (
    r"passw(?:or)?d|passphrase|passcode|pwd|secret(?!ar[iy])|token|authori[sz]ation|credential|cookie|signature|bearer"
    rf"|(?:{KEY_OF})[_\ -]?key|sess(?:ion)?[_-]?(?:id|key)|(?<![^\W_])session(?![\w-])"
    r"|(?<!dis)(?<!wild)card|cvc|cvv|iban|(?<![^\W_])(?:pass|pw|pin|otp|auth|jwt|sig)(?![^\W_])"
)
#: A number under one of these is how many there are, or may be.
COUNTER = re.compile(
    r"(?:(?:token|secret|password|credential|cookie|signature|key|card)s|count)\W*+$", re.IGNORECASE
)
NUMBER = re.compile(r"\d{1,9}(?:\.\d*)?")
SECRET_KEY = re.compile(_SECRET, re.IGNORECASE)
#: Without one of these a text names no secret.
NAMES = (
    "pass", "pwd", "secret", "token", "authori", "credential", "cookie", "signature", "bearer", "key", "sess", "card",
    "cvc", "cvv", "iban", "pw", "pin", "otp", "auth", "jwt", "sig",
)  # fmt: skip
#: The beginning of a word; in a text that was escaped it may follow the `n` of a line break.
_START = r"(?:(?<![\w-])|(?<=\\[nrt]))"
#: A quote, escaped as often as it may be, and a line break likewise.
_QUOTE = r"\\*+[\"']"
_BREAK = r"(?:\r?\n|(?:\\++r)?\\++n)"
#: What a secret is, after the sign that it comes. One that was cut off in the middle ends with the text. A mask is none:
#: a line of a log may be made of masked parts.
_VALUE = (
    rf"(?!{MASK})"
    + r"""(?: [bru]{0,2}
        (?: "(?:[^"\\]|\\.)*+"?+
          | '(?:[^'\\]|\\.)*+'?+
          | (?P<quote>\\+["']).*?(?:(?<!\\)(?P=quote)|\Z) )
      | [\w.]*+[\[({](?:[^\[\](){}]|[\[({](?:[^\[\](){}]|[\[({][^\[\](){}]*+[\])}]?+)*+[\])}]?+)*+[\])}]?+
      | (?:Bearer|Basic)\s++\S++
      | [^\s,;)}\]&]++(?:;(?![\w-]*+\ *+[:=])[^\s,;)}\]&]++)*+ )"""
)
#: The rest of the line: schemes of authorisation are many, and cookies hold spaces.
HEADER = re.compile(
    rf"(?P<key>{_START}[\w-]{{0,60}}?(?:authori[sz]ation|cookie)[ \t]*+[:=][ \t]*+)(?!{MASK})[^\s\"'\\][^\r\n]*+",
    re.IGNORECASE,
)
#: `"password=hunter2 with a space"`: what is quoted as a whole ends with its quote.
QUOTED_PAIR = re.compile(
    rf"(?P<key>(?P<q>{_QUOTE})(?=[\w-]*?(?:{_SECRET}))[\w-]++(?:\[[\w-]*+\])*+=)(?!{MASK}|{_QUOTE})[^\"'\\\r\n]{{1,500}}+(?=(?P=q))",
    re.IGNORECASE,
)
#: `password=hunter2`, `"token": "abc"`, `('secret', 'abc')`, `user[pin]=1234`, `--password abc`, also as JSON inside of
#: JSON.
PAIR = re.compile(
    rf"""
    (?P<key>
        {_START} (?P<option>-{{1,2}})?+ (?=[\w-]*?(?:{_SECRET})) (?:(?:{KEY_OF})\ (?=key))?+ [\w-]++
        \]?+ (?:\[[\w-]*+\])*+
        (?: \\*+["']?+\]?+ [\s+]*+[:=]++>?+[\s+]*+
          | {_QUOTE}\s*+,[\s+]*+ (?=[bru]{{0,2}}{_QUOTE}) (?![bru]{{0,2}}{_QUOTE}[\w-]*+{_QUOTE}\s*+[:=])
          | (?(option)[ \t+]++(?!-)|(?!)) )
    )
    {_VALUE}
    """,
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
_SECRET_TAG = rf"(?:<|&lt;)(?P<tag>(?=[\w:.-]*?(?:{_SECRET}))[\w:.-]++)"
#: `"name": "password", … "value": "hunter2"`, as of headers, forms and settings, and the same the other way round; and
#: `<password value="hunter2"/>`.
_NAMED = rf"""(?:name|key|field|header|param(?:eter)?|type)(?:{_QUOTE})?+\s*+[:=]\s*+
    {_QUOTE}(?=[\w-]*?(?:{_SECRET}))[\w-]++{_QUOTE}"""
_AS_VALUE = rf"(?<![\w-])(?:value|val|content|data)(?:{_QUOTE})?+\s*+[:=]\s*+"
NAMED_VALUE = re.compile(
    rf"(?P<key>(?:(?<![\w-]){_NAMED}|{_SECRET_TAG})[^{{}}<>]{{0,200}}?{_AS_VALUE}){_VALUE}",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
VALUE_NAMED = re.compile(
    rf"""(?P<key>{_AS_VALUE}) (?P<q>{_QUOTE}) [^{{}}<>"']{{0,500}}? (?P<rest>(?P=q)[^{{}}<>]{{0,200}}?(?<![\w-]){_NAMED})""",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
#: `<password>hunter2</password>`, also with its brackets escaped; with no end within reach it ends with the line.
ELEMENT = re.compile(
    rf"""
    (?P<key> {_SECRET_TAG} [^<>&/]{{0,200}}+ (?:>|&gt;) )
    (?: .{{0,1000}}?(?=(?:<|&lt;)/(?P=tag)) | [^<&\r\n]*+ )
    """,
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
#: `<param name="password">hunter2</param>`; those without content are left out.
NAMED_ELEMENT = re.compile(
    rf"""
    (?P<key> < (?!input|meta) (?P<tag>[\w:.-]++) \s [^<>]{{0,200}}?(?<![\w-]){_NAMED} [^<>]{{0,200}}+ (?<!/)> ) (?!{MASK})
    (?: .{{0,1000}}?(?=</(?P=tag)) | [^<\r\n]++ )
    """,
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
#: A part of a form: `name="password"`, its other headers, an empty line, and the value up to the next part.
PART = re.compile(
    rf"""
    (?P<key> (?<![\w-])name=(?P<q>{_QUOTE}) (?=[\w-]*?(?:{_SECRET})) [\w-]++ (?:\[[\w-]*+\])*+ (?P=q) [^\r\n\\]{{0,200}}+
        (?:{_BREAK}[^\r\n\\]{{1,200}}+){{0,3}} {_BREAK}{{2}} ) (?!{MASK})
    .+?(?={_BREAK}--|\Z)
    """,
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
#: Options of one letter that are followed by a password, after the name of the client whose they are.
COMMAND = re.compile(
    rf"""
    (?P<key> (?<![\w-]) (?:
        (?:mysql\w*+|mariadb[\w-]*+|mongo\w*+|sshpass|docker\s+login) (?=\s)[^\r\n|&]{{0,200}}?\s-p\s*+
      | redis-cli (?=\s)[^\r\n|&]{{0,200}}?\s-a\s++
      | curl (?=\s)[^\r\n|&]{{0,200}}?\s(?:-u|--user)[\s=]*+(?P<q>["'])?+[^\s:"']{{1,100}}+:
    ) ) (?!-) (?(q)[^"'\r\n]++|{_VALUE})
    """,
    re.DOTALL | re.VERBOSE,
)
#: `scheme://user:`, and after it the whole word: a password may hold an `@` itself.
URL = re.compile(r"(?<=://)(?P<user>[^\s:/]*+):(?P<rest>\S++)")
BEARER = re.compile(r"\b(Bearer|Basic)([\s+]++)[\w.~+/=-]{8,}+", re.IGNORECASE)
#: A word that is encoded for a URL, at least in part.
ENCODED = re.compile(r"(?<!\S)\S*?%[0-9A-Fa-f]{2}\S*+")
#: What is known by its looks: keys and tokens of Stripe, GitHub, GitLab, OpenAI, Slack, AWS and Google, and our own.
KNOWN = re.compile(
    rf"""{_START} (?:
        (?:sk|rk|pk|whsec)_(?:live|test)?_?[A-Za-z0-9+/=]{{8,}}+
      | hf_[\w-]{{16,}}+
      | (?:sk|rk|pk)-[\w-]{{8,}}+
      | (?:gh[opsur]|github_pat)_\w{{8,}}+
      | glpat-[\w-]{{8,}}+
      | xox[a-z]-[\w-]{{8,}}+
      | (?:AKIA|ASIA)[A-Z0-9]{{12,}}+
      | AIza[\w-]{{30,}}+
      | eyJ[\w-]{{8,}}+(?:\.[\w-]++)++
    )""",
    re.VERBOSE,
)
KNOWN_BY = (
    "sk_", "rk_", "pk_", "whsec_", "hf_", "sk-", "rk-", "pk-", "gh", "glpat-", "xox", "akia", "asia", "aiza", "eyj",
)  # fmt: skip
#: The secret half of `pi_…_secret_…`: the first half is the id, which an operator looks for.
CLIENT_SECRET = re.compile(rf"(?P<id>{_START}(?:pi|seti|src|cs)_\w{{1,120}}?_secret_)\w++")
#: The token of Django's links to reset a password: `/reset/MQ/d3hx5f-0123…/`.
RESET = re.compile(r"(?<=/)[0-9a-z]{6,7}-[0-9a-f]{32}(?![\w-])")
WEBHOOK = re.compile(r"(?P<host>hooks\.slack\.com/\w++/)\S++")
PRIVATE_KEY = re.compile(
    r"(?s)-----BEGIN [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END[A-Z -]{0,50}|\Z)"
)
