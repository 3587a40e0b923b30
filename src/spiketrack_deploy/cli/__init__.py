"""The command line: parse, call :mod:`spiketrack_deploy.api`, print."""
