"""``python -m harness``: the command line without the installed script (``accelerate launch -m harness``)."""

from harness.cli import main

raise SystemExit(main())
