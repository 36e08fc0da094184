#!/bin/sh
# The same bits on every machine, compiler and optimisation: builds the headers for each platform whose compiler
# is installed and runs tests there, natively or under qemu. A few by default; BITSTACK_FULL=1 for all.
pass=0 fail=0 skip=0 builds=0 platforms=""
out=${BUILD:-build}/tests/everywhere; mkdir -p "$out"
case $out in /*) ;; *) out=$PWD/$out ;; esac
. tests/room.sh
make_room "$out/room"
ok() { echo "ok    $1"; pass=$((pass + 1)); }
bad() { echo "FAIL  $1"; fail=$((fail + 1)); grep -v "^## " "$out/log" | tail -6; }
skip() { echo "skip  $1"; skip=$((skip + 1)); }

# try NAME, RUNNER, COMPILER AND FLAGS -- TESTS: one line of the report for all of them. Where headers_by is set, it
# is what builds the headers.
try() {
    name=$1 runner=$2 command=""; shift 2
    while [ "$1" != -- ]; do command="$command $1"; shift; done
    shift
    set -- $* ; cc=${command# }; cc=${cc%% *}
    command -v "$cc" >/dev/null || { skip "$name: $cc is not installed"; return; }
    [ -z "$runner" ] || command -v "$runner" >/dev/null || { skip "$name: $runner is not installed"; return; }
    case $cc in *mingw*) threads="-DBITSTACK_POOL" end=.exe ;; *) threads="-pthread" end="" ;; esac
    : >"$out/log"
    for header in bitstack bitstack_compress; do
        which=$(echo $header | tr a-z A-Z)_IMPLEMENTATION
        ${headers_by:-$command -std=c11 -D_GNU_SOURCE -x c} $threads -D$which -c $header.h -o "$out/$header.o" 2>>"$out/log" || { bad "$name: $header.h does not build"; return; }
    done
    told=""
    for test in $*; do
        $command -std=c11 -D_GNU_SOURCE $threads -I. tests/$test.c "$out/bitstack.o" "$out/bitstack_compress.o" -o "$out/$test$end" -lm -static 2>>"$out/log" ||
            { bad "$name: $test does not build"; return; }
        (cd "$out/room" && case $runner in qemu*) export BITSTACK_BRIEF=1 ;; esac && timeout 900 $runner "$out/$test$end") >"$out/log" 2>&1 || { bad "$name: $test"; return; }
        told="$told, $(sed -n 's/^## \([0-9]*\) .*/\1/p' "$out/log") of ${test#test_}"
    done
    ok "$name$told"
    builds=$((builds + 1)) platforms="$platforms${name%%,*};"
}
# x86 kernels run 32-bit programs themselves; elsewhere qemu does.
printf 'int main(void){return 0;}' >"$out/probe.c"
i386=qemu-i386
i686-linux-gnu-gcc -static "$out/probe.c" -o "$out/probe" 2>/dev/null && "$out/probe" 2>/dev/null && i386=""
bits="test_golden_files test_small_machines"

if [ -z "$BITSTACK_FULL" ]; then
    try "s390x, big-endian, -O0" qemu-s390x s390x-linux-gnu-gcc -O0 -- $bits
    try "i386, x87 floats, -O1" "$i386" i686-linux-gnu-gcc -O1 -- $bits
    try "aarch64, -O0" qemu-aarch64 aarch64-linux-gnu-gcc -O0 -- $bits
    try "armv7, -O0" qemu-arm arm-linux-gnueabihf-gcc -O0 -- $bits
    try "riscv64, -O0" qemu-riscv64 riscv64-linux-gnu-gcc -O0 -- $bits
