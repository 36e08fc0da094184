#!/bin/sh
# report.sh - puts the figures of a run into bench/README.md, between its two marks.
#
#     bench/report.sh results/gemv.csv results/gemm.csv [results/mca.txt]     (paths below bench/)
set -eu
cd "$(dirname "$0")"
gemv=$1 gemm=$2 mca=${3:-}
page=$(mktemp)
trap 'rm -f "$page" "$page.md"' EXIT

# Columns by name, so that the CSV may grow.
columns='function head(  i) { for (i = 1; i <= NF; i++) c[$i] = i }
function v(name) { return $(c[name]) }
function label() { return v("what") == "bitstack" ? v("method") (v("rank") > 1 ? " rank " v("rank") : "") ", " v("level") " plane" (v("level") > 1 ? "s" : "") (v("precision") == "exact" ? ", exact" : "") : v("what") }
function times(x) { return x + 0 > 0 ? sprintf("%.2f", x) : "" }'

cell() { # rows cols state threads: everything of one cell
    awk -F, -v rows="$1" -v cols="$2" -v state="$3" -v threads="$4" "$columns"'
        /^#/ { next }
        !("what" in c) { head(); next }
        v("rows") != rows || v("cols") != cols || v("state") != state || v("threads") != threads { next }
        v("what") == "read" { if (v("gbps") + 0 > roof) { roof = v("gbps") + 0; reader = v("isa") } next }
        v("isa") == "scalar" { next }
        { text[++n] = sprintf("| %s | %s | %.2f | %.4f | %.4f | %.0f %% | %.1f | %.0f %% | %s | %s | %s | %s | %s | %s | %s |", label(), v("isa") == "-" ? "" : v("isa"),
              v("bits_per_weight"), v("median_ms"), v("min_ms"), 100 * v("spread"), v("gbps"), 100 * v("read_share"), v("added_rel_err2") + 0 > 0 ? sprintf("%.1e", v("added_rel_err2")) : "",
              times(v("x_f32")), times(v("x_openblas")), times(v("x_xor")), times(v("x_int8")), times(v("x_q4")), v("nearest_ggml") != "" ? times(v("x_ggml")) " (" v("nearest_ggml") ")" : "") }
        END {
            if (!n) exit
            printf "\n### %s × %s, %s, %s thread%s (pure read %.1f GB/s by `%s`)\n\n", rows, cols, state, threads, (threads > 1 ? "s" : ""), roof, reader
            print "| | ISA | bits/weight | ms | least | spread | GB/s | of the read | added error² | × f32 | × OpenBLAS | × XOR | × int8 | × 4-bit | × ggml |"
            print "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"
            for (i = 1; i <= n; i++) print text[i]
        }' "$gemv"
}
threads=$(awk -F, "$columns"'/^#/ { next } !("what" in c) { head(); next } v("threads") + 0 > most { most = v("threads") + 0 } END { print most }' "$gemv")

