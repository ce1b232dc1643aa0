#!/bin/bash
# Gets the programs that `make bench` races against, at pinned versions, into
# FOLDER/bin. What is already there is left alone; what is only needed to
# build them (sources, a cargo target directory) is removed afterwards.
#
#   benches/peers/install.sh FOLDER
#
# oci2rootfs reads the overlay2 chain itself. mkext4's `mkfs` is the example
# program of a library and, like `mke2fs -d`, reads a mounted tree.
set -euo pipefail

folder=${1:?usage: install.sh FOLDER}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)

OCI2ROOTFS=0.3.0
MKEXT4=0.0.3

install() { # program, stamp, cargo arguments...
    local program=$1 stamp="$folder/$2"
    shift 2
    if [ -x "$folder/bin/$program" ] && [ -e "$stamp" ]; then
        return
    fi
    cargo install --locked --root "$folder" --target-dir "$folder/target" --force "$@"
    touch "$stamp"
}

trap 'rm -rf "$folder/target"' EXIT
install oci2rootfs "oci2rootfs-$OCI2ROOTFS" oci2rootfs-cli --version "$OCI2ROOTFS"
install mkfs "mkext4-$MKEXT4" mkext4 --version "$MKEXT4" --example mkfs
