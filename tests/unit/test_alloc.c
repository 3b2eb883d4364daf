/*
 * Unit tests of the allocator for mbed TLS in a build with musl.  alloc.c is
 * included; its calls of malloc(3) and free(3) are counted.
 */
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct {
	int	 no_memory;
	size_t	 held;			/* from libc: bytes and chunks */
	size_t	 chunks;
} world;

static void *
fake_calloc(size_t n, size_t size)
{
	void *p = world.no_memory ? NULL : calloc(n, size);

	if (p != NULL) {
		world.held += malloc_usable_size(p);
		world.chunks++;
	}
	return p;
}

static void
fake_free(void *p)
{
	if (p != NULL) {
		world.held -= malloc_usable_size(p);
		world.chunks--;
	}
	free(p);
}

#define calloc	fake_calloc
#define free	fake_free
#include "mbedtls/alloc.c"
#undef calloc
#undef free

#define MANY	10000
#define KEPT_MAX ((SMALL / STEP + 1) * (KEPT + SMALL))

static int
setup(void **state)
{
	(void)state;
	world.no_memory = 0;
	return 0;
}

/* Check that a test has freed all memory; return cached chunks to libc. */
static int
teardown(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i <= SMALL / STEP; i++) {
		while (small[i].first != NULL) {
			struct chunk *c = small[i].first;

			small[i].first = c->next;
			small[i].n--;
			fake_free(c);
		}
		if (small[i].n != 0)
			return -1;
	}
	return world.chunks != 0 || world.held != 0;
}

static int
is_zero(const unsigned char *p, size_t size)
{
	while (size > 0 && p[size - 1] == 0)
		size--;
	return size == 0;
}

static void
test_zeroed(void **state)
{
	unsigned char *p;
	size_t size;

	(void)state;
	for (size = 0; size <= 2 * SMALL; size++) {
		p = tunnel_calloc(1, size);
		assert_non_null(p);
		assert_true((uintptr_t)p % _Alignof(max_align_t) == 0);
		assert_true(is_zero(p, size));
		memset(p, 0xa5, size);
		tunnel_free(p);
	}
}

static void
test_reused(void **state)
{
	static const size_t sizes[] = { 1, 32, 72, SMALL };
	size_t i, chunks;

	(void)state;
	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		tunnel_free(tunnel_calloc(1, sizes[i]));
	chunks = world.chunks;
	assert_int_equal(chunks, i);
	world.no_memory = 1;		/* cached chunks are enough */
	while (i-- > 0) {
		void *p = tunnel_calloc(sizes[i], 1);

		assert_non_null(p);
		assert_true(malloc_usable_size(p) >= sizes[i]);
		tunnel_free(p);
	}
	assert_int_equal(world.chunks, chunks);
}

static void
test_too_much(void **state)
{
	(void)state;
	assert_null(tunnel_calloc(SIZE_MAX / 2, 3));
	assert_null(tunnel_calloc(3, SIZE_MAX / 2));
	assert_null(tunnel_calloc(SIZE_MAX / 16 + 1, 16));
	world.no_memory = 1;
	assert_null(tunnel_calloc(1, 32));
	assert_null(tunnel_calloc(1, SMALL + 1));
	assert_null(tunnel_calloc(0, 0));
	tunnel_free(NULL);
}

/* Chunks that are too large or too many for the cache go back to libc. */
static void
test_given_back(void **state)
{
	void *p[2 * KEPT / 256];
	size_t i;

	(void)state;
	tunnel_free(tunnel_calloc(1, 2 * SMALL));
	assert_int_equal(world.chunks, 0);
	for (i = 0; i < sizeof(p) / sizeof(p[0]); i++)
		assert_non_null(p[i] = tunnel_calloc(1, 256));
	while (i-- > 0)
		tunnel_free(p[i]);
	assert_int_equal(world.chunks, KEPT / 256);
}

/* Allocate and free chunks of any size: none may overlap. */
static void
test_many(void **state)
{
	static unsigned char *p[MANY];
	static size_t sizes[MANY];
	size_t i, j, k, used = 0;

	(void)state;
	srandom(1);
	for (i = 0; i < 20 * MANY; i++) {
		j = (size_t)random() % MANY;
		if (p[j] != NULL) {
			for (k = 0; k < sizes[j]; k++)
				assert_int_equal(p[j][k], j & 0xff);
			used -= malloc_usable_size(p[j]);
			tunnel_free(p[j]);
			p[j] = NULL;
			continue;
		}
		sizes[j] = (size_t)random() % (i % 20 == 0 ? 24 * 1024 : 600);
		assert_non_null(p[j] = tunnel_calloc(1, sizes[j]));
		used += malloc_usable_size(p[j]);
		assert_true(is_zero(p[j], sizes[j]));
		memset(p[j], (int)(j & 0xff), sizes[j]);
		assert_true(world.held - used <= KEPT_MAX);
	}
	for (j = 0; j < MANY; j++)
		tunnel_free(p[j]);
}

int
main(void)
{
#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		test(test_zeroed),
		test(test_reused),
		test(test_too_much),
		test(test_given_back),
		test(test_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
