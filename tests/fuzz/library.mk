# How mbed TLS is built to be fuzzed; read after its own makefile.  What
# computes is not what parses: without sanitizers it is ten times as fast, and
# the time goes to where lengths and pointers come from the input.
$(filter-out asn1%.o oid.o pem.o pk%.o,$(OBJS_CRYPTO)): \
	CFLAGS = -O2 -g -fno-omit-frame-pointer
