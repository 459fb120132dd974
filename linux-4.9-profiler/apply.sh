#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Puts the profiler into a kernel source tree: apply.sh TREE. The version of the tree decides which patches are taken.
# A tree that has it already gets the present files of the core, and no patch twice.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
tree=${1:?usage: apply.sh KERNEL_SOURCE_TREE}
version=$(sed -n 's/^VERSION = //p' "$tree/Makefile").$(sed -n 's/^PATCHLEVEL = //p' "$tree/Makefile")
if [ ! -d "$here/patches/$version" ]; then
    echo "apply.sh: $tree is Linux $version; there are patches for $(ls "$here/patches" | tr '\n' ' ')" >&2
    exit 1
fi

# Only what differs is copied, so that make builds no more than it must.
put() {
    mkdir -p "$(dirname "$2")"
    cmp -s "$1" "$2" || cp "$1" "$2"
}
core=$tree/arch/x86/mm/sentinel
for file in Kconfig Makefile sentinel_compat.h sentinel_internal.h sentinel_regions.h; do
    put "$here/core/$file" "$core/$file"
done
for file in "$here"/core/*.c; do
    put "$file" "$core/$(basename "$file")"
done
put "$here/core/asm_sentinel.h" "$tree/arch/x86/include/asm/sentinel.h"
put "$here/core/sentinel_hooks.h" "$tree/include/linux/sentinel_hooks.h"
put "$here/include/uapi/sentinel.h" "$tree/include/uapi/linux/sentinel.h"

if grep -q 'arch/x86/mm/sentinel/Kconfig' "$tree/arch/x86/Kconfig"; then
    exit 0
fi
# All patches are tried before the first one changes anything.
cat "$here/patches/$version"/*.patch | patch -d "$tree" -p1 --dry-run --silent -F 3 ||
    { echo "apply.sh: the patches do not fit $tree" >&2; exit 1; }
for patch in "$here/patches/$version"/*.patch; do
    patch -d "$tree" -p1 --silent -F 3 <"$patch"
done
