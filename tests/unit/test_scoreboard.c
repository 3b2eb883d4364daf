/* Unit tests of the scoreboard: counts, and connections by address. */
#include "../../lib/scoreboard.c"

#include "said.h"

static void
test_shares(void **state)
{
	size_t max, workers;

	(void)state;
	for (max = 1; max < 20; max++) {
		for (workers = 1; workers <= max; workers++) {
			struct scoreboard b = { .max = max,
			    .nrows = workers };
			size_t i, before, sum = 0;

			for (i = 0; i < workers; i++) {
				size_t n = scoreboard_share(&b, i, &before);

				assert_int_equal(before, sum);
				assert_in_range(n, max / workers,
				    max / workers + 1);
				sum += n;
			}
			assert_int_equal(sum, max);
		}
	}
}

/* Two workers with half of the places each. */
static void
some_workers(struct scoreboard *b, struct share w[2], size_t max)
{
	size_t i;

	*b = (struct scoreboard)SCOREBOARD_NONE;
	assert_int_equal(scoreboard_new(b, max, 2, 0), 0);
	for (i = 0; i < 2; i++) {
		w[i] = (struct share){ .used = 0 };
		w[i].n = scoreboard_share(b, i, &w[i].first);
		w[i].unused = calloc(w[i].n, sizeof(*w[i].unused));
		assert_non_null(w[i].unused);
	}
}

static void
no_workers(struct scoreboard *b, struct share w[2])
{
	free(w[0].unused);
	free(w[1].unused);
	scoreboard_free(b);
}

/* Enter a connection, with a limit of three per address. */
static int
enter(struct scoreboard *b, struct share *w, uint64_t key,
    volatile uint64_t **place)
{
	return scoreboard_enter(b, w, key, 3, place);
}

static void
test_places(void **state)
{
	struct scoreboard board;
	struct share w[2];
	volatile uint64_t *a, *b, *c, *d;

	(void)state;
	some_workers(&board, w, 6);
	assert_int_equal(enter(&board, &w[0], 7, &a), 0);
	assert_int_equal(enter(&board, &w[1], 7, &b), 0);
	assert_int_equal(enter(&board, &w[1], 7, &c), 0);
	assert_ptr_equal(a, &board.places[0]);
	assert_ptr_equal(b, &board.places[3]);
	assert_ptr_equal(c, &board.places[4]);
	/* The fourth connection of an address is refused in each worker. */
	assert_int_equal(enter(&board, &w[0], 7, &d), -1);
	assert_null(d);
	assert_int_equal(enter(&board, &w[1], 7, &d), -1);
	assert_int_equal(enter(&board, &w[0], 8, &d), 0);
	scoreboard_leave(&board, &w[1], 7, b);
	assert_int_equal(enter(&board, &w[0], 7, &b), 0);
	assert_ptr_equal(b, &board.places[2]);
	/* Without an address, no place is taken. */
	assert_int_equal(enter(&board, &w[0], 0, &d), 0);
	assert_null(d);
	no_workers(&board, w);
}

/* Check the count of each address. */
static void
check_peers(const struct scoreboard *b, const uint64_t *counts, uint64_t keys)
{
	uint64_t key, rows = 0;
	size_t i;

	for (i = 0; i < b->npeers; i++)
		rows += b->peers[i].key != 0;
	for (key = 1; key <= keys; key++) {
		i = peer_find(b, key);
		assert_int_equal(b->peers[i].key, counts[key] > 0 ? key : 0);
		if (counts[key] > 0)
			assert_int_equal(b->peers[i].count, counts[key]);
		rows -= counts[key] > 0;
	}
	assert_int_equal(rows, 0);
}

#define SOME	64			/* connections and addresses */

/* Free rows between others: no row may get lost after a gap. */
static void
test_places_at_random(void **state)
{
	volatile uint64_t *places[2][SOME / 2] = { { NULL } };
	uint64_t counts[SOME + 1] = { 0 }, keys[2][SOME / 2], rnd = 1;
	struct scoreboard board;
	struct share w[2];
	int turn;

	(void)state;
	some_workers(&board, w, SOME);
	for (turn = 0; turn < 20000; turn++) {
		size_t i, at;

		rnd = rnd * 6364136223846793005u + 1442695040888963407u;
		i = rnd >> 33 & 1;
		at = (rnd >> 34) % (SOME / 2);
		if (places[i][at] != NULL) {
			scoreboard_leave(&board, &w[i], keys[i][at],
			    places[i][at]);
			places[i][at] = NULL;
			counts[keys[i][at]]--;
		} else {
			uint64_t key = 1 + (rnd >> 40) % SOME;

			keys[i][at] = key;
			assert_int_equal(enter(&board, &w[i], key,
			    &places[i][at]), counts[key] < 3 ? 0 : -1);
			counts[key] += places[i][at] != NULL;
		}
		if (turn % 100 == 0)
			check_peers(&board, counts, SOME);
	}
	no_workers(&board, w);
}

