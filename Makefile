# tunnel: TLS tunnel for plaintext servers and clients.
#
#   make deps demo       install what is missing, build, and see it work
#   make deps check      install what is missing, build, and test it
#   make deps check-all  and test every other build of it; 45 minutes
#   make deps check-vm   test kernel TLS only, in virtual machines
#   make deps all        install what is missing, and build; apply updates
#   make                 build; download and install nothing
#   make deps fuzz       fuzz the parsers; see tests/fuzz/README.md
#   make deps bench      compare it with other servers; QUICK=1: roughly
#   make bench-debian13  the same in a bare Debian 13
#   make deps bench-instructions  count the instructions of handshakes on ARM
#                        and MIPS
#   make install         PREFIX=/usr/local SYSCONFDIR=/etc DESTDIR=
#                        SYSTEMDDIR=PREFIX/lib/systemd/system
#   make deps deb        make a Debian package, in build/deb
#   make uninstall clean
#
# STATIC=1         link statically             O=dir        build there
# POLLER=poll      poll(2), not epoll
# MUSL=1           one small static file for any Linux
# ACCEL=aws-lc     AWS-LC does the cryptography: larger, and much faster
# MBEDTLS=system   use the mbed TLS of this system instead of the bundled one,
#                  whose source "make deps" fetches and keeps up to date
# MBEDTLS=/prefix  use the mbed TLS under this prefix
# ALLOW_OLD_MBEDTLS=1   accept 3.6.6 and 4.1.0 with MBEDTLS
# CC, CFLAGS, CPPFLAGS, LDFLAGS and LDLIBS are respected.

VERSION	= 0.1.0
PREFIX	= /usr/local
SYSCONFDIR = /etc
SYSTEMDDIR = $(PREFIX)/lib/systemd/system
CFLAGS	= -O2 -g
PYTHON	= /usr/bin/python3
O	= build
TUNNEL	= tunnel

# Make deps before all other goals, and these with a make of their own, which
# finds what deps has installed.
ifneq ($(filter deps,$(MAKECMDGOALS)),)
others	= $(filter-out deps,$(MAKECMDGOALS))
told	= $(foreach v,MBEDTLS ALLOW_OLD_MBEDTLS MUSL ACCEL,$($v:%=$v=%))

deps:
	$(strip $(told) tests/deps $(others))
	@$(MAKE) --no-print-directory $(or $(others),mbedtls-is-fit)
$(others): deps ; @:
.PHONY: deps $(others)

else

