#!/usr/bin/env bash
# launch/run.sh RUN OPTION...: python -m jaxsnn.optimize in the folder RUN. It begins the run there or goes on behind its
# last checkpoint; with a finished run it does nothing. Every process of a run is started with the same line.
#
# Exit code 75 where SIGTERM came before the results: start it again. The command itself then ends with 0, which
# Kubernetes, Slurm and SkyPilot would take for a finished run.
set -uo pipefail
run=$1
shift
if [ -e "$run/results.json" ]; then
    echo "$run is finished"
    exit 0
fi

child=
stopped=
trap 'stopped=1; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null' TERM
python -m jaxsnn.optimize --out "$run" "$@" &
child=$!
[ -z "$stopped" ] || kill -TERM "$child" 2>/dev/null # it came before there was a child to tell
while wait "$child"; status=$?; kill -0 "$child" 2>/dev/null; do :; done # a signal ends wait, not the child

terminated=$((128 + 15))
if [ -n "$stopped" ] && [ ! -e "$run/results.json" ] && { [ "$status" = 0 ] || [ "$status" = "$terminated" ]; }; then
    exit 75
fi
exit "$status"
