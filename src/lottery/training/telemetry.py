"""What the GPUs do, through NVML; nothing where there is no GPU."""

import logging
from typing import Any

log = logging.getLogger(__name__)


def gpu_telemetry() -> dict[str, float]:
    """Mean utilisation (percent), total memory in use (GiB) and power (W) of the visible GPUs.

    Utilisation is NVML's: the share of the last moments in which any kernel ran; 100 % does not
    mean efficient. An empty dictionary without a GPU or driver.
    """
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception as error:  # no library, no driver, no permission: never an error
        log.debug("no GPU telemetry: %s", error)
        return {}
    try:
        devices: list[Any] = [
            pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())
        ]
        if not devices:
            return {}
        used = [pynvml.nvmlDeviceGetUtilizationRates(d).gpu for d in devices]
        return {
            "gpu_utilisation": sum(used) / len(used),
            "gpu_memory_gib": sum(pynvml.nvmlDeviceGetMemoryInfo(d).used for d in devices) / 2**30,
            "gpu_power_watts": sum(pynvml.nvmlDeviceGetPowerUsage(d) for d in devices) / 1000,
        }
    except pynvml.NVMLError as error:
        log.debug("no GPU telemetry: %s", error)
        return {}
    finally:
        pynvml.nvmlShutdown()
