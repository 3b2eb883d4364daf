# tunnel: TLS in front of a plaintext service.
#
#   make deps demo       install what is missing, build, and see it work
#   make deps check      install what is missing, build, and test everything
#   make deps check-vm   of kernel TLS alone, in virtual machines
#   make                 build, with what is there; nothing is downloaded
#   make deps bench      measure it, next to other servers; QUICK=1: roughly
#   make install         PREFIX=/usr/local DESTDIR=
#   make uninstall clean
#
# MBEDTLS=/prefix  use the mbed TLS there      STATIC=1     link statically
# POLLER=poll      poll(2), not epoll          O=dir        build there
# TUNED=1          with a lean and fast mbed TLS of its own (after "make
#                  TUNED=1 deps", which fetches its source)
# MUSL=1           TUNED=1, and one small file for any Linux
# ACCEL=ipsec-mb   on x86-64: TUNED=1, and libipsec-mb does the ciphers
# CC, CFLAGS, CPPFLAGS, LDFLAGS and LDLIBS are respected.

VERSION	= 0.1.0
PREFIX	= /usr/local
CFLAGS	= -O2 -g
PYTHON	= /usr/bin/python3
O	= build
TUNNEL	= tunnel

# deps comes before all other goals, which are made by a make that finds what
# it installed.
ifneq ($(filter deps,$(MAKECMDGOALS)),)
others	= $(filter-out deps,$(MAKECMDGOALS))

deps:
	$(strip $(TUNED:%=TUNED=%) $(MUSL:%=MUSL=%) $(ACCEL:%=ACCEL=%)) \
	    tests/deps $(others)
	@$(MAKE) --no-print-directory $(or $(others),mbedtls-is-fit)
$(others): deps ; @:
.PHONY: deps $(others)

else

SRCS	= tunnel.c tls.c forward.c
HDRS	= tls.h forward.h
OBJS	= $(SRCS:%.c=$(O)/%.o)

WARNINGS = -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes \
	-Werror
HARDENING = -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2 -fstack-protector-strong $(PIE)
HARDENING_LD = -Wl,-z,relro,-z,now,-z,noexecstack
SMALL	= -fno-asynchronous-unwind-tables $(if $(MUSL),,-fno-plt)
SMALL_LD = -Wl,--gc-sections,--as-needed,-O1
SANITIZE =

# One small file: -static-pie, which musl-gcc knows nothing of, would make it
# larger by 20 KB, and no pages for code alone, which take 8.  musl has no
# headers of the kernel: those of the system come after its own.
ifdef MUSL
TUNED	= 1
CC	= musl-gcc
SIZED	= -Oz
PIE	= -fno-pie
LINK	= -static -no-pie -Wl,-z,noseparate-code
CPPFLAGS += -idirafter /usr/include \
	-idirafter /usr/include/$(shell $(CC) -print-multiarch)
LIBRARY_DEFINES = TUNNEL_SMALL TUNNEL_ALLOC
LIBRARY_ADDS = mbedtls/alloc.c mbedtls/alloc.h
endif
SIZED	?= -Os
PIE	?= -fPIE

