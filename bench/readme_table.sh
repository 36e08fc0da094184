#!/bin/sh
# Writes the README's first table from bench/results/quality.csv: size, quality, against the paper's coding.
csv=${1:-bench/results/quality.csv} readme=${2:-README.md}
awk -F, '
    $1 == "model" && $2 == "held-out text" && $6 == "perplexity" { p[$3, ++n[$3]] = $7; bytes[$3, n[$3]] = $5 }
    $1 == "model" && $2 == "held-out text" && $6 == "kl" { k[$3, n[$3]] = $7 }
    END {
        print "| model in memory | perplexity | KL, nats a token | the paper'"'"'s coding (iabs) in no less: perplexity | KL |"
        print "|---|---|---|---|---|"
        last = -1
        for (i = 1; i <= n["nested"]; i++) {
            b = bytes["nested", i] / 1e6
            if (b - last < 0.25) continue
            last = b
            printf "| %.2f MB | %.2f | %.4f | %.2f | %.4f |\n", b, p["nested", i], k["nested", i], p["iabs rank 1", i], k["iabs rank 1", i]
        }
    }' "$csv" >"$readme.table" || exit 1
awk -v table="$readme.table" '
    /<!-- sizes: made by/ { print; while ((getline line < table) > 0) print line; skip = 1; next }
    /<!-- \/sizes -->/ { skip = 0 }
    !skip { print }' "$readme" >"$readme.new" && mv "$readme.new" "$readme"
rm -f "$readme.table"
