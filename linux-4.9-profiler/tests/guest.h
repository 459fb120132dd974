/* SPDX-License-Identifier: GPL-2.0 */
/* What the tests in the guest share: the device, pages to touch, and TAP output. */
#ifndef GUEST_H
#define GUEST_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../include/uapi/sentinel.h"

#define PAGE 4096UL
#define PAGES 32

extern int failures;

/* One line of TAP; the format says what was seen. */
void check(bool good, const char *format, ...) __attribute__((format(printf, 2, 3)));
void skip(const char *what, const char *why);
/* The last line of TAP. Returns the exit status. */
int done_testing(void);

/* Ends the program unless the call that a test cannot do without works. */
void must(bool good, const char *what);

/* Fresh memory of small pages, MAP_PRIVATE or MAP_SHARED; and the private kind. */
char *new_mapping(size_t pages, int flags);
char *new_pages(size_t pages);
/* A file of the device with one range; ends the program when that fails. */
int profile(void *start, size_t pages);
void start(int fd, uint32_t mode);
void stop(int fd);
void reset(int fd);
/* The next access to each page misses the TLB. */
void flush(int fd);
/* Reads and writes of one page. */
struct sentinel_count count_of(int fd, void *page);
/* Sum over pages. */
struct sentinel_count sum_of(int fd, void *start, size_t pages);
struct sentinel_status status_of(int fd);
/* One access per page and round; a different word each round. */
void read_pages(char *start, size_t pages, int rounds);
void write_pages(char *start, size_t pages, int rounds);

/* Moves pages to a memory node. */
void move_to(char *pages, int node);
/* Counts a round of writes to PAGES pages and says what came before it. */
void expect_round(int fd, char *pages, const char *what);

/* KiB in huge pages of the mapping that holds an address. */
long huge_kib(void *address);
/* Fresh private memory that the kernel has put into huge pages as far as it could; each page has its number in it. */
uint32_t *new_huge(size_t bytes);
/* How many pages do not have their number any more. */
size_t wrong_pages(uint32_t *area, size_t bytes);

/* How often something long is to be done: SENTINEL_STRESS, if there is one, but no more than this. */
int times(int most);

/* The tests, by file. */
void test_exact(void);
void test_memory(void);
void test_mappings(void);
void test_huge(void);
void test_processes(void);
void test_interface(void);
void test_threads(void);
void test_stress(void);

/* What kind of kernel this is, from INFO. */
extern struct sentinel_info info;
static inline bool patched(void)
{
	return info.features & SENTINEL_FEATURE_PATCHED;
}

#endif /* GUEST_H */
