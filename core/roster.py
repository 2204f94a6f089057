"""The heroes of a realm: who is known, where each stands, and the pointers when another is switched on. It loads no model.

A hero is known by its profile in config.json or by its checkpoints; the one that is switched on always is. Weights, standing,
record, floor and experience are each hero's own; the three pointers of the Vault are those of the one that is switched on.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from core.checkpoints import Manifest, manifests, pointed, read, set_champion, set_current, set_tip
from core.config import Config
from core.errors import CheckpointError
from core.hero_profile import HeroProfile
from core.ledger import Ledger
from core.paths import RealmPaths
from core.progress import mastered_in

HATCHED = "micro"  # what checkpoint 0 of a hatched hero says in place of a base


@dataclass(frozen=True)
class Known:
    """A hero and its checkpoints, newest first; `on`: whether it is the one that is trained."""

    name: str
    on: bool
    base_model: str | None
    checkpoints: tuple[Manifest, ...]
    here: Manifest | None

    def facts(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name,
            "on": self.on,
            "base_model": self.base_model,
            "checkpoint": self.here.id if self.here else None,
            "global_step": self.here.step if self.here else 0,
            "mastered": mastered_in(self.here),
            "standing": self.standing,
        }

    @property
    def standing(self) -> str:
        """In words, e.g. `BIN 2 levels, REV 5 levels mastered`."""
        if self.here is None:
            return "not born yet"
        levels = {name: len(each) for name, each in mastered_in(self.here).items()}
        told = ", ".join(f"{name} {count} level{'s' * (count > 1)}" for name, count in levels.items())
        return f"{told} mastered" if told else "no level mastered yet"


def known_heroes(paths: RealmPaths, config: Config, ledger: Ledger) -> dict[str, Known]:
    """All heroes by name: the one that is switched on first, then those with a profile, then those of the Vault."""
    own: dict[str, list[Manifest]] = defaultdict(list)
    for manifest in manifests(paths):
        own[manifest.hero].append(manifest)
    names = dict.fromkeys([config.hero.name, *config.heroes, *sorted(own)])
    left = {row["id"] for row in ledger.all("SELECT id FROM checkpoints WHERE rolled_back IS NOT NULL")}
    tip = _tip(paths)
    return {
        name: Known(
            name,
            name == config.hero.name,
            _base(config, name, own[name]),
            tuple(own[name]),
            tip if tip and tip.hero == name else _newest(own[name], left),
        )
        for name in names
    }


def _tip(paths: RealmPaths) -> Manifest | None:
    tip = pointed(paths.tip)
    try:
        return read(paths.vault / tip) if tip else None
    except CheckpointError:
        return None


def _newest(own: list[Manifest], left: set[str]) -> Manifest | None:
    """Where a hero goes on whose tip nobody points to: not on a branch, nor at what a rollback left if there is anything else."""
    way = [manifest for manifest in own if manifest.branch is None]
    return next((manifest for manifest in way if manifest.id not in left), next(iter(way), None))


def _base(config: Config, name: str, own: list[Manifest]) -> str | None:
    """What it was born from, as far as profile or checkpoint 0 tell; of the hero that is switched on, what it is to be."""
    profile = config.heroes.get(name, HeroProfile())
    born = next((manifest.settings.get("base_model") for manifest in own if manifest.step == 0), None)
    return profile.base_model or born or (config.hero.base_model if name == config.hero.name else None)


def take_up(paths: RealmPaths, ledger: Ledger, hero: Known) -> None:
    """The pointers lead to where `hero` stands, to its newest promoted checkpoint and to its champion; they stay where they
    are if it is not born yet. Whoever wakes it up looks whether the files are whole."""
    if hero.here is None:
        return
    query = "SELECT id FROM checkpoints WHERE hero=? AND state='promoted' AND gone IS NULL AND rolled_back IS NULL"
    promoted = {row["id"] for row in ledger.all(query, (hero.name,))}
    blessed = [manifest for manifest in hero.checkpoints if manifest.id in promoted] or [hero.here]
    set_tip(paths, hero.here.id)
    set_current(paths, blessed[0].id)
    set_champion(paths, max(blessed, key=lambda manifest: (manifest.evaluation, manifest.step)).id)
