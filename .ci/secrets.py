"""Look for passwords, tokens and private keys in every commit: ``python .ci/secrets.py [REPOSITORY]``.

Searches the text of all commits, their messages, and what was deleted since. Prints the commit, the file and the kind
of what it finds, never the secret itself.
"""

import re
import subprocess
import sys
from pathlib import Path

KINDS = {
    "a private key": r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----",
    "a key of AWS": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a token of GitHub": r"\b(?:gh[opsur]_[0-9A-Za-z]{36}|github_pat_[0-9A-Za-z_]{60,})",
    "a token of GitLab": r"\bglpat-[0-9A-Za-z_-]{20}",
    "a token of Hugging Face": r"\bhf_[0-9A-Za-z]{34}\b",
    "a token of PyPI": r"\bpypi-AgEIcHlwaS5vcmc[0-9A-Za-z_-]{50,}",
    "a token of npm": r"\bnpm_[0-9A-Za-z]{36}\b",
    "a key of Google": r"\bAIza[0-9A-Za-z_-]{35}\b",
    "a token of Slack": r"\bxox[abprs]-[0-9A-Za-z-]{10,}",
    "a key of a model service": r"\bsk-(?:ant-|proj-)?[0-9A-Za-z_-]{32,}",
    "a signed web token": r"\beyJ[0-9A-Za-z_-]{10,}\.eyJ[0-9A-Za-z_-]{10,}\.[0-9A-Za-z_-]{10,}",
    "a password in an address": r"\b[a-z][a-z0-9+]{2,}://[^\s/:@\"'<>{}$]+:[^\s/:@\"'<>{}$]{6,}@(?!example\.|localhost|127\.)",
}
ANY = re.compile("|".join(f"({pattern})" for pattern in KINDS.values()))


def search(repository: Path) -> list[str]:
    """One line for each secret in the history of a repository: commit, file and kind."""
    command = ["git", "-C", str(repository), "log", "--all", "-m", "-p", "--no-color", "--format=commit %H%n%B"]
    log = subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8", errors="replace")
    assert log.stdout is not None
    commit, file, found = "", "the message", []
    for line in log.stdout:
        if re.fullmatch(r"commit [0-9a-f]{40}\n", line):
            commit, file = line.split()[1][:12], "the message"
        elif line.startswith(("+++ ", "--- ")):
            file = line[4:].strip().removeprefix("a/").removeprefix("b/")
        for match in ANY.finditer(line):
            found.append(f"{commit}, {file}: {list(KINDS)[(match.lastindex or 1) - 1]}")
    if log.wait():
        raise SystemExit(f"git cannot read the history of {repository}")
    return list(dict.fromkeys(found))


if __name__ == "__main__":
    secrets = search(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1])
    print(*secrets, sep="\n", end="\n" if secrets else "")
    sys.exit("secrets in the history: revoke them first, since a copy of it may exist" if secrets else 0)
