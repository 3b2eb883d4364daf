/*
 * tls.c as a client; and the library's server, whose output it reads, and whose
 * tickets are unencrypted sessions.
 */
#define SERVER_NAME	"a.w.example.org"

/*
 * Clients: one accepts any server, one verifies it, and one has a shared key.
 */
enum { TAKES_ANY, VERIFIES, SHARES };
static struct tls_config *clients[3];
static struct cert *server_cert;

struct server {
	mbedtls_ssl_context ssl;
	mbedtls_ssl_config conf;
};

static struct tls_config *
client_config(int kind)
{
	struct tls_config *cfg = tls_config_new(TLS_CLIENT);
	struct tls_sessions *s = tls_sessions_new(CACHED, TLS_WITH_SERVERS, 0);

	must(cfg != NULL && s != NULL && tls_init() == NULL, "tls_init");
	must(tls_config_cert(cfg, PKI "client.pem") == 0 &&
	    tls_config_key(cfg, PKI "client.pem", NULL) == 0 &&
	    tls_config_alpn(cfg, "h2,http/1.1") == 0 &&
	    tls_config_versions(cfg, 12, 13) == 0, tls_config_error(cfg));
	must(kind != VERIFIES || (tls_config_ca(cfg, PKI "ca.pem") == 0 &&
	    tls_config_crl(cfg, PKI "crl.pem") == 0 &&
	    tls_config_verify(cfg, 1) == 0), tls_config_error(cfg));
	must((kind != SHARES || tls_config_psk(cfg, PKI "psk") == 0) &&
	    tls_config_ready(cfg) == 0, tls_config_error(cfg));
	tls_config_sessions(cfg, s, 1, 7 * DAY);
	must(tls_config_renew(cfg) == NULL, "tls_config_renew");
	return cfg;
}

static void
clients_new(void)
{
	static struct tls_config *cfg;

	set_clock();
	clients[TAKES_ANY] = client_config(TAKES_ANY);
	clients[VERIFIES] = client_config(VERIFIES);
	clients[SHARES] = client_config(SHARES);
	cfg = server_new(NOT_ASKED);
	server_cert = cfg->certs;
}

static int
write_session(void *arg, const mbedtls_ssl_session *session,
    unsigned char *start, const unsigned char *end, size_t *len,
    uint32_t *lifetime)
{
	(void)arg;
	*lifetime = DAY;
	return mbedtls_ssl_session_save(session, start, (size_t)(end - start),
	    len);
}

static int
load_session(void *arg, mbedtls_ssl_session *session, unsigned char *p,
    size_t len)
{
	(void)arg;
	return mbedtls_ssl_session_load(session, p, len);
}

/*
 * asks: request a certificate; retries: support only a group that is not first;
 * shares: have the shared key.
 */
static void
server_begin(struct server *v, int is_tls13, int asks, int retries, int shares)
{
	const struct psk *p = clients[SHARES]->psks;
	static const uint16_t groups[] = {
		MBEDTLS_SSL_IANA_TLS_GROUP_X25519MLKEM768,
		MBEDTLS_SSL_IANA_TLS_GROUP_X25519,
		MBEDTLS_SSL_IANA_TLS_GROUP_SECP256R1, 0
	};

	mbedtls_ssl_init(&v->ssl);
	mbedtls_ssl_config_init(&v->conf);
	mbedtls_ssl_config_defaults(&v->conf, MBEDTLS_SSL_IS_SERVER,
	    MBEDTLS_SSL_TRANSPORT_STREAM, MBEDTLS_SSL_PRESET_DEFAULT);
	mbedtls_ssl_conf_authmode(&v->conf, asks ?
	    MBEDTLS_SSL_VERIFY_OPTIONAL : MBEDTLS_SSL_VERIFY_NONE);
	mbedtls_ssl_conf_rng(&v->conf, RNG);
	mbedtls_ssl_conf_max_tls_version(&v->conf, is_tls13 ?
	    MBEDTLS_SSL_VERSION_TLS1_3 : MBEDTLS_SSL_VERSION_TLS1_2);
	mbedtls_ssl_conf_groups(&v->conf, groups + (retries ? 2 : 0));
	mbedtls_ssl_conf_session_tickets_cb(&v->conf, write_session,
	    load_session, NULL);
	must((!shares || mbedtls_ssl_conf_psk(&v->conf, p->secret, p->len,
	    (const unsigned char *)p->name, p->name_len) == 0) &&
	    mbedtls_ssl_conf_own_cert(&v->conf, &server_cert->chain,
	    &server_cert->key) == 0 &&
	    mbedtls_ssl_setup(&v->ssl, &v->conf) == 0, "mbedtls_ssl_setup");
	mbedtls_ssl_set_bio(&v->ssl, NULL, peer_send, peer_recv, NULL);
}

static void
server_end(struct server *v)
{
	mbedtls_ssl_free(&v->ssl);
	mbedtls_ssl_config_free(&v->conf);
}
