#!/bin/bash
# Gets the programs of others that tests and benchmarks use, at pinned versions,
# into FOLDER/bin. What is already there is left alone; what is only needed to
# build them (sources, a cargo target directory) is removed afterwards.
#
#   benches/peers/install.sh FOLDER [PROGRAM...]     all of them by default
#
# oci2rootfs reads the overlay2 chain itself; the tests run it as an engine.
# mkext4's `mkfs` is the example program of a library and, like `mke2fs -d`,
# reads a mounted tree. b3sum hashes files as fast as the crate blake3 can.
set -euo pipefail

folder=${1:?usage: install.sh FOLDER [PROGRAM...]}
shift
[ $# -gt 0 ] || set -- oci2rootfs mkfs b3sum
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)

OCI2ROOTFS=0.3.0
MKEXT4=0.0.3
B3SUM=1.8.7

install() { # program, stamp, cargo arguments...
    local program=$1 stamp="$folder/$2"
    shift 2
    if [ -x "$folder/bin/$program" ] && [ -e "$stamp" ]; then
        return
    fi
    cargo install --locked --root "$folder" --target-dir "$folder/target" --force "$@"
    touch "$stamp"
}

# One at a time: checkouts may share the folder.
exec 9> "$folder/.lock"
flock 9
trap 'rm -rf "$folder/target"' EXIT
for program; do
    case $program in
        oci2rootfs) install oci2rootfs "oci2rootfs-$OCI2ROOTFS" oci2rootfs-cli --version "$OCI2ROOTFS" ;;
        mkfs) install mkfs "mkext4-$MKEXT4" mkext4 --version "$MKEXT4" --example mkfs ;;
        b3sum) install b3sum "b3sum-$B3SUM" b3sum --version "$B3SUM" ;;
        *) echo "install.sh: no such program: $program" >&2; exit 2 ;;
    esac
done
