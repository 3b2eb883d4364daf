/* Unit tests of sessions: packed into a ticket, and unpacked. */
#define MBEDTLS_ALLOW_PRIVATE_ACCESS	/* a session, without a handshake */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <psa/crypto.h>

static psa_status_t fake_random(unsigned char *, size_t);

#define psa_generate_random fake_random
#include "../../lib/tls_session.c"
#undef psa_generate_random
#include "../../lib/memory.h"

#include <setjmp.h>

#include <cmocka.h>

#define LEN(a)	(sizeof(a) / sizeof((a)[0]))

/* A TLS 1.2 connection whose session is kept and resumed. */

static struct tls_config *cfg;
static struct tls *t;
static mbedtls_ssl_session session;
static unsigned char plain[PLAIN_MAX];
static int	 has_random;

static psa_status_t
fake_random(unsigned char *p, size_t len)
{
	return has_random ? psa_generate_random(p, len) :
	    PSA_ERROR_INSUFFICIENT_ENTROPY;
}

static int
begin(void **state)
{
	(void)state;
	has_random = 1;
	cfg = tls_config_new(TLS_SERVER);
	cfg->certs = calloc(1, sizeof(*cfg->certs));
	tls_config_sessions(cfg, tls_sessions_new(0, TLS_BARE, 0), 1, HOUR);
	tls_config_renew(cfg);
	t = calloc(1, sizeof(*t));
	t->cfg = cfg;
	t->ssl = calloc(1, sizeof(*t->ssl));
	t->extended = 1;
	cfg->current = t;
	mbedtls_ssl_session_init(&session);
	session.tls_version = MBEDTLS_SSL_VERSION_TLS1_2;
	session.endpoint = MBEDTLS_SSL_IS_SERVER;
	session.ciphersuite =
	    MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256;
	return 0;
}

static int
end(void **state)
{
	struct tls_sessions *s = cfg->sessions;

	(void)state;
	mbedtls_ssl_session_free(&session);
	tls_free(t);
	tls_config_free(cfg);
	tls_sessions_free(s);
	return 0;
}

static void
ask_for(const char *name)
{
	free(t->sni);
	t->sni = name != NULL ? strdup(name) : NULL;
}

/* Unpack the first len bytes, in memory of exactly that size. */
static int
unpack(size_t len)
{
	unsigned char *copy = malloc(len + (len == 0));
	mbedtls_ssl_session s;
	int r;

	memcpy(copy, plain, len);
	mbedtls_ssl_session_init(&s);
	r = session_unpack(t, &s, copy, len);
	mbedtls_ssl_session_free(&s);
	free(copy);
	return r;
}

static size_t
pack(void)
{
	return session_pack(t, &session, plain, sizeof(plain));
}

static void
test_times_of_a_ticket(void **state)
{
	static const uint64_t bad[] = { UINT64_MAX, UINT64_C(1) << 63,
	    (UINT64_C(1) << 63) + 1 };
	static const size_t at[] = { AT_BORN, AT_SAVED };
	size_t i, j, len;

	(void)state;
	for (i = 0; i < LEN(at); i++) {
		for (j = 0; j < LEN(bad); j++) {
			len = pack();
			assert_int_equal(unpack(len), 0);
			be_put(plain + at[i], bad[j], 8);
			assert_int_equal(unpack(len), -1);
		}
		/* By a clock that is ahead: treated as just begun. */
		be_put(plain + at[i], INT64_MAX, 8);
		assert_int_equal(unpack(len), 0);
	}
}

static void
test_name_of_a_ticket(void **state)
{
	static const char *const names[] = { "a.example.org", "b.example.org",
	    "a.example.or", "org", NULL };
	size_t i, j, len;

	(void)state;
	for (i = 0; i < LEN(names); i++) {
		ask_for(names[i]);
		len = pack();
		for (j = 0; j < LEN(names); j++) {
			ask_for(names[j]);
			assert_int_equal(unpack(len), i == j ? 0 : -1);
		}
		ask_for("");		/* not a host name */
		assert_int_equal(unpack(len), -1);
	}
	assert_int_equal(pack(), 0);
	ask_for("A.example.ORG");
	len = pack();
	ask_for("a.EXAMPLE.org");
	assert_int_equal(unpack(len), 0);
}

static void
test_length_of_a_ticket(void **state)
{
	size_t i, len;

	(void)state;
	ask_for("a.example.org");
	len = pack();
	for (i = 0; i < len; i++)
		assert_int_equal(unpack(i), -1);
	assert_int_equal(unpack(len), 0);
	for (i = 0; i < 256; i++) {
		plain[AT_OWNER] = (unsigned char)i;
		assert_int_equal(unpack(len), i == 13 ? 0 : -1);
	}
}

