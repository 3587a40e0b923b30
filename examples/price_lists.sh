#!/bin/sh
# The counts that a bundle recorded, under several price lists side by side: sh examples/price_lists.sh BUNDLE [PROFILE ...]
# A PROFILE is a bundled name (spiketrack targets) or a TOML file. Nothing is run again: counts do not depend on prices.
set -eu
HERE=$(dirname "$0")
PATH=$HERE/../.venv/bin:$PATH
BUNDLE=$1
shift
if [ $# -eq 0 ]; then set -- loihi2 loihi1 cmos45_int8 "$HERE/my_chip.toml"; fi

for profile; do
    set -- "$@" --profile "$profile"
    shift
done
spiketrack energy "$BUNDLE" "$@"