else
    for flags in "-O0" "-O2" "-Os" "-O1" "-O3" "-O2 -flto" "-O2 -std=gnu11 -ffp-contract=fast"; do
        try "x86-64 gcc, $flags" "" gcc $flags -- $bits test_reader
        case $flags in *flto*) ;; *) try "x86-64 clang, $flags" "" clang $flags -- $bits test_reader ;; esac
        try "i386, x87 floats, $flags" "$i386" i686-linux-gnu-gcc $flags -- $bits test_reader
        try "aarch64, $flags" qemu-aarch64 aarch64-linux-gnu-gcc $flags -- $bits test_reader
        case $flags in -O0 | -O2 | -Os) ;; *) continue ;; esac
        try "i386, SSE floats, $flags" "$i386" i686-linux-gnu-gcc $flags -msse2 -mfpmath=sse -- $bits
        try "s390x, big-endian, $flags" qemu-s390x s390x-linux-gnu-gcc $flags -- $bits test_reader
        try "armv7, $flags" qemu-arm arm-linux-gnueabihf-gcc $flags -- $bits test_reader
        try "armv7 with NEON, $flags" qemu-arm arm-linux-gnueabihf-gcc $flags -mfpu=neon -- $bits
        try "riscv64, $flags" qemu-riscv64 riscv64-linux-gnu-gcc $flags -- $bits test_reader
    done
    try "aarch64 without NEON, -O2" qemu-aarch64 aarch64-linux-gnu-gcc -O2 -DBITSTACK_NO_NEON -- $bits
    for flags in "-O2 -march=native" "-O3 -march=x86-64-v3" "-O2 -DBITSTACK_NO_SIMD" "-O2 -DBITSTACK_NO_THREADS" "-O2 -DBITSTACK_CHUNK_COLS=32768" "-O2 -funsigned-char" "-O2 -fno-strict-aliasing -fwrapv"; do
        try "x86-64 gcc, $flags" "" gcc $flags -- $bits
        try "x86-64 clang, $flags" "" clang $flags -- $bits
    done
    for cxx in "g++ -std=c++11" "g++ -std=c++20" "clang++ -std=c++14"; do
        headers_by="$cxx -O2 -x c++"
        ! command -v "${cxx%% *}" >/dev/null || try "x86-64 gcc, headers as C++ by $cxx" "" gcc -O2 -- $bits test_reader
    done
    headers_by=""
    try "s390x, big-endian, -O2" qemu-s390x s390x-linux-gnu-gcc -O2 -- test_compress_inputs test_order test_moments
    try "i386, x87 floats, -O2" "$i386" i686-linux-gnu-gcc -O2 -- test_compress_inputs test_order test_moments
    try "aarch64, -O2" qemu-aarch64 aarch64-linux-gnu-gcc -O2 -- test_compress_inputs test_order test_moments test_popcount_exact
    try "riscv64, -O2" qemu-riscv64 riscv64-linux-gnu-gcc -O2 -- test_order test_moments
    try "armv7, -O2" qemu-arm arm-linux-gnueabihf-gcc -O2 -- test_order test_moments test_popcount_exact
    try "aarch64 products" qemu-aarch64 aarch64-linux-gnu-gcc -O2 -- test_gemv_agrees
    try "armv7 products" qemu-arm arm-linux-gnueabihf-gcc -O2 -mfpu=neon -- test_gemv_agrees
    try "riscv64 products" qemu-riscv64 riscv64-linux-gnu-gcc -O2 -- test_gemv_agrees
    try "s390x products" qemu-s390x s390x-linux-gnu-gcc -O2 -- test_gemv_agrees
    try "i386 products" "$i386" i686-linux-gnu-gcc -O2 -- test_gemv_agrees
fi
export WINEDEBUG=-all WINEPREFIX="$out/wine"
if [ -n "$BITSTACK_FULL" ]; then # more of Windows: test_windows.sh
    for flags in "-O1" "-O2" "-O3" "-Os"; do # at -O0 GCC 12 itself breaks down on 32-byte vectors for Windows
        try "Windows (mingw-w64, wine), $flags" wine x86_64-w64-mingw32-gcc $flags -- $bits test_reader
    done
fi
if cc -std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror -U__linux__ -D__APPLE__ -Dst_mtimespec=st_mtim -isystem tests/macos -fsyntax-only examples/llm/platform_posix.c >"$out/log" 2>&1; then
    ok "macOS: what the command asks of it compiles, with stand-ins for its declarations"
else bad "macOS: what the command asks of it compiles"; fi

# -ffast-math is refused, and with BITSTACK_ALLOW_FAST_MATH safe.
for cc in gcc clang; do
    command -v $cc >/dev/null || continue
    if $cc -O1 -ffast-math -DBITSTACK_IMPLEMENTATION -x c -c bitstack.h -o "$out/fast.o" >"$out/log" 2>&1 || ! grep -q "without -ffast-math" "$out/log"; then
        bad "$cc -ffast-math is refused"
    else ok "$cc -ffast-math is refused"; fi
done
try "x86-64 gcc, -ffast-math where allowed: every check is kept" "" gcc -O1 -ffast-math -DBITSTACK_ALLOW_FAST_MATH -- test_small_machines
[ -z "$BITSTACK_FULL" ] || try "x86-64 clang, -ffast-math where allowed: every check is kept" "" clang -O2 -ffast-math -DBITSTACK_ALLOW_FAST_MATH -- test_small_machines
echo "      $builds builds run on $(echo "$platforms" | tr ';' '\n' | sed '/^$/d; s/ .*//' | sort -u | wc -l) platforms"
echo "## $pass $fail $skip"