ifdef ACCEL
machine	= $(shell $(CC) -dumpmachine)
ifneq ($(strip $(ACCEL) $(findstring x86_64,$(machine)) $(MUSL)),ipsec-mb x86_64)
$(error make: ACCEL can be ipsec-mb, for x86-64, and without MUSL)
endif
TUNED	= 1
LIBRARY_ADDS = $(wildcard mbedtls/ipsec-mb/*)
LIBRARY_DEFINES = MBEDTLS_GCM_ALT MBEDTLS_CHACHAPOLY_ALT MBEDTLS_SELF_TEST
ACCEL_LIBS = -lIPSec_MB
endif

# An mbed TLS of our own, for the machine that CC compiles for.
ifdef TUNED
MBEDTLS	= build/tuned/$(shell $(CC) -dumpmachine)$(MUSL:%=-musl)$(ACCEL:%=-%)
SOURCE	= build/mbedtls-source
LIBRARY	= $(MBEDTLS)/lib/libmbedtls.a
LIBRARY_ADDS += mbedtls/random.c $(wildcard mbedtls/everest_driver.*)
LIBRARY_CFLAGS = $(SIZED) $(HARDENING) $(filter-out -fno-plt,$(SMALL))
endif

# The mbed TLS to use: the one named, the system's if it is fit (tls.c says
# what is), or the one that "make deps" builds where the system has none.
fit	= $(shell ls $(1:%=%/include/mbedtls) >/dev/null 2>&1 && \
	$(CC) $(CPPFLAGS) $(1:%=-I%/include) -E tls.c >/dev/null 2>&1 && \
	echo yes)
ifndef MBEDTLS
ifneq ($(call fit),yes)
MBEDTLS	= build/mbedtls
endif
endif

MBEDTLS_CPPFLAGS = $(MBEDTLS:%=-isystem %/include)
MBEDTLS_LDFLAGS = $(MBEDTLS:%=-L%/lib)

# Not every C library can be in a static PIE: armhf's of Debian 12 can not.
ifndef LINK
LINK	= $(if $(STATIC),$(if $(findstring /,$(shell $(CC) \
	-print-file-name=rcrt1.o)),-static-pie,-static),-pie)
endif
ifeq ($(POLLER),poll)
FEATURES += -DFORWARD_POLL
endif

compile	= $(CC) -std=c11 -D_GNU_SOURCE -DVERSION='"$(VERSION)"' $(FEATURES) \
	$(WARNINGS) $(HARDENING) $(SMALL) $(SANITIZE) $(CPPFLAGS) $(MBEDTLS_CPPFLAGS) \
	$(CFLAGS)
link	= $(CC) $(LINK) $(HARDENING_LD) $(SMALL_LD) $(SANITIZE) $(CFLAGS) $(LDFLAGS) \
	$(MBEDTLS_LDFLAGS)
libs	= -lmbedtls -lmbedx509 -lmbedcrypto $(ACCEL_LIBS) $(LDLIBS)

all: $(TUNNEL)

$(TUNNEL): $(OBJS)
	$(link) -o $@ $(OBJS) $(libs)

$(OBJS): $(O)/%.o: %.c $(HDRS) $(O)/flags $(LIBRARY) | mbedtls-is-fit
	$(compile) -c -o $@ $<

# What is done for an event or a record, not a byte, had better be small.
$(OBJS): private CFLAGS = $(SIZED) -g

# Other flags, other objects.
$(O)/flags: FORCE
	@mkdir -p $(O)
	@echo '$(subst ','\'',$(compile) $(link))' | cmp -s - $@ || \
	    echo '$(subst ','\'',$(compile) $(link))' > $@

ifdef TUNED
build_library = CC='$(CC)' CFLAGS='$(LIBRARY_CFLAGS)' CONFIG=mbedtls/config.h \
	DEFINES='$(LIBRARY_DEFINES)' FLAGS=mbedtls/flags.mk PYTHON=$(PYTHON) \
	PATCHES='$(sort $(wildcard mbedtls/patches/*.patch))' \
	mbedtls/build library $(SOURCE) $(MBEDTLS) $(LIBRARY_ADDS)

$(LIBRARY): $(wildcard mbedtls/* mbedtls/*/*) $(MBEDTLS)/flags | $(SOURCE)
	$(build_library)

$(MBEDTLS)/flags: FORCE
	@mkdir -p $(MBEDTLS)
	@echo "$(build_library)" | cmp -s - $@ || echo "$(build_library)" > $@

$(SOURCE):
	@echo "make: no source of mbed TLS is in $@: run \"make \
	$(if $(ACCEL),ACCEL=$(ACCEL),TUNED=1) deps\"" >&2; exit 1
endif

mbedtls-is-fit: $(LIBRARY)
	@$(if $(filter yes,$(call fit,$(MBEDTLS))),:,echo "make: no mbed TLS \
	3.6.6 or newer $(if $(MBEDTLS),in $(MBEDTLS) )was found: run \"make \
	deps\", or name one with \"make MBEDTLS=/prefix\"" >&2; exit 1)

demo: $(TUNNEL)
	tests/demo

check: $(TUNNEL)
	$(PYTHON) -B -m pytest -q -p no:cacheprovider tests

