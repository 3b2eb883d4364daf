#ifndef GCM_ALT_H
#define GCM_ALT_H

/* setkey allocates what is behind it, for aead.c alone; free wipes it. */
typedef struct mbedtls_gcm_context {
	struct imb_aead	*aead;
} mbedtls_gcm_context;

#endif
