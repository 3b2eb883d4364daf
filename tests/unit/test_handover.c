/* Unit tests of the handover: write, seal and read it. */
#include "../../lib/handover.c"

#include "said.h"

struct things {
	int64_t	 number;
	int	 n, fd;
	size_t	 size;
	char	*text, *none, **texts;
};

static void
carry_all(struct handover *x, struct things *t)
{
	handover_number(x, &t->number, -9, INT64_MAX);
	handover_int(x, &t->n, -1, 5);
	handover_size(x, &t->size, 1000);
	handover_fd(x, &t->fd);
	handover_text(x, &t->text);
	handover_text(x, &t->none);
	handover_texts(x, &t->texts);
}

static void
free_all(struct things *t)
{
	free(t->text);
	free(t->none);
	handover_free_texts(t->texts);
}

/* Open a handover that is cut after n bytes. */
static void
open_part(struct handover *x, const struct handover *was, size_t n)
{
	struct handover part = *was;
	int fd;

	part.at = n;
	assert_int_not_equal(fd = handover_seal(&part), -1);
	handover_open(x, fd);
	close(fd);
}

static void
test_there_and_back(void **state)
{
	static char text[] = "a text", empty[] = "", *texts[] = { text, empty,
	    NULL };
	struct things is, was = { .number = INT64_MAX, .n = -1, .size = 1000,
	    .text = text, .texts = texts };
	struct handover x, y = { .reads = 0 };
	size_t n;

	(void)state;
	was.fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	carry_all(&y, &was);
	assert_null(y.bad);
	assert_ptr_equal(was.text, text);
	handover_expose(&y, 0);
	assert_int_equal(fcntl(was.fd, F_GETFD), 0);

	open_part(&x, &y, y.at);
	carry_all(&x, &is);
	assert_null(x.bad);
	assert_int_equal(x.at, y.at);
	assert_int_equal(is.number, was.number);
	assert_int_equal(is.n, -1);
	assert_int_equal(is.size, 1000);
	assert_int_equal(is.fd, was.fd);
	assert_int_equal(fcntl(is.fd, F_GETFD), FD_CLOEXEC);
	assert_string_equal(is.text, text);
	assert_null(is.none);
	assert_string_equal(is.texts[0], text);
	assert_string_equal(is.texts[1], "");
	assert_null(is.texts[2]);
	free_all(&is);
	handover_free(&x);

	/* At any length, the results can be freed. */
	for (n = 1; n < y.at; n++) {
		open_part(&x, &y, n);
		carry_all(&x, &is);
		assert_string_equal(x.bad, "it is incomplete");
		free_all(&is);
		handover_free(&x);
	}
	handover_free(&y);
	close(was.fd);
}

/* Open a handover that begins with this number. */
static void
open_number(struct handover *x, int64_t number, const void *p, size_t len)
{
	struct handover y = { .reads = 0 };
	unsigned char bytes[8];

	memcpy(bytes, p, len);
	handover_number(&y, &number, INT64_MIN, INT64_MAX);
	handover_bytes(&y, bytes, len);
	open_part(x, &y, y.at);
	handover_free(&y);
}

static void
test_of_no_use(void **state)
{
	struct handover x;
	int n = 7, fd = 7;
	char *text;

	(void)state;
	open_number(&x, 6, "", 0);
	handover_int(&x, &n, 2, 5);
	assert_string_equal(x.bad, "a number is out of range");
	assert_int_equal(n, 2);
	/* The first fault is kept. */
	handover_fd(&x, &fd);
	handover_text(&x, &text);
	assert_string_equal(x.bad, "a number is out of range");
	assert_int_equal(fd, -1);
	assert_null(text);
	handover_free(&x);

	open_number(&x, INT_MAX, "", 0);
	handover_fd(&x, &fd);
	assert_string_equal(x.bad, "a descriptor is not open");
	handover_free(&x);

	open_number(&x, 2, "a\0", 2);
	handover_text(&x, &text);
	assert_string_equal(x.bad, "a text is malformed");
	free(text);
	handover_free(&x);

	open_number(&x, HANDOVER_MAX, "a", 1);
	handover_text(&x, &text);
	assert_string_equal(x.bad, "it is incomplete");
	assert_null(text);
	handover_free(&x);
}

/* A handover that can be modified while it is read is refused. */
static void
test_not_sealed(void **state)
{
	struct handover x;
	int fd = memory_file();

	(void)state;
	assert_int_not_equal(fd, -1);
	handover_open(&x, fd);
	assert_string_equal(x.bad, "it is not sealed");
	handover_free(&x);
	assert_int_equal(ftruncate(fd, HANDOVER_MAX + 1), 0);
	assert_int_equal(memory_seal(fd, 0), 0);
	handover_open(&x, fd);
	assert_string_equal(x.bad, "it is too long");
	handover_free(&x);
	close(fd);
	handover_open(&x, fd);
	assert_string_equal(x.bad, "it is not sealed");
	handover_free(&x);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_there_and_back),
		cmocka_unit_test(test_of_no_use),
		cmocka_unit_test(test_not_sealed),
	};

	return said_init() == -1 ? 1 :
	    cmocka_run_group_tests(tests, NULL, NULL);
}
