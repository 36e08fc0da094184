#!/bin/sh
# The table of tests/README.md: a promise is the first sentence of a test's opening comment, the figures are what its
# log of the last run says (make test-full: lines of six blanks and a number). table.sh --check only compares promises.
readme=tests/README.md out=${BUILD:-build}/tests/out
promise() { # the opening comment up to its first full stop
    case $1 in
        *.sh) sed -n '2,/^[^#]/{s/^# \{0,1\}//p;}' "$1" ;;
        *) sed -n '1,/\*\//p' "$1" | sed 's,^/\* ,,; s,^ \* ,,; s, \*/.*,,' ;;
    esac | tr '\n' ' ' | sed 's/\([a-z0-9)]\)\. .*/\1/; s/\. *$//; s/ *$//; s/|/\\|/g'
}
rows() {
    for file in tests/test_*.c tests/test_*.sh tests/coverage.sh tests/mutants.sh; do
        name=$(basename "$file" .c)
        log=$out/$name.log figures=""
        if [ -f "$log" ]; then
            set -- $(sed -n 's/^## //p' "$log")
            figures="$1 passed$([ "${2:-0}" -ne 0 ] && echo ", $2 failed")$([ "${3:-0}" -ne 0 ] && echo ", $3 skipped")"
            more=$(sed -n 's/^      \([0-9].*\)/; \1/p' "$log" | head -2 | tr -d '\n' | sed 's/|/\\|/g') # the rest is in the log
            figures="$figures$more"
        fi
        echo "| $(promise "$file") | \`$name\` | $figures |"
    done
}
if [ "$1" = --check ]; then # every test has its row, every row its test, and promises are those of the files
    rows | sed 's/\(.*|.*|\).*|$/\1/' | sort >"$out.now"
    sed -n '/<!-- table/,/<!-- \/table/p' "$readme" | grep '^| .*`' | sed 's/\(.*|.*|\).*|$/\1/' | sort >"$out.then"
    diff "$out.then" "$out.now"
    exit
fi
{
    sed -n '1,/<!-- table/p' "$readme"
    printf '| promise | test | figures of the last run |\n|---|---|---|\n'
    rows
    sed -n '/<!-- \/table/,$p' "$readme"
} >"$readme.new" && mv "$readme.new" "$readme"