# Kernel TLS, in virtual machines whose kernels have it.
check-vm: $(TUNNEL)
	$(PYTHON) -B -m pytest -q -p no:cacheprovider tests/test_vm.py

# What that costs, in instructions, next to other servers.
bench-vm: $(TUNNEL)
	tests/vm/bench

# The unit tests include the files they test, to reach what is static.
unit: $(O)/test_forward $(O)/test_tls $(O)/test_tunnel $(O)/test_alloc
	$(O)/test_alloc
	$(O)/test_forward
	$(O)/test_tls
	$(O)/test_tunnel

$(O)/test_%: tests/test_%.c $(SRCS) $(HDRS) $(O)/flags | mbedtls-is-fit
	$(compile) -I. -o $@ $< $(filter %.o,$^) $(link:$(CC)%=%) -lcmocka \
	    $(libs) $(if $(filter accel,$*),-lcrypto)
$(O)/test_tls: $(O)/forward.o
$(O)/test_tunnel: $(O)/tls.o $(O)/forward.o
$(O)/test_alloc: mbedtls/alloc.c mbedtls/alloc.h
$(O)/test_accel: mbedtls/ipsec-mb/aead.c

# The builds of tunnel to measure, and what make is told for each.  One that
# can't be had here is left out.
BENCH	= tunnel tuned accel
BENCH_tunnel =
BENCH_tuned = TUNED=1
BENCH_musl = TUNED=1 MUSL=1
BENCH_accel = ACCEL=ipsec-mb

bench: $(BENCH:%=bench-%) $(O)/bench/load $(O)/bench/service $(O)/bench/copy
	tests/bench/bench $(if $(QUICK),--quick --out $(O)/bench) \
	    --build $(O)/bench $(foreach b,$(BENCH),$b=$(O)/bench/$b)

bench-%:
	-@$(MAKE) --no-print-directory O=$(O)/bench/$* \
	    TUNNEL=$(O)/bench/$*/tunnel $(BENCH_$*) $(O)/bench/$*/tunnel \
	    $(O)/bench/$*/crypto

$(O)/bench/%: tests/bench/%.c $(HDRS) $(O)/forward.o $(O)/flags
	@mkdir -p $(@D)
	$(compile) -I. -o $@ $< $(link:$(CC)%=%) \
	    $(if $(filter copy,$*),$(O)/forward.o) \
	    $(if $(filter load,$*),-lssl -lcrypto)

$(O)/crypto: tests/bench/crypto.c $(O)/flags | mbedtls-is-fit
	$(compile) -o $@ $< $(link:$(CC)%=%) $(libs)

install: $(TUNNEL)
	install -d $(DESTDIR)$(PREFIX)/sbin $(DESTDIR)$(PREFIX)/share/man/man5 \
	    $(DESTDIR)$(PREFIX)/share/man/man8 \
	    $(DESTDIR)$(PREFIX)/share/doc/tunnel
	install -m 755 $(TUNNEL) $(DESTDIR)$(PREFIX)/sbin/tunnel
	install -m 644 man/tunnel.8 $(DESTDIR)$(PREFIX)/share/man/man8
	install -m 644 man/tunnel.conf.5 $(DESTDIR)$(PREFIX)/share/man/man5
	install -m 644 README.md LICENSE tunnel.conf.example \
	    $(DESTDIR)$(PREFIX)/share/doc/tunnel

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/sbin/tunnel \
	    $(DESTDIR)$(PREFIX)/share/man/man8/tunnel.8 \
	    $(DESTDIR)$(PREFIX)/share/man/man5/tunnel.conf.5
	rm -rf $(DESTDIR)$(PREFIX)/share/doc/tunnel

# What tests/deps has put there is kept: it is not made from anything here.
KEPT	= build/mbedtls build/mbedtls-source build/inetd build/haproxy \
	build/hitch build/nginx build/stunnel build/traffic_server build/vm

clean:
	rm -rf $(TUNNEL) $(filter-out $(KEPT),$(wildcard build/*))

FORCE:

.PHONY: all demo check check-vm unit bench bench-vm install uninstall clean \
	mbedtls-is-fit FORCE

endif
