"""A supervisor in its own process, so that tests can kill it; it keeps one shell script running.

Run as `python -m seedtrust_ops_tests.supervisor.supervisor_process SCRIPT`.
"""

import os
import sys

from seedtrust_ops.supervisor.program import Program
from seedtrust_ops.supervisor.supervisor import Supervisor
from seedtrust_ops.supervisor.worker_main import line_printer, stop_on_signals

if __name__ == "__main__":
    program = Program("script", ("sh", "-c", sys.argv[1]), dict(os.environ), stop_seconds=1)
    with stop_on_signals() as stop:
        Supervisor([program], line_printer()).run(stop)
