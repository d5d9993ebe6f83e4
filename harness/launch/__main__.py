"""``python -m harness.launch NAME``: prints the path of a configuration; without a name, lists all."""

import sys

from harness import launch
from harness.errors import BadInput

try:
    print(launch.path(sys.argv[1]) if sys.argv[1:] else "\n".join(launch.names()))
except BadInput as error:
    sys.exit(f"harness: {error}")
