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
    cc -std=c99 $warn -O0 -c "$out/alone/static.c" -o "$out/static.o" || bad "objects"
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

# --- Among other headers. What they define must not matter: each of these names is a macro of some of them
# (windows.h, its kin and old ones, complex.h, sys/param.h, ctype and termios of some, Qt, X11, Arduino).
names="near far small huge hyper min max MIN MAX ERROR IN OUT OPTIONAL CONST VOID BOOL TRUE FALSE STRICT DELETE NO_ERROR
    interface pascal cdecl grp1 rad1 cmb1 scr1 stc1 lst1 chx1 psh1 I complex imaginary J unix linux i386 sun vax mips arm
    _A _B _C _D _E _I _L _M _N _P _S _U _X B0 B1 B50 B110 F N M K L S T U V W X Y Z D E H O P Q R A B C G PI HIGH LOW INPUT
    OUTPUT DEFAULT BITS TILE BLOCK CHUNK bit word sq radians degrees lowByte highByte bitRead bitSet swap
    signals slots emit foreach forever Bool Status None Always Success True False Complex Convex check verify require debug
    likely unlikely major minor makedev st_atime h_addr array_size countof str xstr assert
    lines tab back_tab bell move clear erase refresh timeout echo OK ERR"
{
    # those that the header includes itself come first: nobody can define abs and then include <stdlib.h>
    echo '#include <errno.h>
#include <float.h>
#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <pthread.h>
#include <sched.h>
#include <unistd.h>
#include <sys/stat.h>
#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#include <sys/auxv.h>
#endif'
    for name in $names; do printf '#undef %s\n#define %s @\n' "$name" "$name"; done
    for name in abs round index swap; do printf '#undef %s\n#define %s(x) @\n' "$name" "$name"; done # of Arduino, BSD
    echo '#define BITSTACK_IMPLEMENTATION
#define BITSTACK_POOL
#include "bitstack.h"
#define BITSTACK_COMPRESS_IMPLEMENTATION
#include "bitstack_compress.h"
int main(void) { return bitstack_isa() == 0; }'
} >"$out/alone/names.c"
for cc in "gcc -std=c99" "gcc -std=gnu2x" "clang -std=c11" "g++ -std=c++11" "clang++ -std=c++20"; do
    command -v ${cc%% *} >/dev/null || { echo "skip  ${cc%% *}: not installed"; skip=$((skip + 1)); continue; }
    case $cc in *++*) language="-x c++" ;; *) language="-x c" ;; esac
    check "$cc compiles both headers where $(echo $names | wc -w) names are macros" $cc -D_POSIX_C_SOURCE=200809L -fsyntax-only -I"$out/alone" $language "$out/alone/names.c"
done
echo '#include <complex.h>
#include <tgmath.h>
#include "one.c"' >"$out/alone/tgmath.c"
check "both compile after tgmath.h" cc -std=c11 -fsyntax-only -I"$out/alone" "$out/alone/tgmath.c"
if command -v x86_64-w64-mingw32-gcc >/dev/null; then
    for first in '#include <windows.h>' '#include <winsock2.h>
#include <windows.h>
#include <windowsx.h>'; do
        echo "$first
#include \"one.c\"" >"$out/alone/windows.c"
        check "both compile after $(echo "$first" | tr '\n' ' ')" x86_64-w64-mingw32-gcc -fsyntax-only -I"$out/alone" "$out/alone/windows.c"
    done
else echo "skip  after windows.h: no x86_64-w64-mingw32-gcc"; skip=$((skip + 1)); fi

# --- However they are included.
echo '#include "bitstack_compress.h"
#include "bitstack.h"
#define BITSTACK_COMPRESS_IMPLEMENTATION
#include "bitstack_compress.h"' >"$out/alone/later.c"
echo '#include "bitstack_compress.h"
#define BITSTACK_IMPLEMENTATION
#define BITSTACK_POOL
#include "bitstack.h"
int main(void) { return bitstack_isa() == 0 || bitstack_pool_threads(NULL) != 1; }' >"$out/alone/later_runtime.c"
check "implementations that follow a plain include, each in a file of its own" sh -c "cc -std=c99 $warn -O0 -c '$out/alone/later.c' -o '$out/later.o' &&
    cc -std=c99 $warn -O0 '$out/alone/later_runtime.c' '$out/later.o' -o '$out/later' -lm -pthread && '$out/later'"
for cc in gcc clang g++ clang++; do
    command -v $cc >/dev/null || { echo "skip  $cc: not installed"; skip=$((skip + 1)); continue; }
    case $cc in *++) language="-x c++" ;; *) language="-x c" ;; esac
    for part in IMPLEMENTATION COMPRESS_IMPLEMENTATION POOL; do
        file=bitstack.h; [ $part = COMPRESS_IMPLEMENTATION ] && file=bitstack_compress.h
        printf '#define BITSTACK_STATIC\n#define BITSTACK_%s\n%s#include "%s"\nint main(void) { return 0; }\n' $part \
            "$([ $part = IMPLEMENTATION ] || printf '#define BITSTACK_IMPLEMENTATION\n ')" $file >"$out/alone/unused.c"
        check "$cc: BITSTACK_STATIC with BITSTACK_$part leaves nothing unused" $cc $language -Wall -Wextra -Werror -O0 -c -I"$out/alone" "$out/alone/unused.c" -o "$out/unused.o"
    done
done
echo '#define BITSTACK_IMPLEMENTATION
#define BITSTACK_POOL
#include "bitstack.h"
int main(void) { return bitstack_isa() == 0; }' >"$out/alone/runtime.c"
for how in -O0 -O2 "-O1 -fno-builtin"; do
    check "the runtime needs no libm: $how" cc $how -I"$out/alone" "$out/alone/runtime.c" -o "$out/runtime" -pthread
done
# The words of the licence, in order, are in either header.
words() { sed 's,^ \*,,' "$1" | tr -s ' \n' '  '; }
for header in bitstack.h bitstack_compress.h; do
    case $(words $header) in *"$(words LICENSE | sed 's/^ *//; s/ *$//')"*) ok "$header carries the licence" ;; *) bad "$header lacks the licence" ;; esac
done
echo '#include "bitstack_compress.h"
int main(void) { return 0; }' >"$out/alone/macros.c"
stray=$(cc -dM -E -I"$out/alone" "$out/alone/macros.c" | awk '{print $2}' | sort >"$out/a"; echo '#include <stddef.h>
#include <stdint.h>' | cc -dM -E -x c - | awk '{print $2}' | sort >"$out/b"; comm -23 "$out/a" "$out/b" | grep -v '^BITSTACK_')
if [ -z "$stray" ]; then ok "including leaks no macro outside the prefix"; else bad "macros: $stray"; fi
echo "## $pass $fail $skip"
