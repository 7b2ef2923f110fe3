"""Whether the hardware is busy: GPUs through NVML, where there is one; waiting for input."""

import functools
import logging
import os
import statistics
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

log = logging.getLogger(__name__)

SECONDS = 0.5  # between looks at the GPUs; NVML itself averages over up to a second
WAITING = 0.15  # share of the time from which waiting for input is worth a sentence
PATIENCE = 2.0  # seconds to wait for the last sample: a driver that hangs must not stop training


class GpuSampler:
    """A context that samples the run's GPUs in a thread, for :meth:`means` and :meth:`joules`.

    Without NVML or a GPU there is no thread and nothing to report, and never an error.
    """

    def __init__(self) -> None:
        self._samples: list[dict[str, float]] = []
        self._joules: float | None = None
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="gpu-telemetry", daemon=True)

    def __enter__(self) -> "GpuSampler":
        if gpus():
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._left.set()
        if self._thread.is_alive():
            self._thread.join(PATIENCE)

    def means(self) -> dict[str, float]:
        """The mean of each quantity of :func:`sample` over the time within the context."""
        names = dict.fromkeys(name for s in self._samples for name in s)
        return {n: statistics.fmean(s[n] for s in self._samples if n in s) for n in names}

    def joules(self) -> float | None:
        """What the GPUs have used within the context, up to the last sample; None: not known.

        By their own counters or, where one of them has none, the power of each sample over the
        time since the one before.
        """
        return self._joules

    def _sample(self) -> None:
        first, before = energy(), time.perf_counter()
        self._joules = None if first is None else 0.0
        left = False
        while not left:  # and once more at the end, so that a short epoch has a sample too
            left = self._left.wait(SECONDS)
            found, counted, now = sample(), energy(), time.perf_counter()
            self._samples.append(found)
            if first is not None and counted is not None:
                self._joules = counted - first
            elif "gpu_power_watts" in found:
                self._joules = (self._joules or 0.0) + found["gpu_power_watts"] * (now - before)
            before = now


def sample() -> dict[str, float]:
    """Mean utilisation (percent), total memory in use (GiB) and total power (W) now.

    Of the GPUs of :func:`gpus`; a quantity that one of them does not tell is left out.
    Utilisation is NVML's: the share of the last moments in which any kernel ran; 100 % does not
    mean efficient.
    """
    devices = gpus()
    if not devices:
        return {}
    import pynvml

    quantities: dict[str, Callable[[], float]] = {
        "gpu_utilisation": lambda: statistics.fmean(
            pynvml.nvmlDeviceGetUtilizationRates(d).gpu for d in devices
        ),
        "gpu_memory_gib": lambda: (
            sum(pynvml.nvmlDeviceGetMemoryInfo(d).used for d in devices) / 2**30
        ),
        "gpu_power_watts": lambda: sum(map(pynvml.nvmlDeviceGetPowerUsage, devices)) / 1000,
    }
    found = {}
    for name, measure in quantities.items():
        try:
            found[name] = measure()
        except pynvml.NVMLError as error:  # not supported, no permission, the device is lost
            log.debug("no %s: %s", name, error)
    return found


def energy() -> float | None:
    """Joules that the GPUs of :func:`gpus` have used since their driver was loaded; their sum.

    None where one of them has no such counter (those before NVIDIA's Volta, a MIG instance).
    """
    devices = gpus()
    if not devices:
        return None
    import pynvml

    try:
        return float(sum(map(pynvml.nvmlDeviceGetTotalEnergyConsumption, devices)) / 1000)
    except pynvml.NVMLError as error:
        log.debug("no energy counter: %s", error)
        return None


@functools.cache
def gpus() -> tuple[Any, ...]:
    """NVML's handles of the GPUs that CUDA shows to this process; initialises NVML, once."""
    try:
        import pynvml

        pynvml.nvmlInit()
        devices = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        uuids = [pynvml.nvmlDeviceGetUUID(d) for d in devices]
        names = visible(os.environ.get("CUDA_VISIBLE_DEVICES"), uuids)
        return tuple(
            devices[n] if isinstance(n, int) else pynvml.nvmlDeviceGetHandleByUUID(n) for n in names
        )
    except Exception as error:  # no library, no driver, no permission
        log.debug("no GPU telemetry: %s", error)
        return ()


def visible(setting: str | None, uuids: list[str]) -> list[int | str]:
    """Which devices ``CUDA_VISIBLE_DEVICES`` leaves: positions, or the name of a MIG instance.

    As CUDA reads it: all if it is not set; positions or beginnings of ``uuids``, up to the first
    entry that names none. Where a node has GPUs of several kinds, CUDA counts them as NVML does
    only with ``CUDA_DEVICE_ORDER=PCI_BUS_ID``.
    """
    if setting is None:
        return list(range(len(uuids)))
    found: list[int | str] = []
    for entry in map(str.strip, setting.split(",")):
        named = [i for i, uuid in enumerate(uuids) if entry and uuid.startswith(entry)]
        if entry.startswith("MIG-"):
            found.append(entry)
        elif entry.isdecimal() and int(entry) < len(uuids):
            found.append(int(entry))
        elif len(named) == 1:
            found.append(named[0])
        else:
            break
    return found


def cores() -> int:
    """CPUs that this process may use: those of its job, not of the machine."""
    return len(os.sched_getaffinity(0))


def input_bound(waited: float, trained: float, *, decodes: bool, cores: int) -> str | None:
    """What to tell of ``trained`` seconds, ``waited`` of them for input; None if that is little.

    ``decodes`` and ``cores`` are those of :func:`remedy`. Less than a second in all is little
    too: such a share says nothing of a longer training.
    """
    if waited < 1 or waited < WAITING * trained:
        return None
    share = 100 * waited / trained
    return f"the network waited for its input {share:.0f} % of the time: {remedy(decodes, cores)}"


def remedy(decodes: bool, cores: int) -> str:
    """What is likely to help a network that waits for its input.

    ``decodes``: whether images are decoded when they are used; ``cores``: CPUs of this process.
    """
    if decodes:
        return (
            "images are decoded anew every time; decode them once with preprocess.py into arrays "
            "(format=array) and train with data=records"
        )
    return (
        f"give the job more CPU cores (it has {cores}) or, unless its data are in memory, "
        "faster storage"
    )
