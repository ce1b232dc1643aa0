/*
 * The agent of the tests and the demo: the first process of a booted image.
 *
 * It says on the console what it finds - the mount it runs on, its own mode, the
 * SHA-256 of the files that the kernel's command line names with agent.hash=PATH,
 * the end of the programs that it names with agent.run=PATH - grows the file system to the disk's size if the command line says agent.grow,
 * leaves one file behind so that writing is seen to work, and powers off.
 * Static, so that it runs in an image without any library.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#define SELF "/sbin/vm-agent"
#define LEFT_BEHIND "/agent-was-here"
#define DISK "/dev/vda"
/* Of fs/ext4/ext4.h: grows the mounted file system to so many blocks. */
#define EXT4_IOC_RESIZE_FS _IOW('f', 16, uint64_t)

static void say(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	printf("agent: ");
	vprintf(format, arguments);
	printf("\n");
	fflush(stdout);
	va_end(arguments);
}

/* SHA-256, FIPS 180-4 section 6.2. */

struct sha256 {
	uint32_t state[8];
	uint64_t length;
	unsigned char block[64];
};

static const uint32_t K[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1,
	0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3,
	0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786,
	0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147,
	0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13,
	0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
	0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a,
	0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
	0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t rotate(uint32_t word, int by)
{
	return word >> by | word << (32 - by);
}

static void sha256_block(struct sha256 *hash)
{
	uint32_t w[64], v[8];

	for (int i = 0; i < 16; i++)
		w[i] = (uint32_t)hash->block[4 * i] << 24 |
		       (uint32_t)hash->block[4 * i + 1] << 16 |
		       (uint32_t)hash->block[4 * i + 2] << 8 | hash->block[4 * i + 3];
	for (int i = 16; i < 64; i++) {
		uint32_t s0 = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3;
		uint32_t s1 = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10;

		w[i] = w[i - 16] + s0 + w[i - 7] + s1;
	}
	memcpy(v, hash->state, sizeof(v));
	for (int i = 0; i < 64; i++) {
		uint32_t s1 = rotate(v[4], 6) ^ rotate(v[4], 11) ^ rotate(v[4], 25);
		uint32_t choice = (v[4] & v[5]) ^ (~v[4] & v[6]);
		uint32_t t1 = v[7] + s1 + choice + K[i] + w[i];
		uint32_t s0 = rotate(v[0], 2) ^ rotate(v[0], 13) ^ rotate(v[0], 22);
		uint32_t majority = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);

		memmove(v + 1, v, 7 * sizeof(v[0]));
		v[4] += t1;
		v[0] = t1 + s0 + majority;
	}
	for (int i = 0; i < 8; i++)
		hash->state[i] += v[i];
}

static void sha256_update(struct sha256 *hash, const unsigned char *data, size_t size)
{
	for (size_t i = 0; i < size; i++) {
		hash->block[hash->length++ % 64] = data[i];
		if (hash->length % 64 == 0)
			sha256_block(hash);
	}
}

static void sha256_finish(struct sha256 *hash)
{
	uint64_t bits = hash->length * 8;
	unsigned char end[8];

	sha256_update(hash, (const unsigned char *)"\x80", 1);
	while (hash->length % 64 != 56)
		sha256_update(hash, (const unsigned char *)"", 1);
	for (int i = 0; i < 8; i++)
		end[i] = (unsigned char)(bits >> (56 - 8 * i));
	sha256_update(hash, end, 8);
}

static void say_hash(const char *path)
{
	struct sha256 hash = {
		{ 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
		  0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 }, 0, { 0 },
	};
	static unsigned char buffer[65536];
	char hex[65];
	ssize_t got;
	int fd = open(path, O_RDONLY);

	if (fd < 0) {
		say("FAILED to open %s: %s", path, strerror(errno));
		return;
	}
	while ((got = read(fd, buffer, sizeof(buffer))) > 0)
		sha256_update(&hash, buffer, (size_t)got);
	if (got < 0)
		say("FAILED to read %s: %s", path, strerror(errno));
	close(fd);
	sha256_finish(&hash);
	for (int i = 0; i < 8; i++)
		snprintf(hex + 8 * i, 9, "%08x", hash.state[i]);
	say("sha256 %s %s", hex, path);
}

