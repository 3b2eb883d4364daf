/* Unit tests of lib/tls_bio.c, included to reach what is static. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "../../lib/tls_bio.c"

#include <setjmp.h>

#include <cmocka.h>

/* However it comes in pieces. */
static void
test_records_are_counted(void **state)
{
	static const unsigned char flight[] = {
		22, 3, 3, 0, 3, 'a', 'b', 'c',
		22, 3, 3, 0, 0,
		20, 3, 3, 0, 1, 1,
		23, 3, 3, 0, 2, 20, 3,
		23, 3, 3, 1, 4,
	};
	unsigned char body[0x104] = { 0 };
	size_t size, at, n;

	(void)state;
	for (size = 1; size <= sizeof(flight); size++) {
		struct record r = { .count = 0 };

		for (at = 0; at < sizeof(flight); at += n) {
			n = sizeof(flight) - at < size ? sizeof(flight) - at :
			    size;
			track_records(&r, flight + at, n);
			if (at + n == 13)
				assert_int_equal(r.count, 2);
		}
		assert_int_equal(r.count, 2);	/* since the 20 */
		assert_false(is_whole(&r));
		track_records(&r, body, sizeof(body));
		assert_true(is_whole(&r));
		track_records(&r, flight, 4);
		assert_false(is_whole(&r));
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_records_are_counted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
