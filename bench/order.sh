#!/bin/sh
# What the gradients, token weights, shrinkage and text of the model's own do: divergence at eight sizes, one CSV row a
# variant, text and size. Rows that OUT.csv has are not measured again.
# usage: bench/order.sh MODEL CALIBRATION.txt OUT.csv CONTEXT "2.69MB,3.03MB" NAME=IDS.u16 ...   (BITSTACK: the command)
set -e
[ $# -ge 6 ] || { sed -n 4p "$0" >&2; exit 2; }
model=$1 text=$2 csv=$3 context=$4 budgets=$5
shift 5
bitstack=${BITSTACK:-build/bitstack}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
[ -f "$csv" ] || echo "model,variant,text,budget,kl,perplexity" >"$csv"

# variant NAME OPTIONS...: compresses and measures
variant() {
    name=$1
    shift
    grep -q "^$(basename "$model"),$name," "$csv" && return
    "$bitstack" compress "$model" -o "$folder/stack" --calibrate "$text" --compress-embeddings "${EMBEDDINGS:-no}" --quiet "$@"
    for pair in $texts; do
        "$bitstack" perplexity "$folder/stack" --tokens "${pair#*=}" --context "$context" --budgets "$budgets" --against "$model" --json |
            sed -n "s/.*\"budget_bytes\": \([0-9]*\).*\"ppl\": \([0-9.e+-]*\).*\"kl\": \([0-9.e+-]*\).*/$(basename "$model"),$name,${pair%%=*},\1,\3,\2/p" >>"$csv"
    done
}

texts=$*
variant loss-plain --self-share 0 --token-weights no --shrink 0 --order loss
variant gradient-plain --self-share 0 --token-weights no --shrink 0
variant gradient-weights --self-share 0 --shrink 0
variant gradient-shrink-.25 --self-share 0 --token-weights no --shrink 0.25
variant probes-both-.25 --self-share 0 --shrink 0.25 --order probes
variant gradient-both-.25 --self-share 0 --shrink 0.25
variant gradient-both --self-share 0
variant gradient-both-half-own
variant gradient-given-labels --self-share 0 --labels given
