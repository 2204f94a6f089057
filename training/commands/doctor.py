"""`doctor`: what is wrong with this machine or realm, and what to do about it."""

from dataclasses import asdict

from core.checkpoints import sweep
from training.commands.verb import verb
from training.doctor import Finding, examine
from training.realm import Realm
from training.terminal import styled, visible

_SIGNS = {"ok": ("ok", "green"), "warning": ("look", "gold"), "error": ("bad", "red")}


def register(verbs) -> None:
    parser = verb(verbs, "doctor", doctor, "check machine, installation and realm; exit 1 where something is wrong")
    parser.add_argument(
        "--fix", action="store_true", help="make missing folders, remove half-built checkpoints when nothing runs"
    )
    parser.add_argument(
        "--deep", action="store_true", help="hash every checkpoint and quest, check databases and promises I1-I5"
    )


def doctor(realm: Realm) -> int:
    if realm.args.fix:
        realm.paths.make()
        if not realm.runs:
            sweep(realm.paths)
    findings = examine(realm.paths, realm.args.deep)
    realm.report([asdict(finding) for finding in findings], lambda: "\n".join(map(_line, findings)))
    return 1 if any(finding.level == "error" for finding in findings) else 0


def _line(finding: Finding) -> str:
    sign, style = _SIGNS[finding.level]
    more = "".join(f"\n{'':18}{visible(words)}" for words in (finding.remedy, finding.help) if words)
    return f"{styled(f'{sign:5}', style)}{finding.code:12} {visible(finding.text)}{more}"
