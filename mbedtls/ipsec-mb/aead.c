/*
 * mbed TLS's AES-GCM and ChaCha20-Poly1305, done by libipsec-mb.
 *
 * It wants the additional data of a message at once, and mbed TLS may bring
 * them in pieces: so they are held, behind the nonce, until the first data.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <intel-ipsec-mb.h>

#include <mbedtls/chachapoly.h>
#include <mbedtls/cipher.h>
#include <mbedtls/constant_time.h>
#include <mbedtls/error.h>
#include <mbedtls/gcm.h>
#include <mbedtls/platform_util.h>

#define ALIGNMENT	64	/* of struct gcm_key_data, says its header */
#define TAG_SIZE	16
#define MESSAGE_MAX	(((UINT64_C(1) << 39) - 256) / 8 - 1)	/* of GCM */

struct gcm {
	aes_gcm_pre_t			 expand;
	aes_gcm_init_var_iv_t		 begin;
	aes_gcm_enc_dec_update_t	 crypt[2];	/* [1] decrypts */
	aes_gcm_enc_dec_finalize_t	 end[2];
};

static struct {
	struct gcm			 gcm[3];	/* 128, 192, 256 bits */
	chacha_poly_init_t		 begin;
	chacha_poly_enc_dec_update_t	 crypt[2];
	chacha_poly_finalize_t		 end;
	int				 loaded;
} imb;

struct imb_aead {
	union {
		struct gcm_key_data	 gcm;
		unsigned char		 chacha[32];
	} key;
	union {
		struct gcm_context_data	 gcm;
		struct chacha20_poly1305_context_data chacha;
	} state;
	const struct gcm *gcm;		/* NULL: ChaCha20-Poly1305 */
	enum { IDLE, HOLD, DATA } stage;
	int		 decrypts;
	uint64_t	 length;	/* of the data so far */
	unsigned char	*held;		/* nonce and additional data */
	size_t		 nonce_size, held_size, held_room;
};

