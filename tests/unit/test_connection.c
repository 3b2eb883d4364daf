/* Unit tests of connection, which is included for its static functions. */
#include "../../lib/connection.c"

#include "said.h"

/* Connections of an address count over all generations. */
static int
enter(struct generation *g, struct share *w, volatile uint64_t **place)
{
	return scoreboard_enter(&g->board, w, 7, max_for_address(g, 7), place);
}

static void
test_places_of_generations(void **state)
{
	struct generation g[3];
	struct share w[3] = { { .used = 0 } };
	volatile uint64_t *first, *place;
	int64_t limits[3] = { 0, 9, 4 };
	size_t i;

	(void)state;
	for (i = 0; i < 3; i++) {
		g[i] = (struct generation){ .board = SCOREBOARD_NONE,
		    .older = i > 0 ? &g[i - 1] : NULL };
		g[i].config.number[MAX_PER_IP] = limits[i];
		assert_int_equal(scoreboard_new(&g[i].board, 6 << 4 * i, 1,
		    0), 0);
		w[i].unused = calloc(6 << 4 * i, sizeof(*w[i].unused));
		assert_non_null(w[i].unused);
	}
	assert_int_equal(enter(&g[0], &w[0], &first), 0);
	assert_int_equal(enter(&g[0], &w[0], &place), 0);
	assert_int_equal(enter(&g[1], &w[1], &place), 0);
	assert_int_equal(enter(&g[2], &w[2], &place), 0);
	/* The fifth is refused until another one ends, in any generation. */
	assert_int_equal(enter(&g[2], &w[2], &place), -1);
	scoreboard_leave(&g[0].board, &w[0], 7, first);
	assert_int_equal(enter(&g[2], &w[2], &place), 0);
	assert_int_equal(enter(&g[2], &w[2], &place), -1);
	scoreboard_vacate(&g[0].board, 0);
	assert_int_equal(enter(&g[2], &w[2], &place), 0);
	assert_int_equal(enter(&g[2], &w[2], &place), -1);
	for (i = 0; i < 3; i++) {
		scoreboard_free(&g[i].board);
		free(w[i].unused);
	}
}

/* A command is not started a second time. */
static void
test_command_that_does_not_open(void **state)
{
	static char name[] = "true", *command[] = { name, NULL };
	struct generation g = { .config.command = command };
	struct connections all = { .generation = &g, .share = { .n = 1 } };
	struct connection c = { .all = &all, .dialed = 1, .fd = -1 };
	struct stream backend = { .fd = -1 };
	const char *why = NULL;

	(void)state;
	assert_int_equal(connection_dial(&c, &backend, "it is gone", &why), -1);
	assert_string_equal(why, "it is gone");
	assert_int_equal(all.commands.running, 0);
}

/* Make addresses with these last numbers, for a target. */
static struct addresses *
addresses(const char *numbers)
{
	struct sockaddr_in in = { .sin_family = AF_INET };
	struct addresses *a = net_addresses(strlen(numbers));

	assert_non_null(a);
	for (; a->n < strlen(numbers); a->n++) {
		in.sin_addr.s_addr = htonl(0x0a000000u +
		    (unsigned)(numbers[a->n] - '0'));
		assert_int_equal(net_take_address(&a->list[a->n],
		    (const struct sockaddr *)(const void *)&in, 80), 0);
	}
	return a;
}

static struct target targets[2];

static void
move(struct target *t, const char *numbers)
{
	net_release(t->to);
	t->to = addresses(numbers);
}

/* Fail up to n addresses of a connection; return their last numbers. */
static const char *
tried(struct connection *c, size_t n)
{
	static char numbers[16];
	const struct address *a;
	size_t i;

	for (i = 0; i < n && (a = next_address(c)) != NULL; i++) {
		numbers[i] = strchr(a->text, ':')[-1];
		dial_failed(c, "refused");
	}
	numbers[i] = '\0';
	return numbers;
}

/* Try each address once, by the list at the time when its target is taken. */
static void
test_addresses_that_change(void **state)
{
	struct repeats repeats = { .period = { .began = 0 } };
	struct generation g = { .board.repeats = &repeats, .names = NAMES_NONE,
	    .backends = { .list = targets, .n = 2 } };
	struct connections all = { .generation = &g };
	struct connection c = { .all = &all }, second = { .all = &all };
	struct connection third = { .all = &all, .turn = 1 };

	(void)state;
	targets[0].row = targets[1].row = SIZE_MAX;
	move(&targets[0], "123");
	move(&targets[1], "45");
	assert_string_equal(tried(&c, 2), "12");
	assert_string_equal(tried(&second, 1), "3");
	move(&targets[0], "67");
	move(&targets[1], "8");
	assert_string_equal(c.to->list[c.which].text, "10.0.0.2:80");
	assert_string_equal(tried(&c, 9), "38");
	assert_string_equal(tried(&second, 9), "128");
	assert_string_equal(tried(&third, 9), "867");
	assert_string_equal(tried(&third, 9), "");
	net_release(c.to);
	net_release(second.to);
	net_release(third.to);
	net_release(targets[0].to);
	net_release(targets[1].to);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_places_of_generations),
		cmocka_unit_test(test_command_that_does_not_open),
		cmocka_unit_test(test_addresses_that_change),
	};

	return said_init() == -1 ? 1 :
	    cmocka_run_group_tests(tests, NULL, NULL);
}
