/* SPDX-License-Identifier: GPL-2.0 */
/* Where apply.sh puts it in a patched kernel. */
#include "../../../core/asm_sentinel.h"
