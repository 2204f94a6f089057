"""The realm's numbers under Prometheus' names and in its text format. It reads what it is given and keeps nothing.

Names are prefix, base unit, and `_total` for what only grows (prometheus.io/docs/practices/naming). What is not known is
left out: an absent series says so better than a zero.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from core.checkpoints import pointed, read
from core.errors import CheckpointError
from core.paths import RealmPaths

BATTLE = {  # key of status["battle"]: name and help
    "loss": ("realm_train_loss", "Training loss of the newest step, nats per trained token."),
    "validation_loss": ("realm_train_validation_loss", "Newest held-out loss of the battle, nats per trained token."),
    "token_accuracy": ("realm_train_token_accuracy_ratio", "Share of held-out tokens that the hero holds most likely."),
    "learning_rate": ("realm_train_learning_rate", "Learning rate of the newest step."),
    "gradient_norm": ("realm_train_gradient_norm", "Norm of the newest step's gradient, before clipping."),
    "tokens_per_second": ("realm_train_tokens_per_second", "Tokens a second over the newest steps."),
    "mfu": ("realm_train_mfu_ratio", "Model FLOPs utilisation over the newest steps."),
    "step": ("realm_battle_steps", "Optimizer steps that the battle has done."),
    "total_steps": ("realm_battle_total_steps", "Optimizer steps that the battle has in all."),
    "eta_seconds": ("realm_battle_eta_seconds", "Seconds until the battle's end, at its present speed."),
}
GPU = {
    "memory_used_bytes": ("realm_gpu_memory_used_bytes", "GPU memory in use, by whomever.", 1),
    "memory_total_bytes": ("realm_gpu_memory_total_bytes", "GPU memory.", 1),
    "utilization_percent": ("realm_gpu_utilization_ratio", "Share of time in which the GPU computed.", 0.01),
    "temperature_celsius": ("realm_gpu_temperature_celsius", "GPU temperature.", 1),
    "power_watts": ("realm_gpu_power_watts", "Power that the GPU draws.", 1),
}
MACHINE = {
    "cpu_percent": ("realm_cpu_utilization_ratio", "Share of all processors in use.", 0.01),
    "memory_used_bytes": ("realm_memory_used_bytes", "Main memory in use, by whomever.", 1),
    "memory_total_bytes": ("realm_memory_total_bytes", "Main memory.", 1),
    "disk_total_bytes": ("realm_disk_total_bytes", "Size of the realm's disk.", 1),
}


def exposition(status: dict[str, Any], machine: dict[str, Any], tokens: int, paths: RealmPaths) -> bytes:
    """The text of /metrics. `tokens`: trained in the hero's life; the rest is `status --json` and the machine's readings."""
    registry = CollectorRegistry()
    registry.register(
        _Readings([*_training(status, tokens), *_realm(status), *_machine(status, machine), *_vault(status, paths)])
    )
    return generate_latest(registry)


class _Readings(Collector):
    def __init__(self, readings: list[Metric]):
        self._readings = readings

    def collect(self) -> Iterable[Metric]:
        return self._readings


def _gauge(name: str, text: str, value: float | None) -> Iterator[Metric]:
    if value is not None:
        yield GaugeMetricFamily(name, text, value)


def _by(
    name: str, text: str, label: str, values: Iterable[tuple[Any, float | None]], kind=GaugeMetricFamily
) -> Iterator[Metric]:
    family = kind(name, text, labels=[label])
    for key, value in values:
        if value is not None:
            family.add_metric([str(key)], value)
    if family.samples:
        yield family


def _training(status: dict[str, Any], tokens: int) -> Iterator[Metric]:
    hero, battle = status["hero"], status["battle"] or {}
    yield CounterMetricFamily("realm_train_steps", "Optimizer steps of the hero's life.", hero["global_step"])
    yield CounterMetricFamily("realm_train_tokens", "Tokens of the rows in all recorded steps.", tokens)
    for key, (name, text) in BATTLE.items():
        yield from _gauge(name, text, battle.get(key))
    yield GaugeMetricFamily("realm_hero_level", "Level: 1 + global step // 1000.", hero["level"])
    yield from _gauge("realm_hero_parameters", "Weights of the hero.", hero["parameters"])
    names = {"name": hero["name"], "model": hero["model"] or "", "checkpoint": status["current_model"] or ""}
    yield InfoMetricFamily("realm_hero", "The hero, and the checkpoint that models/current_model leads to.", names)


def _realm(status: dict[str, Any]) -> Iterator[Metric]:
    yield from _by("realm_jobs", "Quests by the folder they lie in.", "state", status["queue"].items())
    yield GaugeMetricFamily("realm_paused", "Whether training is paused.", status["paused"])
    services = status["services"]
    up = ((service["name"], service["state"] == "running") for service in services)
    yield from _by("realm_service_up", "Whether the service is alive and shows it.", "service", up)
    restarts = ((service["name"], service["restarts"]) for service in services)
    yield from _by(
        "realm_service_restarts", "How often the service was started again.", "service", restarts, CounterMetricFamily
    )
    ages = ((service["name"], service["heartbeat_age_seconds"]) for service in services)
    yield from _by(
        "realm_service_heartbeat_age_seconds", "Seconds since the service showed that it lives.", "service", ages
    )
    codes = [alert["code"] for alert in status["alerts"]]
    alerts = ((code, codes.count(code)) for code in sorted(set(codes)))
    yield from _by("realm_alerts", "Alerts of the last day that were not mended, by code.", "code", alerts)


def _machine(status: dict[str, Any], machine: dict[str, Any]) -> Iterator[Metric]:
    for key, (name, text, scale) in MACHINE.items():
        yield GaugeMetricFamily(name, text, machine[key] * scale)
    for key, (name, text, scale) in GPU.items():
        known = ((gpu["index"], gpu[key] * scale) for gpu in status["gpus"] if gpu.get(key) is not None)
        yield from _by(name, text, "gpu", known)


def _vault(status: dict[str, Any], paths: RealmPaths) -> Iterator[Metric]:
    disk = status["disk"]
    yield GaugeMetricFamily("realm_disk_free_bytes", "Bytes free on the realm's disk.", disk["free_bytes"])
    yield GaugeMetricFamily("realm_vault_bytes", "Bytes of all checkpoints.", disk["used_by_vault_bytes"])
    states = ((state, state == disk["state"]) for state in ("ok", "pruning", "not_claiming", "paused"))
    yield from _by("realm_disk_state", "What the realm does about its disk.", "state", states)
    try:
        tip = read(paths.vault / (pointed(paths.tip) or "none"))
    except CheckpointError:  # none yet, or none that can be read
        return
    yield from _gauge(
        "realm_checkpoint_save_seconds",
        "Seconds that the newest checkpoint took to write, flush and hash.",
        tip.seconds,
    )
    yield GaugeMetricFamily("realm_checkpoint_bytes", "Bytes of the newest checkpoint.", tip.bytes)
    yield GaugeMetricFamily(
        "realm_checkpoint_created_timestamp_seconds", "When the newest checkpoint was written.", tip.created
    )
