#!/bin/sh
# Runs the test programs given and ends with the line "N passed, M failed". A program that dies without
# its closing line counts as one failure.
passed=0 failed=0 skipped=0
for program in "$@"; do
    echo "== $(basename "$program")"
    out=$("$program" 2>&1); status=$?
    printf '%s\n' "$out" | grep -v '^## '
    set -- $(printf '%s\n' "$out" | sed -n 's/^## //p')
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
