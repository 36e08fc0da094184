#!/bin/sh
# A real control group whose memory limit shrinks while a chat goes on: with --auto it lives and goes on talking,
# at a fixed size it is killed. Version 2 of control groups, or version 1 where the memory controller is there.
name="a chat under a shrinking memory limit lives with --auto, and is killed at a fixed size"
build=$(cd "${BUILD:-build}" && pwd)
out=$build/tests/cgroup
rm -rf "$out"; mkdir -p "$out"
group= mounted=

skip() { echo "skip  $name: $1"; clean; echo "## 0 0 1"; exit 0; }
clean() {
    [ -n "$group" ] && rmdir "$group" 2>/dev/null
    [ -n "$mounted" ] && umount "$mounted" 2>/dev/null
    rm -f "$out/m.bitstack"
}
mount_of() { awk -v kind="$1" '{ for (i = 7; i < NF && $i != "-"; i++); } $(i + 1) == kind && (kind == "cgroup2" || $(i + 3) ~ /(^|,)memory(,|$)/) { print $5; exit }' /proc/self/mountinfo; }
# A group below the parent given, with the memory controller, that we may put processes into.
try() { # parent, file with the limit
    [ -d "$1" ] && mkdir "$1/bitstack-$$" 2>/dev/null || return 1
    group=$1/bitstack-$$
    [ -e "$group/$2" ] || echo +memory >"$1/cgroup.subtree_control" 2>/dev/null
    [ -w "$group/$2" ] && (sh -c 'echo $$ >"$0/cgroup.procs"' "$group") 2>/dev/null && limit=$group/$2 && return
    rmdir "$group"; group=
    return 1
}
find_group() {
    own=$(sed -n 's/^0:://p' /proc/self/cgroup)
    two=$(mount_of cgroup2)
    [ "$own" = / ] && own=
    if [ -z "$two" ] && mkdir -p "$out/mount" && mount -t cgroup2 none "$out/mount" 2>/dev/null; then two=$out/mount mounted=$two; fi
    [ -n "$two" ] && { try "$two$own" memory.max || try "$two" memory.max; } && version=2 && return
    own=$(sed -n 's/^[0-9]*:\([^:]*,\)*memory\(,[^:]*\)*://p' /proc/self/cgroup)
    one=$(mount_of cgroup)
    [ -n "$one" ] && { try "$one$own" memory.limit_in_bytes || try "$one" memory.limit_in_bytes; } && version=1
}
[ -r /proc/self/cgroup ] || skip "no control groups here"
find_group || skip "no control group with a memory limit can be made here (not root, or read-only)"

mb() { echo $(($1 * 1000000)); }
put() { [ -w "$1" ] && echo "$2" >"$1"; } 2>/dev/null
set_limit() { # nobody is to be saved by swap; version 1 wants the limit with swap never below the other
    put "$group/memory.swap.max" 0
    put "$group/memory.memsw.limit_in_bytes" "$(mb "$1")"
    put "$limit" "$(mb "$1")"
    put "$group/memory.memsw.limit_in_bytes" "$(mb "$1")"
}
# Chats while the limit goes from 260 to 110 MB, 3 MB every PACE seconds; the exit status is in $status, what was said in $out/said.
chat() {
    set_limit 260
    rm -f "$out/lines"; mkfifo "$out/lines"
    sh -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "$group" "$build/bitstack" chat "$out/m.bitstack" -n 100000 "$@" --live \
        <"$out/lines" >"$out/said" 2>"$out/err" &
    pid=$!
    exec 3>"$out/lines"
    echo go >&3
    sleep 1
    kill -0 $pid && [ -s "$out/said" ] || { echo "      it did not even begin: $(head -c 300 "$out/err")"; begun=0; }
    to=260
    while [ $to -gt 110 ] && kill -0 $pid 2>/dev/null; do to=$((to - 3)); set_limit $to; sleep "${PACE:-0.05}"; done
    sleep 0.5
    { printf ':info\n:quit\n' >&3; } 2>/dev/null
    exec 3>&-
    ( sleep 20; kill -9 $pid ) 2>/dev/null & watch=$!
    wait $pid; status=$?
    kill $watch 2>/dev/null
}

trap '' PIPE # whoever reads may be killed
pass=0 fail=0 begun=1
"$build/tests/random_stack" "$out/m.bitstack" 2048 5632 6 4 || skip "no room for a test file"
chat --auto; auto=$status; info=$(grep -a -o '\[model: [^]]*\]' "$out/said" | tail -1)
words=$(wc -c <"$out/said")
chat --budget 155MB; fixed=$status
if [ $begun -eq 1 ] && [ $auto -eq 0 ] && [ $fixed -eq 137 ] && [ -n "$info" ]; then
    echo "      version $version; limit from 260 to 110 MB; at the end $info, $words bytes said; at 155 MB: killed"
    echo "ok    $name"; pass=1
else
    echo "FAIL  $name"
    echo "      with --auto status $auto, $info; at a fixed size status $fixed; $(head -c 300 "$out/err")"; fail=1
fi
clean
echo "## $pass $fail 0"
