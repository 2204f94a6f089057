"""What the NVIDIA driver says about the GPUs of this machine; it knows nothing about training.

No GPU, no driver or an unwilling one is an ordinary answer: an empty list, or null for a reading that is not offered.
"""

import time
from collections.abc import Callable
from typing import Any

RETRY_SECONDS = 60.0

_library: Any = None
_asked = -RETRY_SECONDS


def _open() -> Any:
    """The initialised driver library, or None; after a failure it is asked again once a minute."""
    global _library, _asked
    if _library is None and time.monotonic() - _asked >= RETRY_SECONDS:
        _asked = time.monotonic()
        try:
            import pynvml

            pynvml.nvmlInit()
            _library = pynvml
        except Exception:  # no library, no driver, no permission: this machine has no GPU that we can read
            _library = None
    return _library


def _try(reading: Callable[[], Any]) -> Any:
    try:
        return reading()
    except Exception:  # each card offers its own set of readings
        return None


def read_gpus() -> list[dict[str, Any]]:
    """One dictionary per GPU: index, name, utilization_percent, memory_used_bytes, memory_total_bytes,
    temperature_celsius, power_watts, power_limit_watts; every reading may be null."""
    nvml = _open()
    count = _try(nvml.nvmlDeviceGetCount) if nvml else 0
    if count is None:  # the driver went away; ask it anew
        _forget()
        return []
    return [_read(nvml, index) for index in range(count)]


def _forget() -> None:
    global _library
    _library = None


def _read(nvml: Any, index: int) -> dict[str, Any]:
    handle = _try(lambda: nvml.nvmlDeviceGetHandleByIndex(index))
    name = _try(lambda: nvml.nvmlDeviceGetName(handle))
    memory = _try(lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
    power = _try(lambda: nvml.nvmlDeviceGetPowerUsage(handle))
    limit = _try(lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle))
    return {
        "index": index,
        "name": name.decode(errors="replace") if isinstance(name, bytes) else name,
        "utilization_percent": _try(lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu),
        "memory_used_bytes": memory.used if memory else None,
        "memory_total_bytes": memory.total if memory else None,
        "temperature_celsius": _try(lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
        "power_watts": None if power is None else power / 1000,
        "power_limit_watts": None if limit is None else limit / 1000,
    }
