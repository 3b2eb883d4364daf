/*
 * Make the seeds that depend on the keys made for the harnesses, and so can't
 * be in the tree: files in DIR/NAME.  Usage: seeds DIR
 */
#include <stdarg.h>
#include <stdio.h>

#include "fuzz_tls.h"
#include "fuzz_server.h"
#include "tls_pem.h"

static const char *directory;

/* Concatenate pairs of { address, length }, up to NULL. */
static void
save(const char *harness, ...)
{
	static unsigned number;
	const void *p;
	char name[256];
	va_list ap;
	FILE *fp;

	snprintf(name, sizeof(name), "%s/%s/%u", directory, harness, number++);
	must((fp = fopen(name, "w")) != NULL, name);
	va_start(ap, harness);
	while ((p = va_arg(ap, const void *)) != NULL)
		fwrite(p, 1, va_arg(ap, size_t), fp);
	va_end(ap);
	must(fclose(fp) == 0, name);
}

static void
save_file(int kind, const char *name)
{
	struct tls_config *cfg = tls_config_new(TLS_SERVER);
	const char digit = (char)('0' + kind);
	unsigned char *p;
	size_t size;

	must((p = tls_pem_read(cfg, name, &size)) != NULL, name);
	save("files", &digit, (size_t)1, p, size - 1, NULL);
	free(p);
	tls_config_free(cfg);
}

static void
save_certificates(void)
{
	static const struct {
		const char *file, *rule, *name;
	} list[] = {
		{ "client", "dns:alice.example.org", "a.b.example.org" },
		{ "client", "dns:*.example.org", "*.b.example.org" },
		{ "client", "ip:2001:db8::1", "alice.example.org" },
		{ "client", "uri:spiffe://x/y", "alice" },
		{ "bob", "cn:bob", "bob" },
		{ "ec", "dns:*.w.example.org", "a.w.example.org" },
		{ "ca", "cn:Test CA", "Test CA" },
		{ "limited", "", "a.example.org" },
	};
	const mbedtls_x509_buf *der;
	struct tls_config *cfg;
	unsigned char flags, length[2];
	char path[64];
	size_t i;

	for (i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
		snprintf(path, sizeof(path), PKI "%s.pem", list[i].file);
		must((cfg = tls_config_new(TLS_SERVER)) != NULL &&
		    tls_config_cert(cfg, path) == 0, path);
		der = &cfg->certs->chain.raw;
		save("names", list[i].rule, strlen(list[i].rule) + 1,
		    list[i].name, strlen(list[i].name) + 1, der->p, der->len,
		    NULL);
		be_put(length, der->len, 2);
		for (flags = 0; flags < 4; flags++)
			save("clientcert", &flags, (size_t)1, length,
			    sizeof(length), der->p, der->len, NULL);
		tls_config_free(cfg);
	}
}

/* Do what a client does after the handshake; keep its session, if any. */
static int
talk(struct stream *s, struct client *c, mbedtls_ssl_session *saved)
{
	unsigned char buf[512];
	int i, has = 0;

	s->ops->write(s, "hello", 5);
	/*
	 * The library has to be called again for a ticket, and then reports it.
	 */
	for (i = 0; i < 5; i++) {
		mbedtls_ssl_read(&c->ssl, buf, sizeof(buf));
		has = mbedtls_ssl_get_session(&c->ssl, saved) == 0 || has;
	}
	mbedtls_ssl_write(&c->ssl, (const unsigned char *)"data", 4);
	mbedtls_ssl_close_notify(&c->ssl);
	return has;
}

/* Return the content of its ticket. */
static void
save_ticket(const struct tls_config *cfg, unsigned char flags,
    const mbedtls_ssl_session *session)
{
	unsigned char plain[PLAIN_MAX];
	size_t len = tls_ticket_unseal(cfg, session->MBEDTLS_PRIVATE(ticket),
	    session->MBEDTLS_PRIVATE(ticket_len), plain, sizeof(plain));

	must(len > 0, "no ticket of ours");
	save("ticket", &flags, (size_t)1, plain, len, NULL);
}

/* The client's bytes are a seed for a connection without the client. */
static void
check_replay(struct tls_config *cfg)
{
	static struct wire recorded;
	struct stream s = { .fd = -1 };
	struct tls *t;
	int r;

	recorded = from_peer;
	start(cfg, SIZE_MAX);
	from_peer = recorded;
	from_peer.at = 0;
	must((t = tls_new(cfg, -1, NULL, &s)) != NULL, "tls_new");
	do
		r = s.ops->open(&s);
	while (r == STREAM_WANT_TURN ||
	    (r == STREAM_WANT_READ && from_peer.at != from_peer.end));
	must(r == 0, "it cannot be replayed");
	tls_free(t);
}

/* The versions and key exchanges. */
enum { TLS12, TLS13, HYBRID, SHARED12, SHARED13 };

static int
is_13(int kind)
{
	return kind != TLS12 && kind != SHARED12;
}

