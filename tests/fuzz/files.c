/*
 * TLS settings and files of an administrator.  The first digit is the kind: a
 * list of suites (0), groups (1) or protocols (2), a rule (3), or a file with
 * ticket keys (4), a CA (5), revocation lists (6), a certificate and key (7),
 * or shared keys (8).
 */
#include "fuzz_tls.h"

void
fuzz_begin(void)
{
	set_clock();
	must(tls_init() == NULL, "tls_init");
}

static int
configure(struct tls_config *cfg, unsigned kind, struct input in)
{
	static int (*const lists[])(struct tls_config *, const char *) = {
		tls_config_ciphers, tls_config_groups, tls_config_alpn,
		tls_config_peer
	};
	const char *name;
	char *text;
	int r;

	if (kind < sizeof(lists) / sizeof(lists[0])) {
		text = take_text(&in);
		r = lists[kind](cfg, text);
		free(text);
		return r;
	}
	name = file_of(in);
	switch (kind) {
	case 4:
		return tls_config_ticket_keys(cfg, name);
	case 5:
		return tls_config_ca(cfg, name);
	case 6:
		cfg->has_ca = 1;
		return tls_config_crl(cfg, name);
	case 8:
		return tls_config_psk(cfg, name);
	default:
		return tls_config_cert(cfg, name) == 0 ?
		    tls_config_key(cfg, name, NULL) : -1;
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	struct tls_config *cfg = tls_config_new(TLS_SERVER);
	unsigned kind;

	must(cfg != NULL, "tls_config_new");
	kind = take(&in);
	if (configure(cfg, kind == '8' ? 8 : kind % 8, in) == -1)
		must(*tls_config_error(cfg) != '\0', "no reason");
	else if (cfg->npsks > 0)
		must(tls_config_versions(cfg, 12, 13) == 0 &&
		    tls_config_ready(cfg) == 0, tls_config_error(cfg));
	else if (cfg->certs != NULL)
		tls_config_ready(cfg);
	tls_config_free(cfg);
	return 0;
}
