"""``python -m spiketrack_deploy`` is the ``spiketrack`` command.

This module decides nothing.
"""

from spiketrack_deploy.cli.main import main

if __name__ == "__main__":
    main()
