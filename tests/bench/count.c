/*
 * count: a plugin for QEMU's user mode emulation.  It counts the instructions
 * of a process and all its forks in a file of 8 bytes, in host byte order,
 * which can be read at any time.
 *
 * qemu-arm -plugin count.so,into=PATH PROGRAM ...
 *
 * Debian has no header for plugins, so the used functions are declared here.
 */
#include <sys/mman.h>

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct qemu_plugin_tb;
typedef uint64_t qemu_plugin_id_t;

extern int qemu_plugin_version;
int	qemu_plugin_install(qemu_plugin_id_t, const void *, int, char **);

extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t,
	    void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *,
	    void (*)(unsigned int, void *), int flags, void *);

/* Without this function, the API is version 2, which newer QEMUs need. */
extern int qemu_plugin_n_vcpus(void) __attribute__((weak));
int	qemu_plugin_version;

static uint64_t *count;

static __attribute__((constructor)) void
choose_version(void)
{
	qemu_plugin_version = qemu_plugin_n_vcpus != NULL ? 1 : 2;
}

/* Called before a block of instructions is executed. */
static void
executed(unsigned int cpu, void *instructions)
{
	(void)cpu;
	__atomic_fetch_add(count, (uintptr_t)instructions, __ATOMIC_RELAXED);
}

static void
translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
	uintptr_t n = qemu_plugin_tb_n_insns(block);

	(void)id;
	qemu_plugin_register_vcpu_tb_exec_cb(block, executed, 0, (void *)n);
}

int
qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc,
    char **argv)
{
	int fd;

	(void)info;
	if (argc != 1 || strncmp(argv[0], "into=", 5) != 0)
		return -1;
	fd = open(argv[0] + 5, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd == -1 || ftruncate(fd, sizeof(*count)) == -1)
		return -1;
	count = mmap(NULL, sizeof(*count), PROT_READ | PROT_WRITE, MAP_SHARED,
	    fd, 0);
	close(fd);
	if (count == MAP_FAILED)
		return -1;
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return 0;
}