/* Make a whole connection; resume the session, if there is one. */
static int
connection(struct tls_config *cfg, int kind, mbedtls_ssl_session *session,
    int has_session)
{
	unsigned char verify = (unsigned char)cfg->verify, most = 255;
	struct stream s = { .fd = -1 };
	const struct psk *p = cfg->psks;
	struct client c;
	struct tls *t;

	start(cfg, SIZE_MAX);
	must((t = tls_new(cfg, -1, NULL, &s)) != NULL, "tls_new");
	client_new(&c, is_13(kind), kind == HYBRID, &client_cert->chain);
	if (kind >= SHARED12)
		must(mbedtls_ssl_conf_psk(&c.conf, p->secret, p->len,
		    (const unsigned char *)p->name, p->name_len) == 0, "psk");
	if (has_session)
		must(mbedtls_ssl_set_session(&c.ssl, session) == 0, "session");
	must(do_handshake(&s, &c.ssl) == 0, "no handshake");
	must(t->resumed == has_session, "resumed is wrong");
	must((t->psk != NULL) == (kind >= SHARED12), "psk is wrong");
	must((t->group == MBEDTLS_SSL_IANA_TLS_GROUP_X25519MLKEM768) ==
	    (kind == HYBRID), "another group");
	has_session = talk(&s, &c, session);
	save("hello", &verify, (size_t)1, from_peer.p, from_peer.end,
	    NULL);
	save("records", &most, (size_t)1, from_peer.p, from_peer.end,
	    NULL);
	save("records", &most, (size_t)1, to_peer.p, to_peer.end, NULL);
	client_free(&c);
	tls_free(t);
	check_replay(cfg);
	return has_session;
}

static void
save_connections(void)
{
	mbedtls_ssl_session session;
	int verify, kind;

	for (verify = NOT_ASKED; verify <= REQUIRED; verify++)
		for (kind = TLS12; kind <= (verify == REQUIRED ? SHARED13 :
		    HYBRID); kind++) {
			mbedtls_ssl_session_init(&session);
			must(connection(servers[verify], kind, &session, 0),
			    "no session");
			save_ticket(servers[verify], (unsigned char)(verify |
			    is_13(kind) * 4), &session);
			connection(servers[verify], kind, &session, 1);
			mbedtls_ssl_session_free(&session);
		}
}

/*
 * Seeds with an edit of each message, of each kind; and unedited records
 * behind.
 */
static void
save_flights(void)
{
	unsigned char edit[] = { 0, 1, 0, 0, 0, 2, 1, 0 };
	unsigned char records[] = { 0, 0, 0, 0, 1, 'x', 2, 1, 5, 24, 0, 0, 1,
	    0, 1, 0, 2, 1, 0 };
	unsigned char flags, message, kind;

	for (flags = 0; flags < 64; flags++) {
		records[0] = flags;
		save("flight", records, sizeof(records), NULL);
		for (message = 0; message < 5; message++)
			for (kind = 0; kind < 4 && flags % 8 == 5; kind++) {
				edit[0] = flags;
				edit[2] = message;
				edit[3] = kind;
				save("flight", edit, sizeof(edit), NULL);
			}
	}
}

/*
 * A connection to a server, which may resume the one before; its bytes are a
 * seed for a connection without the server.
 */
static void
answers(struct tls_config *cfg, unsigned char flags, int is_again)
{
	struct stream s = { .fd = -1 };
	struct server v;
	struct tls *t;
	char buf[RECORD_MAX];

	from_peer.at = from_peer.end = to_peer.at = to_peer.end = 0;
	server_begin(&v, flags & 2, flags & 8, flags & 16, flags & 128);
	must((t = tls_new(cfg, -1, SERVER_NAME, &s)) != NULL, "tls_new");
	must(do_handshake(&s, &v.ssl) == 0, "no handshake with a server");
	must(t->resumed == is_again, "resumed is wrong");
	must(mbedtls_ssl_write(&v.ssl, (const unsigned char *)"x", 1) == 1 &&
	    s.ops->read(&s, buf, sizeof(buf)) == 1, "no data of a server");
	mbedtls_ssl_close_notify(&v.ssl);
	must((t->psk != NULL) == ((flags & 128) != 0), "a server's key");
	flags |= is_again ? 96 : 32;
	save("server", &flags, (size_t)1, from_peer.p, from_peer.end, NULL);
	save("records", "\xff", (size_t)1, from_peer.p, from_peer.end, NULL);
	server_end(&v);
	tls_free(t);
}

/*
 * Each kind of handshake and edit; followed by a ticket, and by invalid
 * records.
 */
static void
save_servers(void)
{
	static const unsigned char more[] = { 0, 0, 1, 'x',
	    2, 1, 21, 4, 0, 0, 17, 0, 0, 1, 0, 0, 0, 0, 0, 1, 'n', 0, 3, 't',
	    'i', 'c', 0, 0, 2, 0, 4, 0, 0, 0, 0, 2, 1, 5, 24, 0, 0, 1, 0,
	    1, 0, 2, 1, 0 };
	unsigned char edit[] = { 0, 1, 0, 0, 0, 2, 1, 0 };
	unsigned char flags, none = 0, message, kind;
	struct tls_config *cfg;
	unsigned i;

	for (i = 0; i < 256; i++) {
		flags = (unsigned char)i;
		if (flags & 32)
			continue;
		save("server", &flags, (size_t)1, &none, (size_t)1, more,
		    sizeof(more), NULL);
		if (flags & 4)
			continue;
		for (message = 0; message < 7; message++)
			for (kind = 0; kind < 4; kind++) {
				edit[0] = flags;
				edit[2] = message;
				edit[3] = kind;
				save("server", edit, sizeof(edit), more,
				    sizeof(more), NULL);
			}
		if (flags & 64 || (flags & 129) == 129)
			continue;
		cfg = clients[flags & 128 ? SHARES : flags & 1];
		start(cfg, SIZE_MAX);
		answers(cfg, flags, 0);
		answers(cfg, flags, 1);
	}
}

int
main(int argc, char **argv)
{
	must(argc == 2, "usage: seeds DIR");
	directory = argv[1];
	servers_new();
	client_load();
	clients_new();
	save_file(4, PKI "ticket.keys");
	save_file(5, PKI "ca.pem");
	save_file(6, PKI "crl.pem");
	save_file(7, PKI "ec.pem");
	save_file(8, PKI "psk");
	save_file(7, PKI "bob.pem");
	save_certificates();
	save_connections();
	save_flights();
	save_servers();
	return 0;
}
