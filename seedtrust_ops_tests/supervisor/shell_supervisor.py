"""A supervisor for its tests to kill: keeps the shell script it is given, until it is told to stop.

Run as `python -m seedtrust_ops_tests.supervisor.shell_supervisor SCRIPT`.
"""

import os
import sys

from seedtrust_ops.supervisor.program import Program
from seedtrust_ops.supervisor.supervisor import Supervisor
from seedtrust_ops.supervisor.worker_main import print_line, told_to_stop

if __name__ == "__main__":
    program = Program("script", ("sh", "-c", sys.argv[1]), dict(os.environ), stop_seconds=1)
    with told_to_stop() as stop:
        Supervisor([program], print_line()).run(stop)
