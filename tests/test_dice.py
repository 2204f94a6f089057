"""Dice, rules, experience and the game: pure parts of Roll-to-Train, against theory."""

import subprocess
import sys
from collections import Counter

import pytest
import torch

from core.dice import (
    Barbarian,
    Cleric,
    ExperienceSystem,
    Fighter,
    Game,
    GradientOoze,
    LossDragon,
    Outcome,
    Paladin,
    Rogue,
    TorchChance,
    WeightWraith,
    Wizard,
    judge,
    throw,
)
from core.dice.abilities import LONG_REST, SHORT_REST
from core.dice.characters import CLASSES
from core.dice.dice import Roll, chances
from core.dice.rules import RULES
from core.dice_config import Dice, modifier_of, sides_of, usual_dc
from core.errors import UserError
from core.paths import CHECKOUT

ROLLS = 100_000
CHI2_SURELY = {
    3: 21.1,
    5: 25.7,
    7: 29.9,
    9: 33.7,
    11: 37.4,
    19: 50.8,
    99: 171.0,
}  # exceeded by fair dice once in 10,000


class Fixed:
    """Dice that fall as they are told to; what is asked beyond that is a 4 of 6, or no monster."""

    def __init__(self, *naturals: int, shares: tuple[float, ...] = ()):
        self.naturals, self.shares = list(naturals), list(shares)

    def die(self, sides: int) -> int:
        return self.naturals.pop(0) if self.naturals else 4

    def share(self) -> float:
        return self.shares.pop(0) if self.shares else 0.99


def game(character=None, rules="readme", **options) -> Game:
    return Game(RULES[rules], character=character, **options)


def play(one: Game, *naturals: int, loss: float | None = None, shares: tuple[float, ...] = ()):
    return one.play(Fixed(*naturals, shares=shares), loss)


def chi2(found: Counter, expected: dict[int, float], count: int) -> float:
    return sum((found[face] - count * share) ** 2 / (count * share) for face, share in expected.items())


@pytest.mark.parametrize("die", ["d4", "d6", "d8", "d10", "d12", "d20", "d100"])
def test_every_die_is_fair(die):
    sides, chance = sides_of(die), TorchChance(seed=1)
    found = Counter(chance.die(sides) for _ in range(ROLLS))
    assert chi2(found, chances(sides), ROLLS) < CHI2_SURELY[sides - 1]


