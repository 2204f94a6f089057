"""One way in a process of its own: `python -m training.bench.ingesters NAME ROWS WORK RESULT.json`.

The clock starts after the imports and before the tokenizer is read. Memory is the process's peak.
"""

import resource
import sys
import time
from importlib import import_module
from pathlib import Path

import orjson

name, rows, work, result = sys.argv[1:]
module, _, how = name.partition(":")
run = import_module(f"{__package__}.{module}").run
began, busy = time.perf_counter(), time.process_time()
counts = run(Path(rows), Path(work), how)
facts = {
    **counts,
    "seconds": time.perf_counter() - began,
    "processor_seconds": time.process_time() - busy,
    "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
}
Path(result).write_bytes(orjson.dumps(facts))
