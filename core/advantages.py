"""How much better an answer is than its like: rewards compared within groups. Pure numpy; it knows no answers.

(reward - mean of the group) / (standard deviation + `TINY`): Shao et al. 2024, "DeepSeekMath", section 4.1.2. By the deviation of the
whole batch: Hu et al. 2025, "REINFORCE++". By none: Liu et al. 2025, "Understanding R1-Zero-Like Training", section 3.2. Deviations
have n - 1 degrees of freedom, as in TRL. Legend: R rewards, G groups.
"""

from dataclasses import dataclass

import numpy as np

TINY = 1e-4


@dataclass(frozen=True)
class Compared:
    """`advantages_R`; `alike_R`: whether all of its group have one reward, so that nothing can be learned from it.
    `spread_G`, `alike_G`: deviation of each group, and whether it is such a one."""

    advantages_R: np.ndarray
    alike_R: np.ndarray
    spread_G: np.ndarray
    alike_G: np.ndarray


def compared(rewards_R: np.ndarray, groups_R: np.ndarray, scale: str = "group") -> Compared:
    """Rewards by the others of their group, which is named beside each; who is alone in his is compared with all.

    `scale`: whose deviation divides, `group`, `batch` or `none`.
    """
    rewards_R = np.asarray(rewards_R, np.float64)
    _, group_R, count_G = np.unique(groups_R, return_inverse=True, return_counts=True)
    mean_G = np.bincount(group_R, rewards_R) / count_G
    square_G = np.bincount(group_R, (rewards_R - mean_G[group_R]) ** 2)
    spread_G = np.sqrt(square_G / np.maximum(count_G - 1, 1))
    low_G, high_G = np.full(len(count_G), np.inf), np.full(len(count_G), -np.inf)
    np.minimum.at(low_G, group_R, rewards_R)
    np.maximum.at(high_G, group_R, rewards_R)
    alike_G, alone_G = low_G == high_G, count_G == 1
    if alone_G.any():
        all_alike = rewards_R.min() == rewards_R.max()
        mean_G[alone_G], spread_G[alone_G], alike_G[alone_G] = rewards_R.mean(), _spread(rewards_R), all_alike
    divisor_R = {"group": spread_G[group_R] + TINY, "batch": _spread(rewards_R) + TINY, "none": 1.0}[scale]
    alike_R = alike_G[group_R]
    advantages_R = np.where(alike_R, 0.0, (rewards_R - mean_G[group_R]) / divisor_R)
    return Compared(advantages_R, alike_R, spread_G, alike_G)


def _spread(rewards_R: np.ndarray) -> float:
    return float(rewards_R.std(ddof=1)) if len(rewards_R) > 1 else 0.0
