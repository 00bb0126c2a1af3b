#!/usr/bin/env bash
# Runs every fuzz target of the module for a while each:
#     bash scripts/fuzz.sh 60s [PACKAGE...]
set -euo pipefail
cd "$(dirname "$0")/.."
duration=${1:?expected how long to run each target, such as 60s}
shift
go=${GO:-go}
count=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT
while IFS=: read -r file _ declaration; do
	name=$(sed -E 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/' <<<"$declaration")
	package=./$(dirname "$file")
	if [ $# -gt 0 ] && [[ " $* " != *" $package "* ]]; then continue; fi
	echo "fuzz $package $name for $duration"
	for try in 1 2 3; do
		"$go" test "$package" -run '^$' -fuzz "^$name\$" -fuzztime "$duration" -fuzzminimizetime 5s -parallel 2 >"$log" 2>&1 && break
		# Up to Go 1.26 the fuzzer may take its own end for a failure (golang/go#75804):
		# no failing input then, and the target has to pass another time.
		if [ $try = 3 ] || grep -qE 'Failing input|seed corpus|panic' "$log" || ! grep -qx ' *context deadline exceeded' "$log"; then
			cat "$log"
			exit 1
		fi
		echo "the fuzzer ended by its own deadline: again"
	done
	grep '^fuzz: elapsed' "$log" | tail -n 1 || true # a busy machine may not get that far
	count=$((count + 1))
done < <(git grep -nE '^func Fuzz[A-Za-z0-9_]*\(' -- '*_test.go')
[ "$count" -gt 0 ] || { echo "no fuzz target found" >&2; exit 1; }
echo "$count fuzz targets held"
