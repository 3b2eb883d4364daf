# The files of mbed TLS that get other flags than the rest, each for what that
# was measured to gain.  Read after the library's own makefile.

# X25519 takes half the time.
$(filter %Hacl_Curve25519_joined.o,$(OBJS_CRYPTO)): CFLAGS += -O3

# AES-GCM takes an eighth less.  mbed TLS asks the CPU for AES before it goes
# there, and none that has it lacks these.
ifneq ($(filter x86_64% i%86%,$(shell $(CC) -dumpmachine)),)
aesni.o: CFLAGS += -O3 -mssse3 -msse4.1
endif
