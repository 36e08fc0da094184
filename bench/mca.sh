#!/bin/sh
# mca.sh - static throughput of the look-up loops by llvm-mca: modelled, not measured, and only of the
# innermost loop with its data in the first-level cache.
#
#     bench/mca.sh            prints a table: kernel, CPU model, bytes of plane a cycle
#
# Compiles bitstack.h to assembly for each target and takes from each look-up kernel the innermost loop that
# streams a plane past the fewest tables. A byte shuffle over one table serves 4 columns of as many rows as the
# register has bytes: half as many bytes of plane.
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mca=$(command -v llvm-mca || command -v llvm-mca-14 || true)
[ -n "$mca" ] || { echo "llvm-mca is not installed" >&2; exit 1; }

# assembly, function pattern, shuffle pattern -> the loop on stdout, "shuffles instructions" in $work/facts
loop() {
    awk -v want="$2" -v shuffle="$3" -v facts="$work/facts" '
        /^[A-Za-z_][A-Za-z0-9_.]*:/ { name = $1; sub(/:.*/, "", name); inside = name ~ want; n = 0; delete at; delete closes }
        !inside { next }
        /^\.L[A-Za-z0-9_]+:/ { label = $1; sub(/:.*/, "", label); at[label] = n; next }
        /^[ \t]+\./ { next }
        /^[ \t]+[a-z]/ {
            line[++n] = $0
            if ($1 ~ /^(j|b\.|b$|cb|tb|b[a-z][a-z]$)/ && $1 != "jmp" && $NF in at && at[$NF] < n) {
                count = 0; streams = 0; first = at[$NF] + 1
                for (i = first; i < n; i++) if (i in closes) next # it holds another loop
                closes[n] = 1
                for (i = first; i <= n; i++) {
                    count += line[i] ~ shuffle
                    streams += line[i] ~ /prefetch|prfm|[ \t]pld/
                }
                if (count && streams && (!best || count < best)) {
                    best = count; size = n - at[$NF]; text = ""
                    for (i = first; i <= n; i++) text = text line[i] "\n"
                }
            }
        }
        END { printf "%s", text; print best + 0, size + 0 > facts }' "$1"
}
model() { # title, assembly, functions, shuffle, triple, CPU, flags, bytes of plane a shuffle
    loop "$2" "$3" "$4" >"$work/loop.s"
    read -r shuffles size <"$work/facts"
    [ "$shuffles" -gt 0 ] || { printf '%-28s %-16s no such kernel\n' "$1" "$6"; return 0; }
    cycles=$("$mca" -mtriple="$5" -mcpu="$6" $7 -iterations=200 "$work/loop.s" 2>/dev/null | awk '/^Total Cycles/ { printf "%.2f", $3 / 200 }')
    [ -n "$cycles" ] || { printf '%-28s %-16s the model does not know an instruction\n' "$1" "$6"; return 0; }
    awk -v t="$1" -v c="$6" -v b="$((shuffles * $8))" -v s="$size" -v y="$cycles" \
        'BEGIN { printf "%-28s %-16s %6d %9d %9.2f %12.2f %10.1f\n", t, c, s, b, y, b / y, 3 * b / y }'
}
compile() { # output, compiler and flags
    out=$1; shift
    command -v "$1" >/dev/null 2>&1 || { : >"$work/$out"; return 0; }
    "$@" -std=c11 -O2 -S -x c -DBITSTACK_IMPLEMENTATION bitstack.h -o "$work/$out" -fno-asynchronous-unwind-tables
}
compile x86.s ${CC:-cc}
compile a64.s aarch64-linux-gnu-gcc
compile a32.s arm-linux-gnueabihf-gcc -march=armv7-a+neon-fp16 -mfloat-abi=hard

printf '%-28s %-16s %6s %9s %9s %12s %10s\n' kernel model instr. bytes cycles bytes/cycle GB/s@3GHz
for cpu in nehalem; do
    model "look-up SSE4" "$work/x86.s" 'lookup.*sse4' 'pshufb' x86_64-linux-gnu $cpu "" 8
done
for cpu in skylake-avx512 icelake-server znver3; do
    model "look-up AVX2" "$work/x86.s" 'lookup.*avx2' 'vpshufb' x86_64-linux-gnu $cpu "" 16
done
for cpu in icelake-server; do
    model "look-up AVX-512" "$work/x86.s" 'lookup.*avx512' 'vpdpbusd' x86_64-linux-gnu $cpu "" 32
done
for cpu in cortex-a55 cortex-a72 neoverse-n1 apple-m1; do
    model "look-up NEON, aarch64" "$work/a64.s" 'lookup.*neon' '[ \t]tbl[ \t]' aarch64-linux-gnu $cpu "" 8
done
for cpu in cortex-a9 cortex-a57; do
    model "look-up NEON, armv7" "$work/a32.s" 'lookup.*neon' 'vtbl' armv7-linux-gnueabihf $cpu "-mattr=+neon" 4
done
