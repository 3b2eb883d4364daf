/* Unit tests of the keys of addresses. */
#include "../../lib/peer.c"

#include "keys.h"
#include "said.h"

/* IPv4 by address; IPv6 by /64; nothing else. */
static void
test_peer_keys(void **state)
{
	struct sockaddr_storage sa = { .ss_family = AF_UNIX };

	(void)state;
	assert_true(key_of("192.0.2.1") == key_of("64:ff9b::192.0.2.1"));
	assert_true(key_of("192.0.2.2") != key_of("64:ff9b::192.0.2.1"));
	assert_true(key_of("192.0.2.1") != key_of("64:ff9b:1::192.0.2.1"));
	assert_true(key_of("192.0.2.1") != key_of("192.0.2.2"));
	assert_true(key_of("2001:db8:0:1::1") == key_of("2001:db8:0:1:9::2"));
	assert_true(key_of("2001:db8:0:1::1") != key_of("2001:db8:0:2::1"));
	assert_true(key_of("::1") != 0);
	assert_true(key_of("0.0.0.0") != 0);
	assert_true(peer_key(&sa) == 0);
}

static void
expect_peer_text(const char *address, const char *text)
{
	char out[128];

	peer_text(key_of(address), out, sizeof(out));
	assert_string_equal(out, text);
}

static void
test_peer_texts(void **state)
{
	char out[128];

	(void)state;
	expect_peer_text("192.0.2.1", "192.0.2.1");
	expect_peer_text("64:ff9b::192.0.2.1", "192.0.2.1");
	expect_peer_text("2001:db8:0:1:2::3", "2001:db8:0:1::/64");
	expect_peer_text("::1", "::/64");
	peer_text(0, out, sizeof(out));
	assert_string_equal(out, "unix:");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_peer_keys),
		cmocka_unit_test(test_peer_texts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