SRCS	= tunnel.c tls.c forward.c $(wildcard lib/*.c)
OBJS	= $(SRCS:%.c=$(O)/%.o)

WARNINGS = -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes \
	-Werror
HARDENING = $(hardening)
HARDENING_LD = -Wl,-z,relro,-z,now,-z,noexecstack
SMALL	= -fno-asynchronous-unwind-tables $(if $(MUSL),,-fno-plt)
SMALL_LD = -Wl,--gc-sections,--as-needed,-O1$(relr)
SANITIZE =

# One small file.  musl-gcc does not support -static-pie, which would also add
# 20 KB; separate pages for code would add 8 KB.  musl has no kernel headers: use
# the system's, after its own.
ifdef MUSL
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

machine	:= $(shell $(CC) -dumpmachine 2>/dev/null)

# AWS-LC is a driver of PSA, the cryptography interface of mbed TLS.
ifdef ACCEL
ifneq ($(ACCEL)$(MUSL),aws-lc)
$(error make: ACCEL=$(ACCEL) is not valid (allowed: aws-lc, without MUSL))
endif
AWS_LC	= build/aws-lc/$(machine)
AWS_LC_SOURCE = build/aws-lc-source
AWS_LC_LIBRARY = $(AWS_LC)/lib/libaws-lc.a
LIBRARY_ADDS = $(wildcard mbedtls/aws-lc/*.[ch] mbedtls/aws-lc/*.json)
LIBRARY_DEFINES = TUNNEL_AWS_LC
ACCEL_CPPFLAGS = -isystem $(CURDIR)/$(AWS_LC)/include
ACCEL_LIBS = $(AWS_LC_LIBRARY)
endif

# Hardening flags for the program, unless HARDENING replaces them, and for the
# bundled library.  Use those that this compiler has for this machine.
# Control-flow protection is only effective if all code has it: musl has not.
hardening := -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3 -fno-strict-overflow \
	-fno-delete-null-pointer-checks $(shell for flag in \
	-fstack-protector-strong -fstack-clash-protection \
	-ftrivial-auto-var-init=zero $(if $(MUSL),,-fcf-protection=full) \
	-mbranch-protection=standard; do $(CC) -Werror $$flag -E -x c /dev/null \
	>/dev/null 2>&1 && echo $$flag; done) $(PIE)

# Packed relocations take half the space, if ld and glibc support them.
relr	:= $(shell printf '\043include <limits.h>\n\043if __x86_64__ && \
	__GLIBC_PREREQ(2, 36)\n\043else\n\043error\n\043endif\n' | \
	$(CC) -E -x c - >/dev/null 2>&1 && echo ,-z,pack-relative-relocs)

# mbed TLS: the bundled one, for the target of CC, or the one in MBEDTLS.
ifndef MBEDTLS
LIBRARY_DIR = build/library/$(machine)$(MUSL:%=-musl)$(ACCEL:%=-%)
SOURCE	= build/mbedtls-source
LIBRARY	= $(LIBRARY_DIR)/lib/libmbedtls.a
LIBRARY_ADDS += mbedtls/random.c $(wildcard mbedtls/everest_driver.*)
LIBRARY_CFLAGS = $(SIZED) $(hardening) $(filter-out -fno-plt,$(SMALL)) \
	$(ACCEL_CPPFLAGS)
else ifneq ($(MUSL)$(ACCEL),)
$(error make: MBEDTLS cannot be used with MUSL or ACCEL: these build their own)
else
LIBRARY_DIR = $(filter-out system,$(MBEDTLS))
endif
ifdef ALLOW_OLD_MBEDTLS
FEATURES += -DALLOW_OLD_MBEDTLS
endif

MBEDTLS_CPPFLAGS = $(LIBRARY_DIR:%=-isystem %/include)
MBEDTLS_LDFLAGS = $(LIBRARY_DIR:%=-L%/lib)

# Some C libraries do not support static PIE, such as Debian 12's for armhf.
ifndef LINK
LINK	= $(if $(STATIC),$(if $(findstring /,$(shell $(CC) \
	-print-file-name=rcrt1.o)),-static-pie,-static),-pie)
endif
ifeq ($(POLLER),poll)
FEATURES += -DPOLLER_POLL
endif

compile	= $(CC) -std=c11 -D_GNU_SOURCE -DVERSION='"$(VERSION)"' $(FEATURES) \
	$(WARNINGS) $(HARDENING) $(SMALL) $(SANITIZE) -I. -Ilib -MMD -MP \
	$(CPPFLAGS) $(MBEDTLS_CPPFLAGS) $(CFLAGS)
link	= $(CC) $(LINK) $(HARDENING_LD) $(SMALL_LD) $(SANITIZE) $(CFLAGS) $(LDFLAGS) \
	$(MBEDTLS_LDFLAGS)
libs	= -lmbedtls -lmbedx509 -lmbedcrypto $(ACCEL_LIBS) $(LDLIBS)

all: $(TUNNEL)

$(TUNNEL): $(OBJS)
	$(link) -o $@ $(OBJS) $(libs)

$(OBJS): $(O)/%.o: %.c $(O)/flags $(LIBRARY) | mbedtls-is-fit
	$(compile) -c -o $@ $<

# The headers that each object depends on.
-include $(wildcard $(OBJS:.o=.d) $(O)/test_*.d)

# This code runs once for an event or a record, not for each byte: optimize size.
$(OBJS): private CFLAGS = $(SIZED) -g

# Compile again if the flags have changed.
$(O)/flags: FORCE
	@mkdir -p $(O)/lib
	@echo '$(subst ','\'',$(compile) $(link))' | cmp -s - $@ || \
	    echo '$(subst ','\'',$(compile) $(link))' > $@

ifndef MBEDTLS
build_library = CC='$(CC)' CFLAGS='$(LIBRARY_CFLAGS)' CONFIG=mbedtls/config.h \
	DEFINES='$(LIBRARY_DEFINES)' FLAGS=mbedtls/flags.mk PYTHON=$(PYTHON) \
	PATCHES='$(sort $(wildcard mbedtls/patches/*.patch))' \
	mbedtls/build library $(SOURCE) $(LIBRARY_DIR) $(LIBRARY_ADDS)

$(LIBRARY): $(SOURCE) $(filter-out %.md,$(wildcard mbedtls/* mbedtls/*/*)) \
    $(LIBRARY_DIR)/flags $(AWS_LC_LIBRARY)
	$(build_library)

