#!/bin/sh
# The two headers are all a user needs: they compile alone, warning-free, in every dialect, in several files at
# once, and leak no name. A few dialects; BITSTACK_FULL=1: C99 to C23, C++11 to C++20, and every optimisation.
pass=0 fail=0 skip=0
out=${BUILD:-build}/tests/headers; mkdir -p "$out/alone"
ok() { echo "ok    $1"; pass=$((pass + 1)); }
bad() { echo "FAIL  $1"; fail=$((fail + 1)); }
check() { name=$1; shift; if "$@" >"$out/log" 2>&1 && [ ! -s "$out/log" ]; then ok "$name"; else bad "$name"; head -5 "$out/log"; fi; }

cp bitstack.h bitstack_compress.h "$out/alone/"
cat >"$out/alone/one.c" <<'END'
#define BITSTACK_IMPLEMENTATION
#include "bitstack.h"
#define BITSTACK_COMPRESS_IMPLEMENTATION
#include "bitstack_compress.h"
int main(void) { return bitstack_isa() == 0; }
END
cat >"$out/alone/user.c" <<'END'
#include "bitstack_compress.h"
#include "bitstack.h"
int other(void);
int other(void) { return bitstack_result_string(BITSTACK_OK) == 0; }
END
cat >"$out/alone/static.c" <<'END'
#define BITSTACK_STATIC
#define BITSTACK_IMPLEMENTATION
#define BITSTACK_COMPRESS_IMPLEMENTATION
#include "bitstack_compress.h"
int third(void);
int third(void) { return bitstack_isa() == 0; }
END
warn="-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wundef -Wcast-align -Werror -I$out/alone"
for cc in gcc clang; do
    command -v $cc >/dev/null || { echo "skip  $cc: not installed"; skip=$((skip + 1)); continue; }
    if [ -n "$BITSTACK_FULL" ]; then list="c99 c11 c17 c2x gnu99 gnu2x" how=-O1
    elif [ $cc = gcc ]; then list=c99 how=-O1 # some warnings need optimising
    else list=gnu2x how=-fsyntax-only; fi
    for std in $list; do
        check "$cc $std $how compiles both headers without a warning" $cc -std=$std $warn -Wstrict-prototypes $how -c "$out/alone/one.c" -o "$out/one.o"
    done
    [ -z "$BITSTACK_FULL" ] || for how in -O0 -O2 -O3 -Os; do # dialects change no code: once each
        check "$cc $how compiles both headers without a warning" $cc -std=c99 $warn -Wstrict-prototypes $how -c "$out/alone/one.c" -o "$out/one.o"
    done
done
for cc in g++ clang++; do
    command -v $cc >/dev/null || { echo "skip  $cc: not installed"; skip=$((skip + 1)); continue; }
    if [ -n "$BITSTACK_FULL" ]; then list="c++11 c++14 c++17 c++20" how=-O1
    elif [ $cc = g++ ]; then list=c++11 how=-fsyntax-only
    else list=c++20 how=-fsyntax-only; fi
    for std in $list; do
        check "$cc $std $how compiles both headers without a warning" $cc -std=$std $warn $how -x c++ -c "$out/alone/one.c" -o "$out/one++.o"
    done
done
cc -std=c99 $warn -O0 -c "$out/alone/one.c" -o "$out/one.o" && cc -std=c99 $warn -O0 -c "$out/alone/user.c" -o "$out/user.o" &&
    cc -std=c99 $warn -Wno-unused-function -O0 -c "$out/alone/static.c" -o "$out/static.o" || bad "objects"
check "three files link, one of them with a private static copy" cc "$out/one.o" "$out/user.o" "$out/static.o" -o "$out/linked" -lm -pthread
check "the linked program runs" "$out/linked"
leaked=$(nm -g --defined-only "$out/one.o" | awk '{print $3}' | grep -v -e '^bitstack_[a-z0-9_]*[a-z0-9]$' -e '^main$')
if [ -z "$leaked" ]; then ok "no symbol outside the prefix, none private"; else bad "leaked: $leaked"; fi
leaked=$(nm -g --defined-only "$out/static.o" | awk '{print $3}' | grep -v '^third$')
if [ -z "$leaked" ]; then ok "BITSTACK_STATIC exports nothing"; else bad "static leaks: $leaked"; fi
echo '#define BITSTACK_IMPLEMENTATION
#include "bitstack.h"' >"$out/alone/reader.c"
cc -std=c99 $warn -O0 -c "$out/alone/reader.c" -o "$out/reader.o" || bad "the reader alone"
locks=$(nm -u "$out/reader.o" | awk '{print $2}' | grep -i -e pthread -e futex -e mutex -e sem_ -e mtx -e __atomic -e syscall)
if [ -z "$locks" ]; then ok "the reader names no lock, nor anything that could be one"; else bad "locks: $locks"; fi
echo '#include "bitstack_compress.h"
int main(void) { return 0; }' >"$out/alone/macros.c"
stray=$(cc -dM -E -I"$out/alone" "$out/alone/macros.c" | awk '{print $2}' | sort >"$out/a"; echo '#include <stddef.h>
#include <stdint.h>' | cc -dM -E -x c - | awk '{print $2}' | sort >"$out/b"; comm -23 "$out/a" "$out/b" | grep -v '^BITSTACK_')
if [ -z "$stray" ]; then ok "including leaks no macro outside the prefix"; else bad "macros: $stray"; fi
echo "## $pass $fail $skip"
