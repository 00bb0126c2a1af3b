#!/usr/bin/env bash
# Runs the command's scripts as a Windows program under wine: test.sh [SCRIPTS]
# SCRIPTS is a regular expression. Needs wine64 and, if wine has no bcryptprimitives.dll,
# a C compiler for Windows (Debian: wine64, gcc-mingw-w64-x86-64-win32). Wine 8 cannot
# remove folders as Go does: there, scripts that do fail.
set -euo pipefail
cd "$(dirname "$0")/../.."
wine=$(command -v wine64 || command -v /usr/lib/wine/wine64 || command -v wine) || { echo "test-windows: wine is not here"; exit 1; }
folder=$(mktemp -d)
trap 'WINEPREFIX=$folder/wine wineserver -k 2>/dev/null || true; rm -rf "$folder"' EXIT
export WINEPREFIX=$folder/wine WINEDEBUG=-all
GOOS=windows GOARCH=amd64 go test -c -o "$folder/scripts.exe" ./cmd/mlpfusion
"$wine" wineboot -i >/dev/null 2>&1 || true
system=$WINEPREFIX/drive_c/windows/system32
[ -e "$system/bcryptprimitives.dll" ] || x86_64-w64-mingw32-gcc -shared -O2 -o "$system/bcryptprimitives.dll" scripts/windows/bcryptprimitives.c -ladvapi32
cd cmd/mlpfusion
"$wine" "$folder/scripts.exe" -test.run "TestScripts/^(${1:-.*})\$" -test.timeout 1h
