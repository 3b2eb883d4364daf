#ifndef CHACHAPOLY_ALT_H
#define CHACHAPOLY_ALT_H

/* setkey allocates what is behind it, for aead.c alone; free wipes it. */
typedef struct mbedtls_chachapoly_context {
	struct imb_aead	*aead;
} mbedtls_chachapoly_context;

#endif
