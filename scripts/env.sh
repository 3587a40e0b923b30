#!/bin/sh
# Builds the project's Python environments; called by the Makefile, may be called by hand.
#
#   sh scripts/env.sh main    .venv       the package with everything but Lava (Python 3.10 to 3.13)
#   sh scripts/env.sh lava    .venv-lava  lava-nc alone, for the child process of the Lava engine; never fails the build
#   sh scripts/env.sh full    .venv-full  all in one, Python 3.10: lava-dl 0.6.0, torch 2.3.1, norse, nir (5.8 GB)
#
# VENV, VENV_LAVA and VENV_FULL name other folders; PYTHON names the interpreter to use for main. Versions are those of
# constraints/, which are known to be good; NEWEST=1 takes the newest that pyproject.toml allows instead.
# Each environment carries a stamp (a digest of what decides its content). A current stamp ends the script at once; an
# environment without one that still runs is completed in place; one that does not run, or belongs to another checkout,
# is made anew. Where wheels come from is pip's own configuration: where it offers a CPU build of PyTorch the main
# environment is about 1.5 GB, otherwise pip fetches the CUDA build and several GB more.
set -eu

ROOT=$(cd "$(dirname "$0")/.." && pwd)
cd "$ROOT"
VENV=${VENV:-.venv}
VENV_LAVA=${VENV_LAVA:-.venv-lava}
VENV_FULL=${VENV_FULL:-.venv-full}
STAMP=.spiketrack-stamp
NEW='--upgrade --upgrade-strategy eager'
export PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf '%s\n' "env: $*" >&2; }

# runs PYTHON MAJOR.MINOR: is this an interpreter of that version that really runs and can make environments?
# (A pyenv shim exists for every version ever installed and fails when that version is not selected.)
runs() {
    "$1" -c "import sys, venv, ensurepip; sys.exit('%d.%d' % sys.version_info[:2] != '$2')" >/dev/null 2>&1
}

# find_python MAJOR.MINOR: prints the first working interpreter of that version: PATH, pyenv, uv.
find_python() {
    for dir in $(printf '%s' "$PATH" | tr ':' ' '); do
        if [ -x "$dir/python$1" ] && runs "$dir/python$1" "$1"; then printf '%s\n' "$dir/python$1"; return 0; fi
    done
    for candidate in "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/"python$1" \
                     "${UV_PYTHON_INSTALL_DIR:-$HOME/.local/share/uv/python}"/cpython-"$1"*/bin/"python$1"; do
        if [ -x "$candidate" ] && runs "$candidate" "$1"; then printf '%s\n' "$candidate"; return 0; fi
    done
    if command -v uv >/dev/null 2>&1; then
        candidate=$(uv python find --no-project "$1" 2>/dev/null || true)
        if [ -n "$candidate" ] && runs "$candidate" "$1"; then printf '%s\n' "$candidate"; return 0; fi
    fi
    return 1
}

# wanted KIND: the stamp of an up-to-date environment. The checkout's place is part of it, because the editable install
# and the scripts in bin/ hold it.
wanted() {
    printf '%s%s %s %s\n' "$1" "${NEWEST:+-newest}" "$(cat pyproject.toml scripts/env.sh constraints/*.txt | cksum | tr -d ' ')" "$ROOT"
}

current() { [ -f "$2/$STAMP" ] && [ "$(cat "$2/$STAMP")" = "$(wanted "$1")" ] && "$2/bin/python" -c '' 2>/dev/null; }

# elsewhere DIR: was this environment made for another place of the checkout? Then its scripts point there.
elsewhere() {
    [ -f "$1/$STAMP" ] && case "$(cat "$1/$STAMP")" in *" $ROOT") return 1 ;; *) return 0 ;; esac
}

# usable DIR VERSIONS: does DIR hold an environment of one of the versions that runs and belongs to this checkout?
usable() {
    [ -x "$1/bin/python" ] || return 1
    if elsewhere "$1"; then return 1; fi
    for version in $2; do
        if runs "$1/bin/python" "$version"; then return 0; fi
    done
    return 1
}

# pins FILE: pip's options for the versions of FILE; for the newest where NEWEST is set or there is no such file.
pins() {
    if [ -z "${NEWEST:-}" ] && [ -f "$1" ]; then printf '%s\n' "-c $1"; else printf '%s\n' "$NEW"; fi
}

