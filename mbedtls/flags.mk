# The files of mbed TLS that get other flags than the rest, which is to be
# small: each for what that was measured to gain.  Read after the library's own
# makefile.

# What is done for each byte of data, or many times for a signature.
aes.o aesce.o aesni.o bignum_core.o chacha20.o ecp_curves.o gcm.o \
poly1305.o: CFLAGS += -O2

# X25519 takes half the time.
$(filter %Hacl_Curve25519_joined.o,$(OBJS_CRYPTO)): \
	CFLAGS += -O2 -funroll-loops

# AES-GCM takes an eighth less.  mbed TLS asks the CPU for AES before it goes
# there, and none that has it lacks these.
ifneq ($(filter x86_64% i%86%,$(shell $(CC) -dumpmachine)),)
aesni.o: CFLAGS += -O3 -mssse3 -msse4.1
endif
