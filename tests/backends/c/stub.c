/* A CUDA driver on the host: it launches nothing, and notes every launch.

   In: the calls of patternc's C files and of its runtime. Out: what each launch was asked
   for. "Device" memory is the host's. The test says how long the arguments of each kernel
   are, which a real driver reads from the code; a kernel is known by its first bytes. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEY = 40, KERNELS = 4096, LAUNCHES = 64, BYTES = 2048 };

typedef struct {
  char key[KEY];
  unsigned count, sizes[256];
} kernel;

typedef struct {
  char key[KEY];
  uint64_t numbers[8];
  uint64_t bytes;
  unsigned char content[BYTES];
} launch;

static kernel kernels[KERNELS];
static unsigned kernel_count;
static launch launches[LAUNCHES];
static unsigned launch_count;

/* Multiprocessors, major and minor version, shared memory; the context's device; which
   function fails (a number of `failing`), and how. Counts of what is alive. */
static int64_t settings[8] = {1, 9, 0, 232448, 0, 0, 0, 0};
static int64_t alive[4]; /* modules, allocations, primary contexts, pushed contexts */
enum { LOAD = 1, LAUNCH, PUSH, ENCODE, ALLOCATE };

static int fails(int which) {
  return settings[5] == which ? (int)settings[6] : 0;
}

void stub_set(unsigned which, int64_t value) { settings[which] = value; }
int64_t stub_alive(unsigned which) { return alive[which]; }

void stub_expect(const char *key, unsigned count, const unsigned *sizes) {
  kernel *own = &kernels[kernel_count++];
  memcpy(own->key, key, KEY);
  own->count = count;
  memcpy(own->sizes, sizes, count * sizeof(unsigned));
}

unsigned stub_launches(const launch **found) {
  unsigned count = launch_count;
  launch_count = 0;
  *found = launches;
  return count;
}

int cuInit(unsigned flags) { return flags != 0; }

int cuDeviceGet(int *device, int number) {
  *device = number;
  return number == 0 ? 0 : 101;
}

int cuDeviceGetAttribute(int *value, int which, int device) {
  (void)device;
  *value = (int)(which == 16   ? settings[0]
                 : which == 75 ? settings[1]
                 : which == 76 ? settings[2]
                 : which == 97 ? settings[3]
                               : -1);
  return 0;
}

int cuDevicePrimaryCtxRetain(void **context, int device) {
  (void)device;
  *context = (void *)0xc0;
  alive[2]++;
  return 0;
}

int cuDevicePrimaryCtxRelease_v2(int device) {
  (void)device;
  alive[2]--;
  return 0;
}

int cuCtxSetCurrent(void *context) { return context == NULL; }
int cuCtxSynchronize(void) { return 0; }

int cuCtxPushCurrent_v2(void *context) {
  if (context == NULL || fails(PUSH))
    return fails(PUSH) ? fails(PUSH) : 201;
  alive[3]++;
  return 0;
}

int cuCtxPopCurrent_v2(void **context) {
  *context = (void *)0xc0;
  alive[3]--;
  return 0;
}

int cuCtxGetDevice(int *device) {
  *device = (int)settings[4];
  return 0;
}

int cuModuleLoadData(void **module, const void *image) {
  if (fails(LOAD))
    return fails(LOAD);
#ifdef ANY_CODE
  kernel_count = 1;
  memcpy(kernels[0].key, image, KEY);
#endif
  for (unsigned at = 0; at < kernel_count; at++)
    if (memcmp(kernels[at].key, image, KEY) == 0) {
      *module = &kernels[at];
      alive[0]++;
      return 0;
    }
  return 200;
}

int cuModuleUnload(void *module) {
  (void)module;
  alive[0]--;
  return 0;
}

int cuModuleGetFunction(void **function, void *module, const char *name) {
  *function = module;
  return strstr(name, "kernel") == NULL;
}

int cuFuncSetCacheConfig(void *function, int config) {
  (void)function;
  return config != 1;
}

int cuFuncSetAttribute(void *function, int which, int value) {
  (void)function;
  return which != 8 || value <= 48 * 1024;
}

int cuMemAlloc_v2(uint64_t *address, size_t bytes) {
  if (fails(ALLOCATE))
    return fails(ALLOCATE);
  *address = (uint64_t)(uintptr_t)calloc(1, bytes);
  alive[1]++;
  return *address == 0;
}

int cuMemFree_v2(uint64_t address) {
  free((void *)(uintptr_t)address);
  alive[1]--;
  return 0;
}

int cuMemcpyHtoD_v2(uint64_t to, const void *from, size_t bytes) {
  memcpy((void *)(uintptr_t)to, from, bytes);
  return 0;
}

/* Results come from a file instead, one after another, if STUB_RESULTS names one. */
int cuMemcpyDtoH_v2(void *to, uint64_t from, size_t bytes) {
  static FILE *results;
  const char *name = getenv("STUB_RESULTS");
  if (results == NULL && name != NULL)
    results = fopen(name, "rb");
  if (results != NULL)
    return fread(to, bytes, 1, results) != 1;
  memcpy(to, (void *)(uintptr_t)from, bytes);
  return 0;
}

int cuMemsetD8Async(uint64_t to, unsigned char value, size_t count, void *stream) {
  (void)stream;
  memset((void *)(uintptr_t)to, value, count);
  return 0;
}

int cuMemsetD32Async(uint64_t to, unsigned value, size_t count, void *stream) {
  (void)stream;
  for (size_t at = 0; at < count; at++)
    ((uint32_t *)(uintptr_t)to)[at] = value;
  return 0;
}

int cuGetErrorString(int code, const char **text) {
  (void)code;
  *text = "stub";
  return 0;
}

int cuTensorMapEncodeTiled(void *map, int type, unsigned rank, void *address,
                           const uint64_t *sizes, const uint64_t *strides,
                           const uint32_t *box, const uint32_t *steps, int interleave,
                           int swizzle, int promotion, int fill) {
  uint8_t *bytes = map;
  if ((uintptr_t)map % 64 || rank != 4 || interleave || fill || promotion != 2)
    return 1;
  if (fails(ENCODE))
    return fails(ENCODE);
  memset(map, 0, 128);
  bytes[0] = (uint8_t)type;
  bytes[1] = (uint8_t)swizzle;
  memcpy(bytes + 8, &address, 8);
  memcpy(bytes + 16, sizes, 32);
  memcpy(bytes + 48, strides, 24);
  memcpy(bytes + 72, box, 16);
  memcpy(bytes + 88, steps, 16);
  return 0;
}

int cuLaunchKernel(void *function, unsigned x, unsigned y, unsigned z, unsigned threads,
                   unsigned threads_y, unsigned threads_z, unsigned shared, void *stream,
                   void **parameters, void **extra) {
  const kernel *own = function;
  launch *note = &launches[launch_count];
  uint64_t numbers[] = {x,       y,         z,      threads,
                        threads_y, threads_z, shared, (uint64_t)(uintptr_t)stream};
  if (fails(LAUNCH) || extra != NULL || (uintptr_t)parameters[0] % 64 != 0)
    return fails(LAUNCH) ? fails(LAUNCH) : 1;
  launch_count++;
  memcpy(note->key, own->key, KEY);
  memcpy(note->numbers, numbers, sizeof(numbers));
  note->bytes = 0;
  for (unsigned at = 0; at < own->count; at++) {
    memcpy(note->content + note->bytes, parameters[at], own->sizes[at]);
    note->bytes += own->sizes[at];
  }
  return 0;
}