@pytest.mark.parametrize("edge", [1, -1], ids=["advantage", "disadvantage"])
def test_of_two_dice_the_better_or_the_worse_counts_as_theory_says(edge):
    chance = TorchChance(seed=2)
    rolls = [throw(chance, 20, edge) for _ in range(ROLLS // 2)]
    assert chi2(Counter(roll.natural for roll in rolls), chances(20, edge), len(rolls)) < CHI2_SURELY[19]
    assert all(roll.natural == (max if edge > 0 else min)(roll.thrown) for roll in rolls)
    assert sum(chances(20, edge).values()) == pytest.approx(1.0)


def test_modifiers_shift_the_share_of_successes_by_a_side_each():
    for intelligence, modifier in ((1, -5), (9, -1), (10, 0), (15, 2), (30, 10)):
        assert modifier_of(intelligence) == modifier
        succeed = [judge(Roll(20, natural, (natural,), modifier), 15).succeeds for natural in range(1, 21)]
        assert sum(succeed) == max(1, min(19, 6 + modifier))


def test_criticals_judge_the_natural_die_before_the_modifier():
    assert judge(Roll(20, 1, (1,), 30), 15) is Outcome.CRITICAL_FAILURE
    assert judge(Roll(20, 20, (20,), -30), 15) is Outcome.CRITICAL_SUCCESS
    assert judge(Roll(20, 13, (13,), 2), 15) is Outcome.SUCCESS
    assert judge(Roll(20, 13, (13,), 1), 15) is Outcome.FAILURE
    assert [usual_dc(die) for die in ("d4", "d6", "d20", "d100")] == [3, 5, 15, 75]
    assert usual_dc("d4", intelligence=6) == 2 and usual_dc("d20", intelligence=1) == 15
    with pytest.raises(UserError, match="dc 60 is out of reach"):
        Game.of(Dice(dc=60))


def test_rolls_follow_torchs_stream_unless_there_is_a_seed():
    def thrown(chance: TorchChance) -> list[int]:
        return [chance.die(20) for _ in range(20)]

    torch.manual_seed(3)
    first, before = thrown(TorchChance()), torch.get_rng_state()
    own = thrown(TorchChance(seed=3))
    assert torch.equal(before, torch.get_rng_state()), "a stream of its own touches no other"
    torch.manual_seed(3)
    assert thrown(TorchChance()) == first and thrown(TorchChance(seed=3)) == own
    torch.manual_seed(4)
    assert thrown(TorchChance()) != first


@pytest.mark.parametrize(
    "rules, scales",
    [("gentle", [None, 0.0, 0.8, 1.0]), ("methodology", [None, -0.25, 0.8, 1.0]), ("readme", [-1.0, -0.25, 0.8, 1.0])],
)
def test_each_set_of_rules_scales_as_its_table_says(rules, scales):
    one = game(rules=rules)
    assert [play(one, natural).scale for natural in (1, 10, 16, 20)] == scales
    assert [play(one, natural).discarded for natural in (1, 10, 16, 20)] == [scales[0] is None, False, False, False]


def test_a_scale_never_leaves_its_bounds_and_its_mean_is_the_tables():
    for rules in RULES.values():
        for modifier in (-5, 0, 10):
            for natural in range(1, 21):
                roll = Roll(20, natural, (natural,), modifier)
                assert -1 <= (rules.scale(judge(roll, 15), roll, 15) or 0) <= 1
    assert RULES["gentle"].mean_scale(20, 15) == pytest.approx((15 + 16 + 17 + 18 + 19 + 20) / 400)
    assert RULES["readme"].mean_scale(20, 15) == pytest.approx((105 - 91 - 20) / 400)


# The six classes


def test_every_class_has_two_abilities_with_a_text_and_keeps_its_state():
    for kind in CLASSES.values():
        assert len(kind.abilities) == 2 and all(ability.text.endswith(".") for ability in kind.abilities)
        one, other = kind(level=7), kind()
        one.own["raging"] = 3
        other.load_state_dict(one.state_dict())
        assert other.state_dict() == one.state_dict() and other.tier == 2
    with pytest.raises(ValueError, match="of a rogue, not of a wizard"):
        Wizard().load_state_dict(Rogue().state_dict())
    with pytest.raises(ValueError, match="level 1 to 20"):
        Cleric(level=21)


def test_charges_are_spent_refreshed_by_rests_and_grow_with_the_level():
    one = Fighter(level=4)
    assert one.charges == {"Second Wind": 1, "Action Surge": 1}
    assert one.spend(Fighter.WIND) and not one.spend(Fighter.WIND)
    one.rise()
    assert one.charges == {"Second Wind": 1, "Action Surge": 2}  # a second charge of each came with level 5
    one.rest("short")
    assert one.charges == {"Second Wind": 2, "Action Surge": 2}
    raging = Barbarian()
    assert raging.spend(Barbarian.RAGE)
    raging.rest("short")
    assert raging.charges["Rage"] == 0
    raging.rest("long")
    assert raging.charges["Rage"] == 1


def test_rests_come_by_turns():
    one = game(Barbarian())
    play(one, 2)
    for _ in range(LONG_REST - 1):
        play(one, 16)
    assert one.character.charges["Rage"] == 0
    play(one, 16)
    assert one.character.charges["Rage"] == 1
    other = game(Fighter())
    play(other, 2, 2)
    for _ in range(SHORT_REST - 1):
        play(other, 16)
    assert other.character.charges["Second Wind"] == 0
    play(other, 16)
    assert other.character.charges["Second Wind"] == 1


def test_arcane_recovery_raises_the_learning_rate_for_five_turns_after_two_failures():
    one = game(Wizard())
    rates = [play(one, natural).rate_factor for natural in (2, 1, 16, 16, 2, 2, 16, 16)]
    assert rates == [1, 1, 1.5, 1.5, 1.5, 1.5, 1.5, 1]
    assert one.character.charges["Arcane Recovery"] == 0
    other = game(Wizard(level=5))
    assert [play(other, natural).rate_factor for natural in (2, 2, 2)][-1] == 1.75


def test_spell_mastery_raises_the_learning_rate_of_every_success():
    one = game(Wizard(level=9))
    assert [play(one, natural).rate_factor for natural in (16, 2, 20)] == pytest.approx([1.15, 1, 1.15])
    assert play(game(Wizard(level=2)), 16).rate_factor == 1
    assert play(one, 16).gradient_factor == 1


def test_sneak_attack_boosts_the_gradient_with_advantage_or_a_high_die():
    one = game(Rogue(level=3))
    assert [play(one, natural, 5, 6).gradient_factor for natural in (16, 17)] == pytest.approx([1, 1 + 11 / 30])
    assert play(game(Rogue(), edge=1), 16, 3, 6).gradient_factor == pytest.approx(1.2)
    assert play(game(Rogue(), edge=-1), 16, 18, 6).gradient_factor == 1
    assert play(game(Rogue(), edge=-1, dc=5), 7, 7, 6).gradient_factor == 1, (
        "doubles with disadvantage are no advantage"
    )
    assert play(one, 1, 6, 6).gradient_factor == 1


def test_cunning_action_makes_a_failure_just_reach_the_dc():
    one = game(Rogue(level=3))
    turn = play(one, 2)
    assert turn.outcome is Outcome.SUCCESS and turn.scale == 15 / 20
    assert play(one, 2).scale < 0, "its charge is spent"
    assert play(game(Rogue(level=3)), 1).outcome is Outcome.CRITICAL_FAILURE


def test_second_wind_rolls_a_failure_again_with_the_tier_added():
    turn = play(game(Fighter(level=5)), 1, 13)
    assert turn.roll.natural == 13 and turn.roll.total == 15 and turn.outcome is Outcome.SUCCESS


def test_action_surge_takes_a_critical_step_twice():
    one = game(Fighter(level=3))
    assert [play(one, natural).steps for natural in (16, 20, 20)] == [1, 2, 1]
    assert play(game(Fighter()), 20).steps == 1


def test_healing_word_asks_for_the_kept_weights_when_the_loss_has_risen():
    one = game(Cleric())
    assert play(one, 16, loss=1.0).keep
    assert not play(one, 16, loss=1.2).restore
    turn = play(one, 16, loss=3.0)
    assert turn.restore and turn.discarded and turn.factor == 0 and not turn.keep
    assert not play(one, 16, loss=9.0).restore, "its charge is spent"


def test_a_cleric_keeps_good_weights_only():
    one = game(Cleric())
    kept = [play(one, 16, loss=loss).keep for loss in [1.0] * 21 + [1.02] * 25 + [0.5]]
    assert [place for place, keep in enumerate(kept) if keep] == [0, 20, 46]


def test_divine_intervention_turns_the_worst_into_the_best_once_and_saves_from_no_number():
    one = game(Cleric(level=3))
    assert [play(one, 1, loss=1.0).outcome for _ in range(2)] == [Outcome.CRITICAL_SUCCESS, Outcome.CRITICAL_FAILURE]
    assert not one.saves()
    other = game(Cleric(level=3))
    assert not other.saves(), "nothing is kept yet"
    play(other, 16, loss=1.0)
    assert other.saves() and not other.saves()
    assert not game().saves()


def test_rage_strikes_harder_for_ten_turns_at_a_higher_dc():
    one = game(Barbarian())
    turns = [play(one, 2)] + [play(one, 18) for _ in range(11)]
    assert [turn.gradient_factor for turn in turns] == [1] + [1.5] * 10 + [1]
    assert [turn.dc for turn in turns] == [15] + [17] * 10 + [15]


def test_reckless_attack_has_advantage_and_pays_double_for_a_failure():
    one = game(Barbarian(level=3))
    play(one, 2)
    best, worst, after = play(one, 3, 18), play(one, 4, 5), play(one, 18, 3)
    assert best.roll.natural == 18 and best.gradient_factor == 1.5
    assert worst.roll.natural == 5 and worst.factor == pytest.approx(-2 * 12 / 20)
    assert after.roll.natural == 3 and after.gradient_factor == 1, "it stumbles, and does not attack recklessly"
    assert play(one, 3, 18).roll.natural == 18


def test_the_aura_adds_the_tier_and_halves_the_worst():
    turn = play(game(Paladin(level=9)), 12)
    assert turn.roll.total == 15 and turn.outcome is Outcome.SUCCESS
    assert play(game(Paladin()), 1).factor == -0.5
    assert play(fought(LossDragon, character=Paladin()), 1).factor == -0.5
    assert play(game(Paladin(), rules="gentle"), 1).scale is None


def test_divine_smite_doubles_a_critical_success():
    one = game(Paladin(level=3))
    assert [play(one, natural).gradient_factor for natural in (16, 20, 20)] == [1, 2, 1]


# Monsters and experience


def fought(kind, **options) -> Game:
    one = game(experience=ExperienceSystem(), **options)
    one.monster = kind(1, seed=9)
    return one


def test_an_encounter_comes_by_chance_one_of_three_and_never_two_at_once():
    one = game(encounter_chance=0.3, experience=ExperienceSystem(300))
    turn = play(one, 2, 77, 12, shares=(0.29,))
    assert isinstance(one.monster, LossDragon) and one.monster.level == 3 and one.monster.hit_points == 50
    assert [happening.code for happening in turn.happenings] == ["encounter"] and turn.roll.natural == 12
    play(one, 12, shares=(0.0,))
    assert isinstance(one.monster, LossDragon)
    assert play(game(encounter_chance=0.3), 12, shares=(0.3,)).happenings == []
    met = Counter()
    for seed in range(300):
        other = game(encounter_chance=1.0)
        other.play(TorchChance(seed))
        met[other.monster.name] += 1
    assert len(met) == 3 and min(met.values()) > 60


def test_the_ooze_halves_gradients_and_the_dragon_raises_the_loss_by_half():
    assert play(fought(GradientOoze), 16).factor == pytest.approx(0.8 * 0.5)
    turn = play(fought(LossDragon), 16)
    assert turn.loss_factor == 1.5 and turn.factor == pytest.approx(0.8 * 1.5)


def test_the_wraith_touches_weights_anew_in_each_turn_as_long_as_it_lives():
    one = fought(WeightWraith)
    seeds = {one.haunting for _ in range(2)}
    play(one, 16)
    seeds.add(one.haunting)
    assert len(seeds) == 2
    one.monster.hit_points = 1
    play(one, 16)
    assert one.monster is None and one.haunting is None
    assert fought(GradientOoze).haunting is None


def test_good_rolls_slay_a_monster_and_the_fights_experience_counts_double():
    one = fought(GradientOoze)  # 30 hit points
    lost = [(play(one, natural), one.monster.hit_points)[1] for natural in (1, 10, 16, 15)]
    assert lost == [30, 30, 22, 14]
    assert one.experience.points == 0 + 2 + 10 + 10
    turn = play(one, 20)
    assert one.monster is None and one.experience.points == 2 * (22 + 40)
    assert [happening.code for happening in turn.happenings] == ["slain", "level_up"]


def test_experience_makes_levels_and_levels_a_bonus():
    one = ExperienceSystem()
    assert [ExperienceSystem.needed(level) for level in (1, 2, 3, 20)] == [0, 100, 300, 19_000]
    assert one.level == 1 and one.to_next == 100 and one.gain(99) == 0 and one.gain(201) == 2
    assert one.level == 3 and one.bonus == 1 and one.to_next == 300
    assert one.reward(Outcome.CRITICAL_SUCCESS) == 0 and one.points == 340
    other = ExperienceSystem(10**6)
    assert other.level == 20 and other.to_next is None
    other.load_state_dict(one.state_dict())
    assert other == one
    with pytest.raises(ValueError, match="points = -5"):
        ExperienceSystem(-5)
    with pytest.raises(ValueError, match="not lost"):
        one.gain(-1)


def test_a_level_of_experience_raises_the_character_and_every_roll():
    one = game(Fighter(level=4), experience=ExperienceSystem(295))
    assert play(one, 16).roll.total == 16
    assert one.character.level == 5 and play(one, 16).roll.total == 17


def test_a_game_goes_on_from_its_state_as_if_nothing_had_happened():
    def fresh() -> Game:
        return game(Wizard(), experience=ExperienceSystem(), encounter_chance=0.3, rules="methodology")

    whole, first, second = fresh(), fresh(), fresh()
    chance, other = TorchChance(5), TorchChance(5)
    expected = [whole.play(chance) for _ in range(60)]
    found = [first.play(other) for _ in range(30)]
    second.load_state_dict(first.state_dict())
    assert found + [second.play(other) for _ in range(30)] == expected
    assert second.state_dict() == whole.state_dict()
    with pytest.raises(ValueError, match="has none"):
        game(experience=ExperienceSystem()).load_state_dict(whole.state_dict())


def test_the_game_itself_needs_no_torch():
    program = "import sys, core.dice.game; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