$(LIBRARY_DIR)/flags: FORCE
	@mkdir -p $(@D)
	@echo "$(build_library)" | cmp -s - $@ || echo "$(build_library)" > $@

ifdef ACCEL
# One build for each target machine.
build_aws_lc = CC='$(CC)' CFLAGS='$(SIZED) $(hardening)' mbedtls/build aws-lc \
	$(AWS_LC_SOURCE) $(AWS_LC)

$(AWS_LC_LIBRARY): $(AWS_LC_SOURCE) mbedtls/build $(AWS_LC)/flags
	$(build_aws_lc)

$(AWS_LC)/flags: FORCE
	@mkdir -p $(@D)
	@echo "$(build_aws_lc)" | cmp -s - $@ || echo "$(build_aws_lc)" > $@

$(AWS_LC_SOURCE):
	@echo "make: the source of AWS-LC is not in $@: run \
	\"make ACCEL=$(ACCEL) deps\"" >&2; exit 1
endif

$(SOURCE):
	@echo "make: the source of mbed TLS is not in $@: run \"make deps\", or use \
	MBEDTLS=system or MBEDTLS=/prefix" >&2; exit 1
endif

# Check that mbed TLS is installed, new enough and complete: tls.c has an #error
# for each case.  For any other fault, show the compiler's message first.
no_library = mbed TLS was not found; leave MBEDTLS out to build the bundled one

mbedtls-is-fit: $(LIBRARY)
	@said=$$(export LC_ALL=C; { $(LIBRARY_DIR:%=ls %/include/mbedtls &&) \
	    $(filter-out -MMD -MP,$(compile)) -E tls.c; } 2>&1 >/dev/null) || { \
	    why=$$(echo "$$said" | sed -n \
	    -e 's|^tls\.c:.*error: .*"\(this mbed TLS .*\)"|\1|p' \
	    -e '/^ls: /s|.*|$(no_library)|p' \
	    -e '/^tls\.c:.*error: .\{0,1\}mbedtls\//s|.*|$(no_library)|p'); \
	    [ -n "$$why" ] || echo "$$said" >&2; \
	    echo "make: $(MBEDTLS:%=MBEDTLS=%: )$${why:-tls.c cannot be \
	compiled: see above}" >&2; exit 1; }

# For tests and other makefiles.
sources:
	@echo $(SRCS)

libraries:
	@echo $(addprefix $(LIBRARY_DIR)/lib/,libmbedtls.a libmbedx509.a \
	    libmbedcrypto.a) $(ACCEL_LIBS)

demo: $(TUNNEL)
	tests/demo/demo

PYTEST	= $(PYTHON) -B -m pytest -q -p no:cacheprovider

# The tests mostly wait: run three at a time, each file in one process.
check: $(TUNNEL)
	$(PYTEST) -n 3 --dist loadfile -m "not more" tests

# The rest: other builds, virtual machines, the next Debian.  Each of these files
# keeps two processors busy by itself.
check-more: $(TUNNEL)
	$(PYTEST) -m more --durations=20 --durations-min=10 tests

check-all: check check-more

# Kernel TLS, in virtual machines with kernels that support it.
check-vm: $(TUNNEL)
	$(PYTEST) tests/build/test_vm.py

# Instruction counts of kernel TLS, compared with other servers.
bench-vm: $(TUNNEL)
	tests/vm/bench

# Each unit test includes the file it tests, to reach static functions; the
# linker takes the rest from objects.a.
UNIT	= $(filter-out accel,$(patsubst tests/unit/test_%.c,%,\
	$(wildcard tests/unit/test_*.c)))

unit: $(UNIT:%=$(O)/test_%)
	@for test in $^; do echo "$$test" && "$$test" || exit 1; done

$(O)/test_%: tests/unit/test_%.c $(O)/objects.a $(O)/flags | mbedtls-is-fit
	$(compile) -o $@ $< $(O)/objects.a $(link:$(CC)%=%) -lcmocka \
	    $(libs)

$(O)/objects.a: $(OBJS)
	@rm -f $@
	$(AR) rcs $@ $^

# Run each harness with libFuzzer for SECONDS; FUZZ=NAME: only that one.
fuzz:
	@$(MAKE) --no-print-directory -k -f tests/fuzz/Makefile \
	    VERSION='$(VERSION)' FEATURES='$(FEATURES)' \
	    WARNINGS='$(WARNINGS)' PYTHON='$(PYTHON)'

