# Sourced by the scripts that run test programs a second time, beside the first: gives them a folder of their own to
# write in.  make_room DIRECTORY
make_room() {
    mkdir -p "$1/build/tests" || exit 1
    for part in tests examples bench bitstack.h bitstack_compress.h; do ln -sfn "$PWD/$part" "$1/$part"; done
    BITSTACK_SHARED=${BITSTACK_SHARED:-$PWD/../shared}
    export BITSTACK_SHARED
}
