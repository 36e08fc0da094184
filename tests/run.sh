#!/bin/sh
# Runs the test programs given, as many at once as there are processors, and ends with the line
# "N passed, M failed". A program that dies without its closing line, or that runs longer than TEST_LIMIT
# seconds (0: no limit), counts as one failure. A line is printed when a program ends, what it said after all of them.
out=${BUILD:-build}/tests/out
rm -rf "$out" && mkdir -p "$out" || exit 1
export TEST_OUT="$out" TEST_LIMIT="${TEST_LIMIT:-400}"
command -v timeout >/dev/null 2>&1 || TEST_LIMIT=0
printf '%s\n' "$@" | xargs -P "$( (nproc || echo 2) 2>/dev/null)" -n 1 sh -c '
    name=$(basename "$1"); start=$(date +%s)
    if [ "$TEST_LIMIT" = 0 ]; then set -- "$1"; else set -- timeout -k 10 "$TEST_LIMIT" "$1"; fi
    "$@" >"$TEST_OUT/$name.log" 2>&1 </dev/null
    status=$? seconds=$(($(date +%s) - start))
    echo "$status $seconds" >"$TEST_OUT/$name.status"
    closing=$(sed -n "s/^## \([0-9]*\) \([0-9]*\) .*/\1 passed, \2 failed/p" "$TEST_OUT/$name.log")
    echo ".. $name: ${closing:-no closing line, status $status}, $seconds s"' sh
passed=0 failed=0 skipped=0
for program in "$@"; do
    log=$out/$(basename "$program").log
    read -r status seconds <"$out/$(basename "$program").status"
    echo "== $(basename "$program") ($seconds s)"
    grep -v '^## ' "$log"
    set -- $(sed -n 's/^## //p' "$log")
    if [ $# -eq 3 ]; then
        passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + $3))
        [ "$2" -eq 0 ] && [ "$status" -ne 0 ] && failed=$((failed + 1)) && echo "FAIL  $program: exit status $status"
    else
        echo "FAIL  $program: ended with status $status and no closing line$([ "$status" -eq 124 ] && echo " (stopped after $TEST_LIMIT s)")"
        failed=$((failed + 1))
    fi
done
echo "$skipped skipped, each with its reason above"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
