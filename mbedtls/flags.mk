# Flags for single files of mbed TLS, each for a measured gain; all others are
# optimized for size.  Read after the library's own makefile.

# Code that runs for each byte of data, or many times for a signature.
aes.o aesce.o aesni.o bignum_core.o chacha20.o ecp_curves.o gcm.o \
poly1305.o: CFLAGS += -O2

# X25519 takes half the time.
$(filter %Hacl_Curve25519_joined.o,$(OBJS_CRYPTO)): \
	CFLAGS += -O2 -funroll-loops

# AES-GCM takes an eighth less.  mbed TLS checks the CPU for AES instructions
# before it uses this code, and every CPU that has them has these, too.
ifneq ($(filter x86_64% i%86%,$(shell $(CC) -dumpmachine)),)
aesni.o: CFLAGS += -O3 -mssse3 -msse4.1
endif
