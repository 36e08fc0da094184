# Sourced by the scripts that run test programs a second time, beside the first: gives them a folder of their own to
# write in.  make_room DIRECTORY
make_room() {
    mkdir -p "$1/build/tests" || exit 1
    for part in tests examples bench bitstack.h bitstack_compress.h; do ln -sfn "$PWD/$part" "$1/$part"; done
    BITSTACK_SHARED=${BITSTACK_SHARED:-$PWD/../shared}
    export BITSTACK_SHARED
}
# What programs under sanitizers are run by: where addresses are drawn from too wide a range, some of their runtimes stop,
# and that of AddressSanitizer in GCC 12 repeats one message for ever.
still=""
if setarch "$(uname -m)" -R true 2>/dev/null; then still="setarch $(uname -m) -R"; fi
# limited SECONDS, COMMAND...: as `timeout`, or without a limit where there is no such command.
limited() { if command -v timeout >/dev/null; then timeout -k 5 "$@"; else shift; "$@"; fi; }
