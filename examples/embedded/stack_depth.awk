# Deepest C stack of each function, callees included, from gcc -fcallgraph-info=su. Calls through pointers
# count as the deepest function that the library passes around; what is outside (memcpy, soft floats) as 0.
# Ends with status 1 where a function can reach itself, or has arrays of a size that only it knows.
{
    if (match($0, /title: "[^"]*"/)) {
        name = substr($0, RSTART + 8, RLENGTH - 9)
        if (match($0, /[0-9]+ bytes/)) own[name] = substr($0, RSTART, RLENGTH - 6) + 0
        if (/bytes \(dynamic\)/) unbounded = name
    }
    if (/^edge:/) {
        match($0, /sourcename: "[^"]*"/); from[++edges] = substr($0, RSTART + 13, RLENGTH - 14)
        match($0, /targetname: "[^"]*"/); to[edges] = substr($0, RSTART + 13, RLENGTH - 14)
    }
}
END {
    if (unbounded != "") { print "a stack frame without bound: " unbounded; exit 1 }
    for (name in own) {
        short = name; sub(/.*:/, "", short)
        depth[name] = own[name]; functions++
        if (short ~ /^bitstack_(always|arena_allocate|arena_release|default_.*|read_file|.*_(scalar|avx2|avx512|neon))_$/) {
            from[++edges] = "__indirect_call"; to[edges] = name
        }
    }
    for (round = 0; round <= functions + 2; round++) {
        changed = 0
        for (e = 1; e <= edges; e++)
            if (own[from[e]] + depth[to[e]] > depth[from[e]]) {
                depth[from[e]] = own[from[e]] + depth[to[e]]; changed = 1; last = from[e]
            }
        if (!changed) break
    }
    if (changed) { print "recursion: " last " can reach itself"; exit 1 }
    for (name in own) {
        short = name; sub(/.*:/, "", short)
        if (depth[name] > worst && short ~ /^bitstack_.*[a-z0-9]$/) worst = depth[name]
        if (short ~ /^bitstack_(open_memory|open_callback|set_budget|gemv|gemm|dequantize_rows|close|arena_bytes)$/)
            print "C stack of " short ": " depth[name] " bytes" | "sort"
    }
    close("sort")
    print "C stack at most: " worst " bytes, no recursion among " functions " functions"
}