install_main() {
    version=$("$1/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    pip="$1/bin/python -m pip install -qq"
    pins=$(pins "constraints/py$version.txt")
    if ! "$1/bin/python" -c 'import torch' >/dev/null 2>&1; then
        say "installing PyTorch into $1 (about 1 GB with a CPU wheel; the CUDA build needs several GB)"
    fi
    # shellcheck disable=SC2086  # options, one word each
    if $pip $pins -e '.[dev]'; then return 0; fi
    if [ "$pins" = "$NEW" ]; then return 1; fi
    say "the versions of constraints/py$version.txt do not install here (see above); taking the newest ones"
    # shellcheck disable=SC2086
    $pip $NEW -e '.[dev]'
}

make_main() {
    if current main "$VENV"; then return 0; fi
    if [ -z "${PYTHON:-}" ] && usable "$VENV" "3.10 3.11 3.12 3.13"; then
        say "completing $VENV"
        if install_main "$VENV"; then wanted main >"$VENV/$STAMP"; return 0; fi
        # It may still serve, and what failed (no network, say) would fail in a new one as well.
        say "$VENV runs, but cannot be completed (see above); remove it to have it made anew"
        return 1
    fi
    # 3.11 first: on that version the suite ran with its constraints; then the newest.
    for version in 3.11 3.13 3.12 3.10; do
        if [ -n "${PYTHON:-}" ]; then
            runs "$PYTHON" "$version" || continue
            python=$PYTHON
        else
            python=$(find_python "$version") || continue
        fi
        say "making $VENV with Python $version"
        rm -f "$VENV/$STAMP"
        if "$python" -m venv --clear "$VENV" && install_main "$VENV"; then
            wanted main >"$VENV/$STAMP"
            say "$VENV is ready ($(du -sh "$VENV" | cut -f1))"
            return 0
        fi
        say "the packages do not install on Python $version; trying the next one"
    done
    say "no Python 3.10 to 3.13 that works was found in PATH, pyenv or uv; install one, or set PYTHON=/path/to/python3"
    return 1
}

# Pins of lava-nc 0.10.0; pip enforces them on 3.10 and has to be told on 3.11 and 3.12.
LAVA=lava-nc==0.10.0
LAVA_NEEDS='numpy>=1.24.4,<2 scipy<1.16 networkx<=2.8.7 asteval<0.10 scikit-learn>=1.5'

install_lava() {
    pip="$1/bin/python -m pip install -qq"
    # shellcheck disable=SC2086  # a list of requirements, one word each
    if runs "$1/bin/python" 3.10; then
        $pip $(pins constraints/lava-py3.10.txt) "$LAVA" $LAVA_NEEDS || $pip "$LAVA" $LAVA_NEEDS || return 1
    else
        $pip $LAVA_NEEDS && $pip --ignore-requires-python --no-deps "$LAVA" || return 1
    fi
    # Above 3.10 the dataclass rule refuses one class of lava-nc unless it is made hashable; the engine's worker does
    # the same before it imports lava.
    "$1/bin/python" - <<'CHECK'
import dataclasses, functools, sys
plain = dataclasses.dataclass
if sys.version_info >= (3, 11):
    dataclasses.dataclass = functools.partial(plain, unsafe_hash=True)
import lava.magma.compiler.var_model
dataclasses.dataclass = plain
import lava.magma.core.decorator, lava.proc.lif.process
CHECK
}

lava_missing() {
    say "Lava is not available: $1."
    say "Everything but the Lava engine works. To get it: install Python 3.10 (pyenv or uv), then 'make env-lava';"
    say "or set SPIKETRACK_LAVA_PYTHON to an interpreter that can import lava."
    return 0
}

make_lava() {
    if current lava "$VENV_LAVA"; then return 0; fi
    if usable "$VENV_LAVA" "3.10 3.11 3.12"; then
        if install_lava "$VENV_LAVA"; then wanted lava >"$VENV_LAVA/$STAMP"
        else lava_missing "$VENV_LAVA runs, but cannot be completed (see above); remove it to have it made anew"; fi
        return 0
    fi
    found=
    for version in 3.10 3.11 3.12; do
        python=$(find_python "$version") || continue
        found=yes
        say "making $VENV_LAVA with Python $version (lava-nc, about 350 MB)"
        rm -f "$VENV_LAVA/$STAMP"
        if "$python" -m venv --clear "$VENV_LAVA" && install_lava "$VENV_LAVA"; then
            wanted lava >"$VENV_LAVA/$STAMP"
            if [ "$version" != 3.10 ]; then
                say "$VENV_LAVA runs Python $version: the engine adapts lava-nc to it, which Lava does not support"
            fi
            return 0
        fi
        say "lava-nc does not install on Python $version"
        # Half an environment would be taken for a whole one by the engine.
        rm -rf "$VENV_LAVA"
    done
    if [ -n "$found" ]; then lava_missing "lava-nc 0.10.0 could not be installed (see above)"
    else lava_missing "no Python 3.10, 3.11 or 3.12 was found in PATH, pyenv or uv"; fi
}

make_full() {
    if current full "$VENV_FULL"; then return 0; fi
    if ! usable "$VENV_FULL" 3.10; then
        if ! python=$(find_python 3.10); then
            say "env-full needs Python 3.10 (lava-dl 0.6.0 and torch 2.3.1 allow no newer one); install it with pyenv or uv"
            return 1
        fi
        say "making $VENV_FULL with Python 3.10 (5.8 GB, some minutes: this PyTorch brings CUDA)"
        rm -f "$VENV_FULL/$STAMP"
        "$python" -m venv --clear "$VENV_FULL"
    fi
    "$VENV_FULL/bin/python" -m pip install -qq -e '.[lava,lava-dl,dev]' 'numpy<2' 'opencv-python-headless<5' 'opencv-contrib-python-headless<5' 'h5py<4'
    "$VENV_FULL/bin/python" -m pip check
    wanted full >"$VENV_FULL/$STAMP"
}

case "${1:-}" in
    main) make_main ;;
    lava) NEWEST=; make_lava ;;  # lava-nc is archived: there is nothing newer
    full) make_full ;;
    *) say "usage: sh scripts/env.sh main|lava|full"; exit 2 ;;
esac