# The builds to measure, and the variables of each.  Leave out those that cannot
# be built here.
BENCH	= tunnel musl accel system
BENCH_tunnel =
BENCH_musl = MUSL=1
BENCH_accel = ACCEL=aws-lc
BENCH_system = MBEDTLS=system ALLOW_OLD_MBEDTLS=1

bench: $(BENCH:%=bench-%) $(O)/bench/load $(O)/bench/service $(O)/bench/copy
	tests/bench/bench $(QUICK:%=--quick) --out $(BENCH_DIR) \
	    --build $(O)/bench $(foreach b,$(BENCH),$b=$(O)/bench/$b)

# The same on the next Debian; store its results beside those of this one.
bench-debian13:
	tests/debian13 make deps bench $(QUICK:%=QUICK=%)
	mkdir -p $(O)/bench
	cp build/debian13/srv/tunnel/$(BENCH_DIR)/results-debian13.json $(BENCH_DIR)
	tests/bench/tell $(BENCH_DIR)

# Instructions of a handshake on emulated machines.
EMULATED = arm mips
BENCH_arm = CC=arm-linux-gnueabihf-gcc STATIC=1
BENCH_mips = CC=mips-linux-gnu-gcc STATIC=1

bench-instructions: $(EMULATED:%=bench-%) $(O)/bench/load $(O)/bench/service \
    $(O)/bench/count.so
	tests/bench/instructions $(QUICK:%=--quick) --out $(BENCH_DIR) \
	    --build $(O)/bench $(EMULATED)
	$(if $(QUICK),,tests/bench/tell)

$(O)/bench/count.so: tests/bench/count.c $(O)/flags
	@mkdir -p $(@D)
	$(CC) $(WARNINGS) -O2 -fPIC -shared -o $@ $<

# The directory of the results; rough ones are not kept.
BENCH_DIR = $(if $(QUICK),$(O)/bench,tests/bench)

$(BENCH:%=bench-%) $(EMULATED:%=bench-%): bench-%:
	@$(MAKE) --no-print-directory O=$(O)/bench/$* \
	    TUNNEL=$(O)/bench/$*/tunnel $(BENCH_$*) $(O)/bench/$*/tunnel \
	    $(if $(filter $*,$(BENCH)),$(O)/bench/$*/crypto) || { \
	    rm -f $(O)/bench/$*/tunnel; \
	    echo "make: BENCH=$* ($(BENCH_$*)) is left out" >&2; }

$(O)/bench/load: tests/bench/load_many.c tests/bench/load.h
$(O)/bench/%: tests/bench/%.c $(O)/objects.a $(O)/flags
	@mkdir -p $(@D)
	$(compile) -o $@ $(filter %.c,$^) $(O)/objects.a $(link:$(CC)%=%) \
	    $(if $(filter load,$*),-lssl -lcrypto)

$(O)/crypto: tests/bench/crypto.c $(O)/flags | mbedtls-is-fit
	$(compile) -o $@ $< $(link:$(CC)%=%) $(libs)

# A service, and a template with an instance for each configuration file.
UNITS	= $(O)/tunnel.service $(O)/tunnel@.service

$(UNITS): lib/systemd/tunnel.service FORCE
	@mkdir -p $(O)
	sed -e 's|/usr/local/|$(PREFIX)/|' \
	    -e 's|/etc/tunnel/|$(SYSCONFDIR)/tunnel/|' \
	    $(if $(findstring @,$@),-e 's|^Description=.*|& (%i)|' \
	    -e 's|tunnel\.conf|%i.conf|') $< > $@

DIRECTORIES = $(addprefix $(DESTDIR),$(PREFIX)/sbin $(PREFIX)/share/man/man5 \
	$(PREFIX)/share/man/man7 $(PREFIX)/share/man/man8 \
	$(PREFIX)/share/doc/tunnel \
	$(PREFIX)/lib/sysusers.d $(SYSTEMDDIR) $(SYSCONFDIR)/tunnel)

# The program of an installed package, if it owns the example in /etc.
packaged = $(if $(filter-out /usr,$(PREFIX)),$(if $(filter \
	/etc,$(SYSCONFDIR)),$(wildcard $(DESTDIR)/usr/sbin/tunnel)))