{
    printf '```\n'
    grep '^#' "$gemv" | sed 's/^# //'
    printf '```\n'
    cell 4096 4096 cold 1
    [ "$threads" -gt 1 ] && cell 4096 4096 cold "$threads"

    printf '\n### Every size: share of the pure read, 1 to 6 planes, rank 1, the best ISA\n\n'
    printf '| | | threads | read GB/s | 1 | 2 | 3 | 4 | 5 | 6 |\n|---|---|---|---|---|---|---|---|---|---|\n'
    awk -F, "$columns"'
        /^#/ { next }
        !("what" in c) { head(); next }
        v("what") == "read" { k = v("rows") " × " v("cols") " | " v("state") " | " v("threads"); if (v("gbps") + 0 > roof[k]) roof[k] = v("gbps") + 0; next }
        v("method") != "nested" || v("precision") != "fast" { next }
        best == "" { best = v("isa") }
        v("isa") != best { next }
        { k = v("rows") " × " v("cols") " | " v("state") " | " v("threads"); if (!(k in row)) order[++n] = k; row[k] = row[k] sprintf(" %.0f %% · %.4f ms |", 100 * v("read_share"), v("median_ms")) }
        END { for (i = 1; i <= n; i++) printf "| %s | %.1f |%s\n", order[i], roof[order[i]], row[order[i]] }' "$gemv"

    printf '\n### Where something else is faster than BitStack of about the same bits\n\n'
    awk -F, "$columns"'
        /^#/ { next }
        !("what" in c) { head(); next }
        v("what") != "bitstack" || v("isa") == "scalar" { next }
        best == "" { best = v("isa") }
        v("isa") != best || v("precision") != "fast" { next }
        {
            where = v("rows") " × " v("cols") ", " v("state") ", " v("threads") " thread" (v("threads") > 1 ? "s" : "")
            if (v("x_q4") + 0 > 0 && v("x_q4") < 1 && v("bits_per_weight") < 4.6) lost[where] = lost[where] sprintf("; %s: 4-bit %.2f×", label(), 1 / v("x_q4"))
            if (v("x_int8") + 0 > 0 && v("x_int8") < 1 && v("bits_per_weight") < 8) lost[where] = lost[where] sprintf("; %s: int8 %.2f×", label(), 1 / v("x_int8"))
            if (v("x_f32") + 0 > 0 && v("x_f32") < 1) lost[where] = lost[where] sprintf("; %s: dense f32 %.2f×", label(), 1 / v("x_f32"))
            if (!(where in seen)) { seen[where] = 1; order[++n] = where }
        }
        END { for (i = 1; i <= n; i++) if (order[i] in lost) { printf "- %s: %s\n", order[i], substr(lost[order[i]], 3); any = 1 } if (!any) print "Nowhere in this run." }' "$gemv"

    printf '\n### Many vectors at once (GEMM), 4096 × 4096\n\n'
    printf 'GFLOP/s are those of the dense product; BitStack looks sums up or counts bits in place of multiplying, so its share of the\nmultiply-add peak may exceed 100 %%. Empty: not measured, or no such baseline.\n\n'
    printf '| | ISA | planes | threads | batch | ms | spread | GFLOP/s | of this ISA'"'"'s peak | of the peak | × single calls | × OpenBLAS |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n'
    awk -F, "$columns"'
        /^#/ { next }
        !("what" in c) { head(); next }
        v("isa") == "scalar" || v("what") == "gemv" { next }
        v("what") == "peak" { if (v("batch") != 256 || v("level") != 3) next
            printf "| multiply-add peak | %s | | %s | | | %.0f %% | %.0f | | | | |\n", v("isa"), v("threads"), 100 * v("spread"), v("gflops"); next }
        { printf "| %s | %s | %s | %s | %s | %.3f | %.0f %% | %s | %s | %s | %s | %s |\n", v("what") == "gemm" ? "BitStack" : v("what") == "rebuild" ? "reconstruct W" : "OpenBLAS, dense", v("isa") == "-" ? "" : v("isa"),
              v("level"), v("threads"), v("batch"), v("median_ms"), 100 * v("spread"), (v("gflops") + 0 > 0 ? sprintf("%.0f", v("gflops")) : ""),
              (v("what") == "gemm" && v("share_of_own_peak") + 0 > 0) ? sprintf("%.0f %%", 100 * v("share_of_own_peak")) : "", (v("gflops") + 0 > 0 ? sprintf("%.0f %%", 100 * v("share_of_peak")) : ""),
              v("what") == "gemm" ? times(v("x_gemv")) : "", v("what") == "gemm" ? times(v("x_openblas")) : "" }' "$gemm"
    if [ -n "$mca" ]; then
        printf '\n### Modelled, not measured: the look-up loops by llvm-mca\n\n```\n'
        cat "$mca"
        printf '```\n'
    fi
} >"$page"

awk -v page="$page" '
    /^<!-- figures -->/ { print; while ((getline line < page) > 0) print line; skip = 1; next }
    /^<!-- end of figures -->/ { skip = 0 }
    !skip { print }' README.md >"$page.md"
cat "$page.md" >README.md
