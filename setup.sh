# Sourced by ./run and ./test from the folder that they are in: makes var/venv and var/asterisk, or finds them made.

die() { printf '%s\n' "$*" >&2; exit 2; }

# A Python that is new enough; the first one of the names.
find_python() {
    local name
    for name in ${PBX_PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then
            command -v "$name"
            return
        fi
    done
    die "Python 3.11 or newer is needed. As root: apt-get install python3 python3-venv
(another Python: PBX_PYTHON=/path/to/python3 $0)"
}

# The stamp names what the environment was made for.
environment_is_made() {
    stamp="$PWD $(cat setup.cfg pyproject.toml | cksum)"
    [ "$(cat var/venv/.complete 2> /dev/null)" = "$stamp" ] && var/venv/bin/python -c '' 2> /dev/null
}

make_environment() {
    local python
    # Its scripts name the folder that they were made in: one that was moved, or never finished, is of no use.
    if ! grep -qs "^#!$PWD/var/venv/bin/" var/venv/bin/pip || ! var/venv/bin/python -c '' 2> /dev/null; then
        python=$(find_python)
        "$python" -c 'import ensurepip, venv' 2> /dev/null ||
            die "Python's venv module is missing. As root: apt-get install $(basename "$(readlink -f "$python")")-venv"
        "$python" -m venv --clear var/venv || die "var/venv cannot be made"
    fi
    printf '  Python packages go into var/venv (a minute, once)\n' >&2
    var/venv/bin/python -m pip install -qq --disable-pip-version-check --editable '.[test]' ||
        die "the Python packages cannot be installed: check the network and pip's settings, then run $0 again"
    printf '%s' "$stamp" > var/venv/.complete
}

# Arguments go to asterisk/install.
set_up() {
    mkdir -p var 2> /dev/null && [ -w var ] || die "$PWD/var cannot be written: run $0 as the user whom this folder belongs to"
    if ! environment_is_made; then
        # One at a time: ./run and ./test may be started together.
        exec 8> var/.setup.lock
        flock 8
        environment_is_made || make_environment
        exec 8>&-
    fi
    asterisk/install "$@" var/asterisk
}
