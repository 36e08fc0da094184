#!/bin/sh
# Every switch of [CONFIG], alone and with others, builds without a warning and changes no bit of the results.
# BITSTACK_FULL=1: with every other, and by clang too.
pass=0 fail=0 skip=0
out=${BUILD:-build}/tests/switches; mkdir -p "$out"
. tests/room.sh
ok() { echo "ok    $1"; pass=$((pass + 1)); }
bad() { echo "FAIL  $1"; fail=$((fail + 1)); head -5 "$out/log"; }
# of at most 512 columns times ranks: BITSTACK_CHUNK_COLS may change last bits of larger ones
files="tests/golden/everything.golden tests/golden/nested.golden tests/golden/shapes.golden tests/golden/scales.golden"
warn="-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wundef -Wcast-align -Wstrict-prototypes -Werror"
built=0 first="" made="" cc=${CC:-cc}
one() { # description, flags
    what=$1; shift
    # shellcheck disable=SC2086
    if ! $cc -std=c99 $warn -I. "$@" tests/switches.c -o "$out/program" -lm -pthread >"$out/log" 2>&1; then bad "$what does not build"; return; fi
    # shellcheck disable=SC2086
    hash=$(limited 120 "$out/program" $files 2>"$out/log") || { echo "$hash" >"$out/log"; bad "$what: fails"; return; }
    case $hash in *' '*) made=${made:-${hash% *}} # of the compressor, then of the kernels
        [ "${hash% *}" = "$made" ] || { echo "${hash% *}, was $made" >"$out/log"; bad "$what: the compressor makes other bytes"; return; }
        hash=${hash#* } ;;
    esac
    first=${first:-$hash}
    [ "$hash" = "$first" ] || { echo "$hash, was $first" >"$out/log"; bad "$what: other bits"; return; }
    built=$((built + 1))
}
switches="NO_STDIO NO_MALLOC NO_THREADS NO_SIMD NO_SSE4 NO_AVX2 NO_AVXVNNI NO_AVX512 NO_AMX NO_NEON NO_DOTPROD NO_DOUBLE CHUNK_COLS=512 CHUNK_COLS=4096 STATIC ALLOW_FAST_MATH POOL"
one "no switch" -O1
if [ -z "$BITSTACK_FULL" ]; then
    for a in $switches; do one "BITSTACK_$a" -O0 -D"BITSTACK_$a"; done
    one "a microcontroller's switches" -O0 -DBITSTACK_NO_STDIO -DBITSTACK_NO_MALLOC -DBITSTACK_NO_THREADS -DBITSTACK_NO_SIMD -DBITSTACK_CHUNK_COLS=512
    one "the compressor without files and threads" -O0 -DWITH_COMPRESSOR -DBITSTACK_NO_STDIO -DBITSTACK_NO_THREADS
    one "the compressor" -O1 -DWITH_COMPRESSOR
    one "the compressor without AVX2" -O1 -DWITH_COMPRESSOR -DBITSTACK_NO_AVX2
else
    for cc in gcc clang; do
        command -v $cc >/dev/null || { echo "skip  $cc: not installed"; skip=$((skip + 1)); continue; }
        for a in $switches; do
            one "$cc, the compressor with BITSTACK_$a" -O0 -DWITH_COMPRESSOR -D"BITSTACK_$a"
            for b in $switches; do
                [ $cc = gcc ] || [ "$a" = "$b" ] || continue
                [ "$a" \< "$b" ] || [ "$a" = "$b" ] && one "$cc, BITSTACK_$a with BITSTACK_$b" -O0 -D"BITSTACK_$a" -D"BITSTACK_$b"
            done
        done
        all=$(for a in $switches; do printf '%s' " -DBITSTACK_$a"; done)
        # shellcheck disable=SC2086
        for opt in -O0 -O2 -Os; do one "$cc $opt, all together" $opt ${all% -DBITSTACK_POOL}; done
    done
fi
[ "$fail" -eq 0 ] && ok "$built builds, each with the same bits"
echo "      $built combinations of switches"
echo "## $pass $fail $skip"
