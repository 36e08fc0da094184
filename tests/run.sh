#!/bin/sh
# Runs the test programs given, as many at once as there are processors, and ends with the line
# "N passed, M failed". A program that dies without its closing line counts as one failure.
out=${BUILD:-build}/tests/out
rm -rf "$out" && mkdir -p "$out" || exit 1
export TEST_OUT="$out"
printf '%s\n' "$@" | xargs -P "$( (nproc || echo 2) 2>/dev/null)" -n 1 sh -c '
    name=$(basename "$1"); start=$(date +%s)
    "$1" >"$TEST_OUT/$name.log" 2>&1
    echo "$? $(($(date +%s) - start))" >"$TEST_OUT/$name.status"' sh
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
        echo "FAIL  $program: ended with status $status and no closing line"
        failed=$((failed + 1))
    fi
done
echo "$skipped skipped, each with its reason above"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
