/* A CUDA driver that launches nothing: it notes what it was asked for.

   In: the calls of patternc's runtime. Out: the bytes of the last launch's arguments,
   copied as the driver copies them, and a tensor map that says what it was made from.
   The test says first how long each argument is, as machine code would. */

#include <stdint.h>
#include <string.h>

static unsigned sizes[512];
static unsigned count;
static unsigned char noted[1 << 16];
static unsigned long noted_bytes;
static uint64_t numbers[16];
static char loaded[64];
static int attribute[2];
static int has_context = 1;

void stub_expect(unsigned n, const unsigned *of) {
  count = n;
  memcpy(sizes, of, n * sizeof(unsigned));
}

unsigned long stub_noted(const unsigned char **bytes, const uint64_t **of) {
  *bytes = noted;
  *of = numbers;
  return noted_bytes;
}

void stub_forget_context(void) { has_context = 0; }
const char *stub_loaded(void) { return loaded; }
const int *stub_attribute(void) { return attribute; }

int cuDevicePrimaryCtxRetain(void **context, int device) {
  *context = (void *)0xc0ffee;
  return device;
}

int cuCtxSetCurrent(void *context) {
  has_context = context == (void *)0xc0ffee;
  return 0;
}

int cuModuleLoadData(void **module, const void *image) {
  if (!has_context)
    return 201;
  strncpy(loaded, image, sizeof(loaded) - 1);
  if (strcmp(loaded, "broken") == 0)
    return 200;
  *module = (void *)0x1234567890ab;
  return 0;
}

int cuModuleGetFunction(void **function, void *module, const char *name) {
  if (module != (void *)0x1234567890ab || strcmp(name, "entry") != 0)
    return 500;
  *function = (void *)0xfeedfacecafe;
  return 0;
}

int cuFuncSetCacheConfig(void *function, int config) { return config != 1; }

int cuFuncSetAttribute(void *function, int which, int value) {
  attribute[0] = which;
  attribute[1] = value;
  return 0;
}

int cuDeviceGetAttribute(int *value, int which, int device) {
  *value = which == 97 && device == 0 ? 232448 : -1;
  return 0;
}

int cuGetErrorString(int code, const char **text) {
  *text = code == 200 ? "invalid image" : "other";
  return 0;
}

int cuLaunchKernel(void *function, unsigned x, unsigned y, unsigned z, unsigned threads,
                   unsigned threads_y, unsigned threads_z, unsigned shared, void *stream,
                   void **parameters, void **extra) {
  if (!has_context)
    return 201;
  uint64_t all[] = {(uint64_t)function, x,         y,
                    z,                  threads,   threads_y,
                    threads_z,          shared,    (uint64_t)stream,
                    (uint64_t)extra,    (uint64_t)parameters[0] % 64};
  memcpy(numbers, all, sizeof(all));
  noted_bytes = 0;
  for (unsigned at = 0; at < count; at++) {
    memcpy(noted + noted_bytes, parameters[at], sizes[at]);
    noted_bytes += sizes[at];
  }
  return 0;
}

int cuTensorMapEncodeTiled(void *map, int type, unsigned rank, void *address,
                           const uint64_t *shape, const uint64_t *strides,
                           const uint32_t *box, const uint32_t *steps, int interleave,
                           int swizzle, int promotion, int fill) {
  if ((uint64_t)map % 64 || interleave || fill || promotion != 2)
    return 1;
  uint8_t *bytes = memset(map, 0, 128);
  bytes[0] = type;
  bytes[1] = rank;
  bytes[2] = swizzle;
  memcpy(bytes + 8, &address, 8);
  for (unsigned axis = 0; axis < rank; axis++) {
    uint32_t size = shape[axis];
    memcpy(bytes + 16 + 4 * axis, &size, 4);
    memcpy(bytes + 40 + 4 * axis, box + axis, 4);
    if (steps[axis] != 1)
      return 1;
    if (axis + 1 < rank)
      memcpy(bytes + 64 + 8 * axis, strides + axis, 8);
  }
  return 0;
}
