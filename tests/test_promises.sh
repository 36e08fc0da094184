#!/bin/sh
# tests/README.md lists every test with its promise, and every planted bug and explained line is still where it was.
pass=0 fail=0
out=${BUILD:-build}/tests; mkdir -p "$out"
check() { # name, lines that should not be
    if [ -z "$2" ]; then echo "ok    $1"; pass=$((pass + 1)); else echo "FAIL  $1"; echo "$2" | head -20; fail=$((fail + 1)); fi
}
check "tests/README.md has every test's promise (else: make test-table)" "$(tests/table.sh --check)"
check "every edit of tests/mutants.txt changes one line" "$(sed -n 's/^file //p; s/^edit /edit /p' tests/mutants.txt | while IFS= read -r line; do
    case $line in edit\ *) [ "$(sed "${line#edit }" "$file" | diff "$file" - | grep -c '^>')" -eq 1 ] || echo "$file: $line" ;; *) file=$line ;; esac
done)"
check "every line of tests/uncovered.txt is in a header" "$(grep -v -e '^#' -e '^$' tests/uncovered.txt | while IFS= read -r line; do
    grep -qF "$line" bitstack.h bitstack_compress.h || echo "$line"
done)"
echo "## $pass $fail 0"