install: $(TUNNEL) $(UNITS)
	install -d $(DIRECTORIES)
	install -m 755 $(TUNNEL) $(DESTDIR)$(PREFIX)/sbin/tunnel
	install -m 644 man/tunnel.8 $(DESTDIR)$(PREFIX)/share/man/man8
	install -m 644 man/tunnel.conf.5 $(DESTDIR)$(PREFIX)/share/man/man5
	install -m 644 $(wildcard man/*.7) $(DESTDIR)$(PREFIX)/share/man/man7
	install -m 644 README.md SECURITY.md LICENSE tunnel.conf.example \
	    $(DESTDIR)$(PREFIX)/share/doc/tunnel
	$(if $(ACCEL),install -m 644 $(AWS_LC)/LICENSE \
	    $(DESTDIR)$(PREFIX)/share/doc/tunnel/LICENSE.$(ACCEL))
	install -m 644 $(UNITS) $(DESTDIR)$(SYSTEMDDIR)
	install -m 644 lib/systemd/sysusers.conf \
	    $(DESTDIR)$(PREFIX)/lib/sysusers.d/tunnel.conf
	$(if $(packaged),,install -m 644 tunnel.conf.example \
	    $(DESTDIR)$(SYSCONFDIR)/tunnel)

# Leave all other files in /etc/tunnel.
uninstall:
	rm -f $(DESTDIR)$(PREFIX)/sbin/tunnel \
	    $(DESTDIR)$(PREFIX)/share/man/man8/tunnel.8 \
	    $(DESTDIR)$(PREFIX)/share/man/man5/tunnel.conf.5 \
	    $(patsubst man/%,$(DESTDIR)$(PREFIX)/share/man/man7/%,$(wildcard \
	    man/*.7)) \
	    $(DESTDIR)$(PREFIX)/lib/sysusers.d/tunnel.conf \
	    $(UNITS:$(O)/%=$(DESTDIR)$(SYSTEMDDIR)/%) \
	    $(if $(packaged),,$(DESTDIR)$(SYSCONFDIR)/tunnel/tunnel.conf.example)
	rm -rf $(DESTDIR)$(PREFIX)/share/doc/tunnel
	-@rmdir $(DESTDIR)$(SYSCONFDIR)/tunnel 2>/dev/null || :

# A Debian package of the installed files and lib/deb, made by debhelper.  The
# program is built already, so build-essential is not needed.
DEB	= $(O)/deb/tunnel

deb: $(TUNNEL)
	rm -rf $(O)/deb
	$(MAKE) --no-print-directory install DESTDIR=$(abspath $(DEB))/root \
	    PREFIX=/usr SYSCONFDIR=/etc SYSTEMDDIR=/usr/lib/systemd/system
	rm $(DEB)/root/usr/share/doc/tunnel/LICENSE
	cp -R lib/deb $(DEB)/debian
	cp CHANGELOG.md $(DEB)
	sed -e 1,4d -e 's/^$$/./' -e 's/^/ /' LICENSE >>$(DEB)/debian/copyright
	$(MAKE) --no-print-directory -s deb-changelog >$(DEB)/debian/changelog
	cd $(DEB) && dpkg-buildpackage --ignore-builtin-builddeps -b -us -uc

# Debian's changelog has the date of the release, and so have the files in the
# package: builds of one release are the same.
deb-changelog:
	@echo "tunnel ($(VERSION)-1) unstable; urgency=medium"; echo
	@echo "  * See CHANGELOG.md."; echo
	@echo "$$(sed -n 's/^Maintainer:/ --/p' lib/deb/control)  $$(date -Ru \
	    -d "$$(sed -n 's/^## $(VERSION) - //p' CHANGELOG.md)")"

# Keep what tests/deps has fetched or built.
KEPT	= build/aws-lc-source build/aws-lc-source.apt build/debian13 \
	build/mbedtls build/mbedtls-musl build/mbedtls-openwrt \
	build/mbedtls-source build/mbedtls-source.apt \
	build/inetd build/haproxy build/hitch build/nginx build/promtool \
	build/stunnel build/traffic_server build/vm

clean:
	rm -rf $(TUNNEL) $(filter-out $(KEPT),$(wildcard build/*))

FORCE:

.PHONY: all sources libraries demo check check-more check-all check-vm unit fuzz bench \
	bench-vm bench-debian13 $(BENCH:%=bench-%) \
	install uninstall deb deb-changelog \
	clean mbedtls-is-fit FORCE

endif