/* A worker is killed: its places are free, and others keep theirs. */
static void
test_places_of_the_killed(void **state)
{
	uint64_t counts[SOME + 1] = { 0 }, key;
	struct scoreboard board;
	struct share w[2];
	volatile uint64_t *place;

	(void)state;
	some_workers(&board, w, 2 * SOME);
	for (key = 1; key <= SOME; key++) {
		assert_int_equal(enter(&board, &w[0], key, &place), 0);
		assert_int_equal(enter(&board, &w[1], key, &place), 0);
		counts[key] = 1;
	}
	/* It is killed during a change, holding the lock. */
	assert_false(atomic_flag_test_and_set(&board.shared->lock));
	memset((void *)board.peers, 1, board.npeers / 2 * sizeof(*board.peers));
	scoreboard_vacate(&board, 0);
	check_peers(&board, counts, SOME);
	assert_false(atomic_flag_test_and_set(&board.shared->lock));
	no_workers(&board, w);
}

/* Memory written by a malicious worker does no harm. */
static void
test_places_spoilt(void **state)
{
	struct scoreboard board;
	struct share w[2];
	volatile uint64_t *place;

	(void)state;
	some_workers(&board, w, 6);
	memset((void *)board.peers, 0xff, board.npeers * sizeof(*board.peers));
	assert_int_equal(enter(&board, &w[0], 7, &place), 0);
	scoreboard_leave(&board, &w[0], 7, place);
	scoreboard_leave(&board, &w[0], 7, NULL);
	memset((void *)board.places, 0xff, 6 * sizeof(*board.places));
	scoreboard_vacate(&board, 1);
	assert_int_equal(enter(&board, &w[0], 7, &place), 0);
	no_workers(&board, w);
}

/* Chosen collisions do not keep the master busy. */
static void
test_places_made_to_collide(void **state)
{
	struct scoreboard board;
	struct share w[2];
	uint64_t i, max = 100000;
	int64_t before;

	(void)state;
	some_workers(&board, w, max);
	board.secret = 1;
	for (i = 0; i < max; i++)
		board.places[i] = UINT64_C(5) << 32 | i;
	before = clock_ms();
	scoreboard_vacate(&board, 0);
	assert_in_range(clock_ms() - before, 0, 1000);
	no_workers(&board, w);
}

/* A search is short also with 100,000 addresses. */
static void
test_places_of_many(void **state)
{
	struct scoreboard board;
	struct share w[2];
	volatile uint64_t *place;
	uint64_t key, distance = 0, max = 100000;

	(void)state;
	some_workers(&board, w, max);
	/* Keys of one network differ in few bits. */
	for (key = 1; key <= max; key++)
		assert_int_equal(enter(&board, &w[key & 1], key << 16, &place),
		    0);
	for (key = 1; key <= max; key++)
		distance += (peer_find(&board, key << 16) -
		    peer_home(&board, key << 16)) & (board.npeers - 1);
	assert_true(distance < 4 * max);
	no_workers(&board, w);
}

/* The warning about max_connections, once a minute for all. */
static void
test_warn_full(void **state)
{
	struct scoreboard board = SCOREBOARD_NONE;

	(void)state;
	assert_int_equal(scoreboard_new(&board, 1234, 1, 0), 0);
	scoreboard_warn_full(&board, 1000);
	assert_int_equal(times_said(said(), "max_connections reached: 1234"),
	    1);
	scoreboard_warn_full(&board, 1000);
	assert_string_equal(said(), "");
	board.shared->warned -= FULL_EVERY_MS;
	scoreboard_warn_full(&board, 1000);
	scoreboard_warn_full(&board, 1000);
	assert_int_equal(times_said(said(), "max_connections reached"), 1);
	board.shared->warned -= FULL_EVERY_MS;
	scoreboard_warn_full(&board, 0);
	assert_non_null(strstr(said(), "1234; new connections wait"));
	scoreboard_free(&board);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shares),
		cmocka_unit_test(test_places),
		cmocka_unit_test(test_places_at_random),
		cmocka_unit_test(test_places_of_the_killed),
		cmocka_unit_test(test_places_spoilt),
		cmocka_unit_test(test_places_made_to_collide),
		cmocka_unit_test(test_places_of_many),
		cmocka_unit_test(test_warn_full),
	};

	if (said_init() == -1)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