static void grow(void)
{
	uint64_t bytes, blocks;
	struct statfs info;
	int disk = open(DISK, O_RDONLY), root = open("/", O_RDONLY);

	if (disk < 0 || root < 0 || ioctl(disk, BLKGETSIZE64, &bytes) != 0 || fstatfs(root, &info) != 0) {
		say("FAILED to look at %s: %s", DISK, strerror(errno));
		return;
	}
	blocks = bytes / info.f_bsize;
	if (ioctl(root, EXT4_IOC_RESIZE_FS, &blocks) != 0 || fstatfs(root, &info) != 0)
		say("FAILED to grow to %llu blocks: %s", (unsigned long long)blocks, strerror(errno));
	else
		say("grown to %llu MiB of %llu", (unsigned long long)(info.f_blocks * info.f_bsize >> 20),
		    (unsigned long long)(bytes >> 20));
	close(disk);
	close(root);
}

static void run(char *path)
{
	char *arguments[] = { path, NULL };
	char *environment[] = { "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8", NULL };
	int status = 0;
	pid_t child = fork();

	if (child == 0) {
		execve(path, arguments, environment);
		say("FAILED to start %s: %s", path, strerror(errno));
		_exit(127);
	}
	if (child < 0 || waitpid(child, &status, 0) != child)
		say("FAILED to run %s: %s", path, strerror(errno));
	else if (WIFSIGNALED(status))
		say("ran %s: signal %d", path, WTERMSIG(status));
	else
		say("ran %s: exit code %d", path, WEXITSTATUS(status));
}

static void do_what_is_requested(void)
{
	static char line[8192];
	FILE *file = fopen("/proc/cmdline", "r");

	if (file == NULL || fgets(line, sizeof(line), file) == NULL) {
		say("FAILED to read /proc/cmdline: %s", strerror(errno));
		return;
	}
	fclose(file);
	for (char *word = strtok(line, " \n"); word != NULL; word = strtok(NULL, " \n"))
		if (strncmp(word, "agent.hash=", 11) == 0)
			say_hash(word + 11);
		else if (strncmp(word, "agent.run=", 10) == 0)
			run(word + 10);
		else if (strcmp(word, "agent.grow") == 0)
			grow();
}

static void say_root_mount(void)
{
	char line[4096], device[1024], target[1024], type[256], options[1024];
	FILE *file = fopen("/proc/self/mounts", "r");

	if (file == NULL) {
		say("FAILED to open /proc/self/mounts: %s", strerror(errno));
		return;
	}
	while (fgets(line, sizeof(line), file) != NULL)
		if (sscanf(line, "%1023s %1023s %255s %1023s", device, target, type, options) == 4 &&
		    strcmp(target, "/") == 0)
			say("root %s %s %s", device, type, options);
	fclose(file);
}

static void say_self(void)
{
	struct stat info;

	if (stat(SELF, &info) != 0)
		say("FAILED to stat %s: %s", SELF, strerror(errno));
	else
		say("self mode %04o owner %u:%u size %lld", info.st_mode & 07777, info.st_uid,
		    info.st_gid, (long long)info.st_size);
}

static void leave_a_file(void)
{
	static const char text[] = "written by the agent\n";
	int fd = open(LEFT_BEHIND, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	if (fd < 0 || write(fd, text, sizeof(text) - 1) != sizeof(text) - 1 || fsync(fd) != 0)
		say("FAILED to write %s: %s", LEFT_BEHIND, strerror(errno));
	else
		say("wrote %s", LEFT_BEHIND);
	if (fd >= 0)
		close(fd);
}

int main(void)
{
	if (getpid() != 1) {
		fprintf(stderr, "%s is the first process of a machine, nothing else\n", SELF);
		return 2;
	}
	say("started as process %d", (int)getpid());
	/* An initramfs hands its own /proc over. */
	if (mount("proc", "/proc", "proc", 0, NULL) != 0 && errno != EBUSY)
		say("FAILED to mount /proc: %s", strerror(errno));
	say_root_mount();
	say_self();
	do_what_is_requested();
	leave_a_file();
	sync();
	/* As a machine does when it goes down: the journal is left empty. */
	if (mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL) != 0)
		say("FAILED to make the root read-only: %s", strerror(errno));
	say("done");
	reboot(RB_POWER_OFF);
	reboot(RB_AUTOBOOT);
	return 1;
}