#define GCM_OF(bits) (struct gcm){ m->gcm##bits##_pre, \
	m->gcm##bits##_init_var_iv, \
	{ m->gcm##bits##_enc_update, m->gcm##bits##_dec_update }, \
	{ m->gcm##bits##_enc_finalize, m->gcm##bits##_dec_finalize } }

/*
 * Find out, once, what suits this CPU, by a manager that tests itself and is
 * not kept: most of its megabytes are for what is not used here.  No lock: this
 * is for a program of one thread, which sets its first key before it forks.
 */
static int
load(void)
{
	IMB_MGR *m;

	if (imb.loaded)
		return 0;
	if ((m = alloc_mb_mgr(0)) == NULL)
		return MBEDTLS_ERR_PLATFORM_HW_ACCEL_FAILED;
	init_mb_mgr_auto(m, NULL);
	if (imb_get_errno(m) == 0 &&
	    (m->features & IMB_FEATURE_SELF_TEST_PASS) != 0) {
		imb.gcm[0] = GCM_OF(128);
		imb.gcm[1] = GCM_OF(192);
		imb.gcm[2] = GCM_OF(256);
		imb.begin = m->chacha20_poly1305_init;
		imb.crypt[0] = m->chacha20_poly1305_enc_update;
		imb.crypt[1] = m->chacha20_poly1305_dec_update;
		imb.end = m->chacha20_poly1305_finalize;
		imb.loaded = 1;
	}
	free_mb_mgr(m);
	return imb.loaded ? 0 : MBEDTLS_ERR_PLATFORM_HW_ACCEL_FAILED;
}

static void
drop(struct imb_aead **a)
{
	if (*a == NULL)
		return;
	free((*a)->held);
	mbedtls_platform_zeroize(*a, sizeof(**a));
	free(*a);
	*a = NULL;
}

static int
set_key(struct imb_aead **a, const unsigned char *key, const struct gcm *gcm)
{
	size_t size = (sizeof(**a) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
	int error = load();

	drop(a);
	if (error != 0)
		return error;
	if ((*a = aligned_alloc(ALIGNMENT, size)) == NULL)
		return MBEDTLS_ERR_CIPHER_ALLOC_FAILED;
	memset(*a, 0, size);
	(*a)->gcm = gcm;
	if (gcm != NULL)
		gcm->expand(key, &(*a)->key.gcm);
	else
		memcpy((*a)->key.chacha, key, sizeof((*a)->key.chacha));
	return 0;
}

/* Is there a message under way that may become this much longer? */
static int
takes(const struct imb_aead *a, size_t size)
{
	return a != NULL && a->stage != IDLE && size <= MESSAGE_MAX - a->length;
}

/* The same place is fine, for in and out. */
static int
overlap(const unsigned char *a, const unsigned char *b, size_t size)
{
	uintptr_t from = (uintptr_t)a, to = (uintptr_t)b;
	uintptr_t apart = from < to ? to - from : from - to;

	return apart != 0 && apart < size;
}

static int
hold(struct imb_aead *a, const unsigned char *data, size_t size)
{
	unsigned char *held = a->held;

	if (size > a->held_room - a->held_size) {
		if ((held = realloc(a->held, a->held_size + size)) == NULL)
			return MBEDTLS_ERR_CIPHER_ALLOC_FAILED;
		a->held = held;
		a->held_room = a->held_size + size;
	}
	if (size > 0)
		memcpy(held + a->held_size, data, size);
	a->held_size += size;
	return 0;
}

static int
start(struct imb_aead *a, int decrypts, const unsigned char *nonce, size_t size)
{
	a->stage = HOLD;
	a->decrypts = decrypts;
	a->length = 0;
	a->nonce_size = size;
	a->held_size = 0;
	return hold(a, nonce, size);
}

static void
begin(struct imb_aead *a)
{
	const unsigned char *add = a->held + a->nonce_size;
	size_t size = a->held_size - a->nonce_size;

	if (a->stage == DATA)
		return;
	a->stage = DATA;
	if (a->gcm != NULL)
		a->gcm->begin(&a->key.gcm, &a->state.gcm, a->held,
		    a->nonce_size, add, size);
	else
		imb.begin(a->key.chacha, &a->state.chacha, a->held, add, size);
}

static void
crypt(struct imb_aead *a, const unsigned char *in, unsigned char *out,
    size_t size)
{
	begin(a);
	a->length += size;
	if (size == 0)
		return;
	if (a->gcm != NULL)
		a->gcm->crypt[a->decrypts](&a->key.gcm, &a->state.gcm, out, in,
		    size);
	else
		imb.crypt[a->decrypts](a->key.chacha, &a->state.chacha, out,
		    in, size);
}

static void
end(struct imb_aead *a, unsigned char *tag, size_t size)
{
	unsigned char whole[TAG_SIZE];

	begin(a);
	a->stage = IDLE;
	if (a->gcm != NULL)
		a->gcm->end[a->decrypts](&a->key.gcm, &a->state.gcm, whole,
		    sizeof(whole));
	else
		imb.end(&a->state.chacha, whole, sizeof(whole));
	memcpy(tag, whole, size);
}

/* From here on the contracts are those of mbedtls/gcm.h ... */

void
mbedtls_gcm_init(mbedtls_gcm_context *ctx)
{
	ctx->aead = NULL;
}

void
mbedtls_gcm_free(mbedtls_gcm_context *ctx)
{
	if (ctx != NULL)
		drop(&ctx->aead);
}

int
mbedtls_gcm_setkey(mbedtls_gcm_context *ctx, mbedtls_cipher_id_t cipher,
    const unsigned char *key, unsigned int bits)
{
	if (cipher != MBEDTLS_CIPHER_ID_AES ||
	    (bits != 128 && bits != 192 && bits != 256))
		return MBEDTLS_ERR_GCM_BAD_INPUT;
	return set_key(&ctx->aead, key, &imb.gcm[bits / 64 - 2]);
}

int
mbedtls_gcm_starts(mbedtls_gcm_context *ctx, int mode, const unsigned char *iv,
    size_t iv_len)
{
	if (ctx->aead == NULL || iv_len == 0 || iv_len > MESSAGE_MAX)
		return MBEDTLS_ERR_GCM_BAD_INPUT;
	return start(ctx->aead, mode == MBEDTLS_GCM_DECRYPT, iv, iv_len);
}

int
mbedtls_gcm_update_ad(mbedtls_gcm_context *ctx, const unsigned char *add,
    size_t add_len)
{
	if (!takes(ctx->aead, add_len) || ctx->aead->stage != HOLD)
		return MBEDTLS_ERR_GCM_BAD_INPUT;
	return hold(ctx->aead, add, add_len);
}

int
mbedtls_gcm_update(mbedtls_gcm_context *ctx, const unsigned char *input,
    size_t input_len, unsigned char *output, size_t output_size,
    size_t *output_len)
{
	if (output_size < input_len)
		return MBEDTLS_ERR_GCM_BUFFER_TOO_SMALL;
	if (!takes(ctx->aead, input_len) || overlap(input, output, input_len))
		return MBEDTLS_ERR_GCM_BAD_INPUT;
	*output_len = input_len;
	if (input_len > 0)	/* if not, additional data may still come */
		crypt(ctx->aead, input, output, input_len);
	return 0;
}

int
mbedtls_gcm_finish(mbedtls_gcm_context *ctx, unsigned char *output,
    size_t output_size, size_t *output_len, unsigned char *tag, size_t tag_len)
{
	(void)output;
	(void)output_size;
	if (!takes(ctx->aead, 0) || tag_len < 4 || tag_len > TAG_SIZE)
		return MBEDTLS_ERR_GCM_BAD_INPUT;
	*output_len = 0;
	end(ctx->aead, tag, tag_len);
	return 0;
}

int
mbedtls_gcm_crypt_and_tag(mbedtls_gcm_context *ctx, int mode, size_t length,
    const unsigned char *iv, size_t iv_len, const unsigned char *add,
    size_t add_len, const unsigned char *input, unsigned char *output,
    size_t tag_len, unsigned char *tag)
{
	size_t n;
	int error;

	if ((error = mbedtls_gcm_starts(ctx, mode, iv, iv_len)) != 0 ||
	    (error = mbedtls_gcm_update_ad(ctx, add, add_len)) != 0 ||
	    (error = mbedtls_gcm_update(ctx, input, length, output, length,
	    &n)) != 0)
		return error;
	return mbedtls_gcm_finish(ctx, NULL, 0, &n, tag, tag_len);
}

int
mbedtls_gcm_auth_decrypt(mbedtls_gcm_context *ctx, size_t length,
    const unsigned char *iv, size_t iv_len, const unsigned char *add,
    size_t add_len, const unsigned char *tag, size_t tag_len,
    const unsigned char *input, unsigned char *output)
{
	unsigned char right[TAG_SIZE];
	int error;

	if ((error = mbedtls_gcm_crypt_and_tag(ctx, MBEDTLS_GCM_DECRYPT, length,
	    iv, iv_len, add, add_len, input, output, tag_len, right)) != 0)
		return error;
	if (mbedtls_ct_memcmp(tag, right, tag_len) == 0)
		return 0;
	mbedtls_platform_zeroize(output, length);
	return MBEDTLS_ERR_GCM_AUTH_FAILED;
}

/* ... and of mbedtls/chachapoly.h. */

void
mbedtls_chachapoly_init(mbedtls_chachapoly_context *ctx)
{
	ctx->aead = NULL;
}

void
mbedtls_chachapoly_free(mbedtls_chachapoly_context *ctx)
{
	if (ctx != NULL)
		drop(&ctx->aead);
}

int
mbedtls_chachapoly_setkey(mbedtls_chachapoly_context *ctx,
    const unsigned char key[32])
{
	return set_key(&ctx->aead, key, NULL);
}

int
mbedtls_chachapoly_starts(mbedtls_chachapoly_context *ctx,
    const unsigned char nonce[12], mbedtls_chachapoly_mode_t mode)
{
	if (ctx->aead == NULL)
		return MBEDTLS_ERR_CHACHAPOLY_BAD_STATE;
	return start(ctx->aead, mode == MBEDTLS_CHACHAPOLY_DECRYPT, nonce, 12);
}

int
mbedtls_chachapoly_update_aad(mbedtls_chachapoly_context *ctx,
    const unsigned char *aad, size_t aad_len)
{
	if (!takes(ctx->aead, aad_len) || ctx->aead->stage != HOLD)
		return MBEDTLS_ERR_CHACHAPOLY_BAD_STATE;
	return hold(ctx->aead, aad, aad_len);
}

int
mbedtls_chachapoly_update(mbedtls_chachapoly_context *ctx, size_t len,
    const unsigned char *input, unsigned char *output)
{
	if (!takes(ctx->aead, len))
		return MBEDTLS_ERR_CHACHAPOLY_BAD_STATE;
	crypt(ctx->aead, input, output, len);
	return 0;
}

int
mbedtls_chachapoly_finish(mbedtls_chachapoly_context *ctx,
    unsigned char mac[16])
{
	if (!takes(ctx->aead, 0))
		return MBEDTLS_ERR_CHACHAPOLY_BAD_STATE;
	end(ctx->aead, mac, TAG_SIZE);
	return 0;
}

static int
chachapoly(mbedtls_chachapoly_context *ctx, mbedtls_chachapoly_mode_t mode,
    size_t length, const unsigned char nonce[12], const unsigned char *aad,
    size_t aad_len, const unsigned char *input, unsigned char *output,
    unsigned char tag[16])
{
	int error;

	if ((error = mbedtls_chachapoly_starts(ctx, nonce, mode)) != 0 ||
	    (error = mbedtls_chachapoly_update_aad(ctx, aad, aad_len)) != 0 ||
	    (error = mbedtls_chachapoly_update(ctx, length, input,
	    output)) != 0)
		return error;
	return mbedtls_chachapoly_finish(ctx, tag);
}

int
mbedtls_chachapoly_encrypt_and_tag(mbedtls_chachapoly_context *ctx,
    size_t length, const unsigned char nonce[12], const unsigned char *aad,
    size_t aad_len, const unsigned char *input, unsigned char *output,
    unsigned char tag[16])
{
	return chachapoly(ctx, MBEDTLS_CHACHAPOLY_ENCRYPT, length, nonce, aad,
	    aad_len, input, output, tag);
}

int
mbedtls_chachapoly_auth_decrypt(mbedtls_chachapoly_context *ctx, size_t length,
    const unsigned char nonce[12], const unsigned char *aad, size_t aad_len,
    const unsigned char tag[16], const unsigned char *input,
    unsigned char *output)
{
	unsigned char right[TAG_SIZE];
	int error;

	if ((error = chachapoly(ctx, MBEDTLS_CHACHAPOLY_DECRYPT, length, nonce,
	    aad, aad_len, input, output, right)) != 0)
		return error;
	if (mbedtls_ct_memcmp(tag, right, TAG_SIZE) == 0)
		return 0;
	mbedtls_platform_zeroize(output, length);
	return MBEDTLS_ERR_CHACHAPOLY_AUTH_FAILED;
}
