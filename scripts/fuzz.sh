#!/usr/bin/env bash
# Runs every fuzz target of the module for a while each:
#     bash scripts/fuzz.sh 60s [PACKAGE...]
set -euo pipefail
cd "$(dirname "$0")/.."
duration=${1:?expected how long to run each target, such as 60s}
shift
go=${GO:-go}
count=0
while IFS=: read -r file _ declaration; do
	name=$(sed -E 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/' <<<"$declaration")
	package=./$(dirname "$file")
	if [ $# -gt 0 ] && [[ " $* " != *" $package "* ]]; then continue; fi
	echo "fuzz $package $name for $duration"
	"$go" test "$package" -run '^$' -fuzz "^$name\$" -fuzztime "$duration" -parallel 2 >"${TMPDIR:-/tmp}/fuzz.$$" 2>&1 ||
		{ cat "${TMPDIR:-/tmp}/fuzz.$$"; rm -f "${TMPDIR:-/tmp}/fuzz.$$"; exit 1; }
	grep '^fuzz: elapsed' "${TMPDIR:-/tmp}/fuzz.$$" | tail -n 1 || true # a busy machine may not get that far
	rm -f "${TMPDIR:-/tmp}/fuzz.$$"
	count=$((count + 1))
done < <(git grep -nE '^func Fuzz[A-Za-z0-9_]*\(' -- '*_test.go')
[ "$count" -gt 0 ] || { echo "no fuzz target found" >&2; exit 1; }
echo "$count fuzz targets held"
