#!/bin/sh
# My checkpoint on my video: sh examples/my_tracker.sh [MODEL [VIDEO x,y,w,h [FOLDER]]]
# MODEL: a .pth, .pt or .safetensors file with official state-dict keys, or the name of a bundled model. VIDEO: a file
# (give a folder of images with --frames instead). x,y,w,h: the target in the first frame, in pixels. FRAMES=20 in the
# environment stops after so many frames.
set -eu
PATH=$(dirname "$0")/../.venv/bin:$PATH
MODEL=${1:-spiketrack-nano}
OUT=${4:-export/my-tracker}

if [ $# -ge 3 ]; then set -- --video "$2" --init "$3"; else set --; fi
spiketrack inspect "$MODEL"
spiketrack-export "$MODEL" --target loihi2 "$@" ${FRAMES:+--max-frames "$FRAMES"} -o "$OUT" --force
spiketrack verify "$OUT"
echo "open $OUT/report.html"
