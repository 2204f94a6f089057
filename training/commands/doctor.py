"""`doctor`: what is wrong with this machine or realm, and what to do about it."""

from dataclasses import asdict

from core.checkpoints import sweep
from training.commands.verb import verb
from training.doctor import Finding, examine
from training.doctor.case import bad, look, ok
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
    parser.add_argument("--alert", action="store_true", help="send a test alert to every target that config.json names")


def doctor(realm: Realm) -> int:
    if realm.args.fix:
        realm.paths.make()
        if not realm.runs:
            sweep(realm.paths)
    findings = examine(realm.paths, realm.args.deep)
    if realm.args.alert:
        findings += _alerts(realm)
    realm.report([asdict(finding) for finding in findings], lambda: "\n".join(map(_line, findings)))
    return 1 if any(finding.level == "error" for finding in findings) else 0


def _alerts(realm: Realm) -> list[Finding]:
    """What became of a test alert to each target."""
    from monitoring.herald import try_all  # a client of the network: not for every verb

    config = realm.config
    tried = [
        bad("alerts", f"{name}: {problem}", "`config explain alerts` says how to write it")
        if problem
        else ok("alerts", f"{name}: sent")
        for name, problem in try_all(config.alerts, config.hero.name).items()
    ]
    return tried or [
        look("alerts", "config.json names nobody to be told", "`config set alerts.webhook URL`, or alerts.ntfy")
    ]


def _line(finding: Finding) -> str:
    sign, style = _SIGNS[finding.level]
    more = "".join(f"\n{'':18}{visible(words)}" for words in (finding.remedy, finding.help) if words)
    return f"{styled(f'{sign:5}', style)}{finding.code:12} {visible(finding.text)}{more}"
