"""How much of the machine a run uses, sampled beside it under the names that MLflow shows on a tab of their own."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any

from gymtrain_trackers import Metric


class SystemMetrics:
    """Samples processor and memory in a thread of its own: at the beginning, every ten seconds, and at the end.

    Args:
        first: The number of the first sample: a run that goes on goes on counting.
    """

    SECONDS_BETWEEN_SAMPLES = 10.0
    FIRST_KEY = "system/cpu_utilization_percentage"

    def __init__(self, first: int = 0) -> None:
        # Gathered here and fetched by the thread that trains: what logging raises belongs there.
        self._samples: deque[Metric] = deque()
        self._stopped = threading.Event()
        self._count = first
        self._thread = threading.Thread(target=self._run, name="system-metrics", daemon=True)

    def start(self) -> None:
        """Begin to sample."""
        self._thread.start()

    def stop(self) -> None:
        """Take a last sample, so that the shortest run has two."""
        self._stopped.set()
        self._thread.join()

    def take(self) -> list[Metric]:
        """Return what was sampled since the last call."""
        return [self._samples.popleft() for _ in range(len(self._samples))]

    def _run(self) -> None:
        import psutil

        process = psutil.Process()
        psutil.cpu_percent()  # the first call begins the interval that the next one measures
        process.cpu_percent()
        self._sample(psutil, process)
        while not self._stopped.wait(self.SECONDS_BETWEEN_SAMPLES):
            self._sample(psutil, process)
        self._sample(psutil, process)

    def _sample(self, psutil: Any, process: Any) -> None:
        memory = psutil.virtual_memory()
        now = time.time()
        values = {
            self.FIRST_KEY: psutil.cpu_percent(),
            "system/system_memory_usage_megabytes": memory.used / 1e6,
            "system/system_memory_usage_percentage": memory.percent,
            "system/process_memory_megabytes": process.memory_info().rss / 1e6,
            "system/process_cpu_percentage": process.cpu_percent(),
        }
        self._samples.extend(Metric(key, value, self._count, now) for key, value in values.items())
        self._count += 1
