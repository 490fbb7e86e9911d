// ONNX Runtime's C interface: strings in, one graph, the shared library of the wheel.
//
// The wheel has no header. OrtApi is a struct of function pointers that only grows, so its slots are named here by
// their place in onnxruntime_c_api.h.

// /// script
// dependencies = ["onnxruntime"]
// [tool.client]
// nul = false
// folder = "text"
// programs = ["gcc"]
// ///

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef void *Handle;
typedef struct { const void *const *(*api)(uint32_t version); const char *(*version)(void); } Base;
extern const Base *OrtGetApiBase(void);

static const void *const *slots;
enum { ERROR_MESSAGE = 2, CREATE_ENV = 3, CREATE_SESSION = 7, RUN = 9, SESSION_OPTIONS = 10, CREATE_TENSOR = 48,
       TENSOR_DATA = 51, FILL_STRINGS = 52, ELEMENT_COUNT = 64, TENSOR_SHAPE = 65, ALLOCATOR = 78 };
enum { WARNING = 2, STRING = 8 };

static void check(Handle status) {
  if (status) {
    fprintf(stderr, "%s\n", ((const char *(*)(Handle))slots[ERROR_MESSAGE])(status));
    exit(1);
  }
}

// Usage: c_api model.onnx vectors.bin text...; writes the vectors as float32.
int main(int count, char **arguments) {
  const Base *base = OrtGetApiBase();
  slots = base->api(18);
  int64_t shape[1] = {count - 3};
  const char *input[] = {"text"}, *output[] = {"sentence_embedding"};
  Handle environment, options, session, allocator, tensor, found = NULL, info;
  float *data;
  size_t size;
  check(((Handle(*)(int, const char *, Handle *))slots[CREATE_ENV])(WARNING, "c", &environment));
  check(((Handle(*)(Handle *))slots[SESSION_OPTIONS])(&options));
  check(((Handle(*)(Handle, const char *, Handle, Handle *))slots[CREATE_SESSION])(environment, arguments[1], options,
                                                                                  &session));
  check(((Handle(*)(Handle *))slots[ALLOCATOR])(&allocator));
  check(((Handle(*)(Handle, const int64_t *, size_t, int, Handle *))slots[CREATE_TENSOR])(allocator, shape, 1, STRING,
                                                                                         &tensor));
  check(((Handle(*)(Handle, const char *const *, size_t))slots[FILL_STRINGS])(tensor, (const char *const *)arguments + 3,
                                                                             (size_t)shape[0]));
  check(((Handle(*)(Handle, Handle, const char *const *, const Handle *, size_t, const char *const *, size_t,
                    Handle *))slots[RUN])(session, NULL, input, &tensor, 1, output, 1, &found));
  check(((Handle(*)(Handle, float **))slots[TENSOR_DATA])(found, &data));
  check(((Handle(*)(Handle, Handle *))slots[TENSOR_SHAPE])(found, &info));
  check(((Handle(*)(Handle, size_t *))slots[ELEMENT_COUNT])(info, &size));
  FILE *file = fopen(arguments[2], "wb");
  if (!file || fwrite(data, sizeof(float), size, file) != size) return 1;
  fclose(file);
  printf("%s\n", base->version());
  return 0;
}
