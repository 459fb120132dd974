/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/* Where apply.sh puts it in a patched kernel. */
#include "../../../../include/uapi/sentinel.h"
