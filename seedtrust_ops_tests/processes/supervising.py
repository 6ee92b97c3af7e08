"""A supervisor for its tests to kill: keeps the shell script it is given, until it is told to stop.

Run as `python -m seedtrust_ops_tests.processes.supervising SCRIPT`.
"""

import os
import sys

from seedtrust_ops.processes.program import Program
from seedtrust_ops.processes.running import print_line, told_to_stop
from seedtrust_ops.processes.supervisor import Supervisor

if __name__ == "__main__":
    program = Program("script", ("sh", "-c", sys.argv[1]), dict(os.environ), stop_seconds=1)
    with told_to_stop() as stop:
        Supervisor([program], print_line()).run(stop)
