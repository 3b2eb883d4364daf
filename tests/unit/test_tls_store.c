/* Unit tests of lib/tls_store.c, included to reach what is static. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../lib/tls_store.c"

#include <setjmp.h>

#include <cmocka.h>

#define PROCESSES	4
#define THINGS		20000		/* kept by each of them */

static struct tls_sessions *s;
static const unsigned char id[ID_SIZE] = { 1, 2, 3 };

static int
begin(void **state)
{
	(void)state;
	s = tls_sessions_new(64, TLS_WITH_SERVERS, 0);
	return s != NULL ? 0 : -1;
}

static int
end(void **state)
{
	(void)state;
	tls_sessions_free(s);
	return 0;
}

static void
put(const char *text, size_t most)
{
	tls_store_put(s, id, most, (const unsigned char *)text,
	    strlen(text) + 1);
}

/* All entries, the latest first, as one text. */
static const char *
found(void)
{
	static char text[2 * WAYS];
	struct tls_kept k = { .stamp = 0 };
	size_t n = 0;

	while (tls_store_find(s, id, &k) == 0 && n < sizeof(text) - 1)
		text[n++] = (char)k.ticket[0];
	text[n] = '\0';
	return text;
}

static void
test_the_last_comes_first(void **state)
{
	(void)state;
	assert_string_equal(found(), "");
	put("a", 4);
	put("b", 4);
	put("c", 4);
	assert_string_equal(found(), "cba");
	put("d", 4);
	put("e", 4);
	put("f", 4);
	assert_string_equal(found(), "fedc");
	put("g", 1);
	assert_string_equal(found(), "gfed");
}

/* Other IDs of the same set use the same slots. */
static void
test_no_more_than_there_are_places(void **state)
{
	char text[2] = "a";

	(void)state;
	for (; text[0] < 'a' + 2 * WAYS; text[0]++)
		put(text, SIZE_MAX);
	assert_string_equal(found(), "ponmlkji");
	tls_sessions_free(s);
	s = tls_sessions_new(2, TLS_BARE, 0);
	put("a", 4);
	put("b", 4);
	put("c", 4);
	assert_string_equal(found(), "cb");
	tls_sessions_free(s);
	s = tls_sessions_new(0, TLS_BARE, 0);
	put("a", 4);
	assert_string_equal(found(), "");
}

static void
test_of_another_id(void **state)
{
	static const unsigned char other[ID_SIZE] = { 1, 2, 3, 0, 5 };
	struct tls_kept k = { .stamp = 0 };

	(void)state;
	put("a", 4);
	assert_int_equal(tls_store_find(s, other, &k), -1);
	tls_store_put(s, other, 1, (const unsigned char *)"b", 2);
	assert_string_equal(found(), "a");
	tls_store_forget(s, id);
	assert_string_equal(found(), "");
	assert_int_equal(tls_store_find(s, other, &k), 0);
	assert_string_equal((char *)k.ticket, "b");
}

static void
test_taken_once(void **state)
{
	struct tls_kept k = { .stamp = 0 }, copy;

	(void)state;
	put("a", 4);
	put("b", 4);
	assert_int_equal(tls_store_find(s, id, &k), 0);
	copy = k;
	assert_int_equal(tls_store_take(s, id, &k), 0);
	assert_int_equal(tls_store_take(s, id, &copy), -1);
	assert_string_equal(found(), "a");
	/* The slot has another entry now. */
	put("c", 4);
	assert_int_equal(tls_store_take(s, id, &copy), -1);
	assert_string_equal(found(), "ca");
	/* The search continues after the taken entry. */
	assert_int_equal(tls_store_find(s, id, &k), 0);
	assert_string_equal((char *)k.ticket, "a");
}

/* Entries that are too long are refused, and no length is trusted. */
static void
test_length(void **state)
{
	static unsigned char long_one[KEPT_MAX + 1];
	struct tls_kept k = { .stamp = 0 };
	size_t i;

	(void)state;
	tls_store_put(s, id, 1, long_one, sizeof(long_one));
	assert_int_equal(tls_store_find(s, id, &k), -1);
	tls_store_put(s, id, 1, long_one, KEPT_MAX);
	assert_int_equal(tls_store_find(s, id, &k), 0);
	assert_int_equal(k.len, KEPT_MAX);
	for (i = 0; i < WAYS; i++)
		slot_for(s, id, i)->len = KEPT_MAX + 1;
	k.stamp = 0;
	assert_int_equal(tls_store_find(s, id, &k), -1);
}

/* A slot left by a process killed while writing is reused in its turn. */
static void
test_half_written(void **state)
{
	char text[2] = "b";
	size_t i;

	(void)state;
	put("a", SIZE_MAX);
	for (i = 0; i < WAYS; i++)
		if (is_of(slot_for(s, id, i), id))
			atomic_fetch_add(&slot_for(s, id, i)->stamp, 1);
	assert_string_equal(found(), "");
	for (; text[0] <= 'a' + WAYS; text[0]++)
		put(text, SIZE_MAX);
	assert_string_equal(found(), "ihgfedcb");
}

/* Stamps wrap around: older entries stay older. */
static void
test_many_times(void **state)
{
	(void)state;
	atomic_store(&s->shared->clock, UINT_MAX - 5);
	put("a", 4);
	put("b", 4);
	put("c", 4);		/* which would have the stamp 0 */
	put("d", 4);
	put("e", 4);
	assert_string_equal(found(), "edba");
	put("f", 4);
	assert_string_equal(found(), "fedb");
}

/* A process that puts entries and takes any; it reports what it took. */
static void
keep_and_take(unsigned process, int fd)
{
	struct tls_kept k;
	unsigned long i, thing;

	for (i = 0; i < THINGS; i++) {
		thing = process * THINGS + i;
		tls_store_put(s, id, 4, (unsigned char *)&thing,
		    sizeof(thing));
		k.stamp = 0;
		while (tls_store_find(s, id, &k) == 0) {
			memcpy(&thing, k.ticket, sizeof(thing));
			if (tls_store_take(s, id, &k) == 0 &&
			    write(fd, &thing, sizeof(thing)) == -1)
				_exit(1);
		}
	}
	_exit(0);
}

static void
test_taken_once_by_all(void **state)
{
	static unsigned char taken[PROCESSES * THINGS];
	unsigned long thing, n = 0;
	int fds[2], status;
	unsigned i;

	(void)state;
	assert_int_equal(pipe(fds), 0);
	for (i = 0; i < PROCESSES; i++)
		if (fork() == 0) {
			close(fds[0]);
			keep_and_take(i, fds[1]);
		}
	close(fds[1]);
	while (read(fds[0], &thing, sizeof(thing)) == sizeof(thing)) {
		assert_in_range(thing, 0, PROCESSES * THINGS - 1);
		assert_int_equal(taken[thing]++, 0);
		n++;
	}
	close(fds[0]);
	for (i = 0; i < PROCESSES; i++) {
		assert_true(wait(&status) > 0);
		assert_int_equal(status, 0);
	}
	/*
	 * Most entries are taken, at least by the process that just kept them.
	 */
	assert_true(n > THINGS);
}

int
main(void)
{
#define TEST(f)	cmocka_unit_test_setup_teardown(f, begin, end)
	const struct CMUnitTest tests[] = {
		TEST(test_the_last_comes_first),
		TEST(test_no_more_than_there_are_places),
		TEST(test_of_another_id),
		TEST(test_taken_once),
		TEST(test_length),
		TEST(test_half_written),
		TEST(test_many_times),
		TEST(test_taken_once_by_all),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