static void
test_old_master_secret(void **state)
{
	(void)state;
	assert_int_not_equal(pack(), 0);
	t->extended = 0;
	assert_int_equal(pack(), 0);
}

static void
become_a_client(void)
{
	cfg->is_client = 1;
	cfg->min = 12;
	cfg->max = 13;
	session.endpoint = MBEDTLS_SSL_IS_CLIENT;
}

/* A client's session is valid for only one server. */
static void
test_session_of_a_client(void **state)
{
	size_t i, len;

	(void)state;
	become_a_client();
	ask_for("a.example.org");
	memset(t->id, 7, sizeof(t->id));
	len = pack();
	assert_int_not_equal(len, 0);
	for (i = 0; i < len; i++)
		assert_int_equal(unpack(i), -1);
	ask_for(NULL);
	assert_int_equal(unpack(len), 0);
	for (i = 0; i < sizeof(t->id); i++) {
		t->id[i] ^= 1;
		assert_int_equal(unpack(len), -1);
		t->id[i] ^= 1;
	}
	/* The session's version has to be configured still. */
	cfg->min = 13;
	cfg->max = 13;
	assert_int_equal(unpack(len), -1);
	cfg->min = 12;
	cfg->max = 12;
	assert_int_equal(unpack(len), 0);
}

/* For the server's lifetime hint, not our own; then for its rest. */
static void
test_hint_of_a_server(void **state)
{
	size_t len;
	int64_t now;

	(void)state;
	become_a_client();
	t->ticketed = 1;
	t->lifetime_hint = 100;
	len = pack();
	now = (int64_t)be_get(plain + AT_SAVED, 8);
	t->lifetime_hint = 0;
	assert_int_equal(unpack(len), 0);
	assert_in_range(t->lifetime_hint, 90, 100);
	be_put(plain + AT_SAVED, (uint64_t)(now - 60 * 1000), 8);
	assert_int_equal(unpack(len), 0);
	assert_in_range(t->lifetime_hint, 30, 40);
	be_put(plain + AT_SAVED, (uint64_t)(now - 100 * 1000), 8);
	assert_int_equal(unpack(len), -1);
	/* By a clock that was ahead, its age is unknown. */
	be_put(plain + AT_SAVED, (uint64_t)(now + 60 * 1000), 8);
	assert_int_equal(unpack(len), -1);
	be_put(plain + AT_HINT, 0, 4);
	assert_int_equal(unpack(len), 0);
	/* A session without a new ticket has no hint of its own. */
	t->ticketed = 0;
	t->lifetime_hint = 100;
	pack();
	assert_int_equal(be_get(plain + AT_HINT, 4), 0);
}

/* Without a ticket, length and lifetime are 0. */
static void
test_no_ticket(void **state)
{
	unsigned char buf[PLAIN_MAX];
	uint32_t lifetime = 0;
	size_t len = 0;

	(void)state;
	assert_int_equal(ticket_write(cfg, &session, buf, buf + sizeof(buf),
	    &len, &lifetime), 0);
	assert_int_not_equal(len, 0);
	assert_int_not_equal(lifetime, 0);
	len = 0;
	assert_int_not_equal(ticket_write(cfg, &session, buf, buf +
	    TICKET_HEAD - 1, &len, &lifetime), 0);
	has_random = 0;
	assert_int_not_equal(ticket_write(cfg, &session, buf, buf +
	    sizeof(buf), &len, &lifetime), 0);
	assert_int_equal(len, 0);
	assert_int_equal(lifetime, 0);
}

/* The descriptor stays open, for the program that handed it over. */
static void
test_memory_that_is_of_no_use(void **state)
{
	struct tls_sessions_memory memory = { .entries = 3 };
	struct tls_sessions *store = NULL;

	(void)state;
	memory.fd = memory_file();
	assert_int_not_equal(memory.fd, -1);
	assert_string_equal(tls_sessions_map(&memory, &store),
	    "shared memory is of another size");
	assert_null(store);
	assert_int_equal(close(memory.fd), 0);
}

int
main(void)
{
#define TEST(f)	cmocka_unit_test_setup_teardown(f, begin, end)
	const struct CMUnitTest tests[] = {
		TEST(test_times_of_a_ticket),
		TEST(test_name_of_a_ticket),
		TEST(test_length_of_a_ticket),
		TEST(test_old_master_secret),
		TEST(test_session_of_a_client),
		TEST(test_hint_of_a_server),
		TEST(test_no_ticket),
		cmocka_unit_test(test_memory_that_is_of_no_use),
	};

	if (tls_init() != NULL)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
