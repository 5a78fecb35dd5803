/* SPDX-License-Identifier: Apache-2.0
 *
 * A stand-in for VMware's libvixDiskLib ("Virtual Disk Development Kit Programming Guide"), for the tests only: the calls that
 * nbdkit's vddk plugin makes, over one raw file. It lets in who has the right name, password, thumbprint, machine and snapshot,
 * as lines of the file "expected" in the directory LANFREE_VDDK_STUB; "disk" beside it is the disk. Like the real one it reads
 * whole sectors only, wants InitEx first, opens read-only with a snapshot alone, and tells what is allocated in chunks.
 */
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef uint64_t VixError;
enum { VIX_OK = 0, VIX_E_FAIL = 1, VIX_E_INVALID_ARG = 3, VIX_E_FILE_NOT_FOUND = 4, VIX_E_NOT_INITIALIZED = 16,
       VIX_E_HOST_USER_PERMISSIONS = 3014, VIX_E_SSL_CERT = 18000, VIX_ASYNC = 25000 };
enum { OPEN_READ_ONLY = 4, SECTOR = 512, CRED_UID = 1, MIN_CHUNK = 128 };

typedef struct {
  char *vmx, *server, *thumbprint;
  long reserved1;
  int credentials;
  union { struct { char *user, *password; } uid; struct { char *cookie, *user, *key; } session; void *reserved2; } as;
  uint32_t port, nfc_port;
  char *reserved3, reserved4[8];
  void *reserved5;
  struct { char *id, *datastore, *snapshot; } object;
  int spec;
} Parameters;

typedef struct { uint32_t cylinders, heads, sectors; } Geometry;
typedef struct { Geometry bios, physical; uint64_t capacity; int adapter, links; char *parent, *uuid; } Info;
typedef struct { uint64_t offset, length; } Block;
typedef struct { uint32_t count; Block blocks[]; } Blocks;
typedef struct { char read_only; } Connection;
typedef struct { FILE *file; uint64_t sectors; } Handle;

static int initialized;

static FILE *beside(const char *name, const char *mode) {
  char path[4096];
  const char *directory = getenv("LANFREE_VDDK_STUB");
  snprintf(path, sizeof path, "%s/%s", directory ? directory : ".", name);
  return fopen(path, mode);
}

static void note(const char *what, const char *fact) {
  FILE *calls = beside("calls", "a");
  if (calls) { fprintf(calls, "%s %s\n", what, fact ? fact : ""); fclose(calls); }
}

/* Whether line number N of "expected" is the fact. */
static int expected(int number, const char *fact) {
  char line[4096] = "";
  FILE *file = beside("expected", "r");
  if (!file) return 0;
  for (int i = 0; i <= number; i++)
    if (!fgets(line, sizeof line, file)) line[0] = 0;
  fclose(file);
  line[strcspn(line, "\n")] = 0;
  return fact && !strcmp(line, fact);
}

VixError VixDiskLib_InitEx(uint32_t major, uint32_t minor, void *log, void *warn, void *panic, const char *dir, const char *config) {
  (void)minor; (void)log; (void)warn; (void)panic; (void)config;
  initialized = 1;
  note("InitEx", dir);
  return major >= 5 ? VIX_OK : VIX_E_INVALID_ARG;
}
void VixDiskLib_Exit(void) { initialized = 0; }

char *VixDiskLib_GetErrorText(VixError error, const char *locale) {
  (void)locale;
  switch (error) {
    case VIX_E_HOST_USER_PERMISSIONS: return strdup("Insufficient permissions in host operating system");
    case VIX_E_SSL_CERT: return strdup("The server certificate cannot be verified");
    case VIX_E_FILE_NOT_FOUND: return strdup("A file was not found");
    default: return strdup("Unknown error");
  }
}
void VixDiskLib_FreeErrorText(char *text) { free(text); }

Parameters *VixDiskLib_AllocateConnectParams(void) { return calloc(1, sizeof(Parameters)); }
void VixDiskLib_FreeConnectParams(Parameters *given) { free(given); }

VixError VixDiskLib_ConnectEx(const Parameters *given, char read_only, const char *snapshot, const char *modes, Connection **made) {
  if (!initialized) return VIX_E_NOT_INITIALIZED;
  if (given->credentials != CRED_UID) return VIX_E_INVALID_ARG;
  note("ConnectEx", modes);
  if (!expected(3, given->thumbprint)) return VIX_E_SSL_CERT;
  if (!expected(0, given->server) || !expected(1, given->as.uid.user) || !expected(2, given->as.uid.password))
    return VIX_E_HOST_USER_PERMISSIONS;
  if (!expected(4, given->vmx) || !expected(5, snapshot) || !read_only) return VIX_E_FILE_NOT_FOUND;
  *made = calloc(1, sizeof **made);
  (*made)->read_only = read_only;
  return VIX_OK;
}
VixError VixDiskLib_Disconnect(Connection *connection) { note("Disconnect", ""); free(connection); return VIX_OK; }

VixError VixDiskLib_Open(Connection *connection, const char *path, uint32_t flags, Handle **made) {
  struct stat facts;
  if (!expected(6, path)) return VIX_E_FILE_NOT_FOUND;
  if (connection->read_only && !(flags & OPEN_READ_ONLY)) return VIX_E_INVALID_ARG;
  Handle *handle = calloc(1, sizeof *handle);
  handle->file = beside("disk", "r");
  if (!handle->file || fstat(fileno(handle->file), &facts)) { free(handle); return VIX_E_FILE_NOT_FOUND; }
  handle->sectors = facts.st_size / SECTOR;
  *made = handle;
  note("Open", path);
  return VIX_OK;
}
VixError VixDiskLib_Close(Handle *handle) { note("Close", ""); fclose(handle->file); free(handle); return VIX_OK; }
const char *VixDiskLib_GetTransportMode(Handle *handle) { (void)handle; return "nbdssl"; }

VixError VixDiskLib_GetInfo(Handle *handle, Info **told) {
  *told = calloc(1, sizeof **told);
  (*told)->capacity = handle->sectors;
  (*told)->adapter = 3;
  (*told)->links = 1;
  return VIX_OK;
}
void VixDiskLib_FreeInfo(Info *told) { free(told); }

VixError VixDiskLib_Read(Handle *handle, uint64_t start, uint64_t count, unsigned char *buffer) {
  static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER;
  VixError outcome = VIX_OK;
  if (start + count > handle->sectors) return VIX_E_INVALID_ARG;
  pthread_mutex_lock(&one);
  if (fseeko(handle->file, start * SECTOR, SEEK_SET) || fread(buffer, SECTOR, count, handle->file) != count) outcome = VIX_E_FAIL;
  pthread_mutex_unlock(&one);
  return outcome;
}
VixError VixDiskLib_ReadAsync(Handle *handle, uint64_t start, uint64_t count, unsigned char *buffer,
                              void (*done)(void *, VixError), void *data) {
  done(data, VixDiskLib_Read(handle, start, count, buffer));
  return VIX_ASYNC;
}
VixError VixDiskLib_Wait(Handle *handle) { (void)handle; return VIX_OK; }
VixError VixDiskLib_Flush(Handle *handle) { (void)handle; return VIX_OK; }
VixError VixDiskLib_Write(Handle *handle, uint64_t start, uint64_t count, const unsigned char *buffer) {
  (void)handle; (void)start; (void)count; (void)buffer;
  return VIX_E_INVALID_ARG; /* nothing opened with a snapshot is written to */
}
VixError VixDiskLib_WriteAsync(Handle *handle, uint64_t start, uint64_t count, const unsigned char *buffer,
                               void (*done)(void *, VixError), void *data) {
  done(data, VixDiskLib_Write(handle, start, count, buffer));
  return VIX_ASYNC;
}

VixError VixDiskLib_QueryAllocatedBlocks(Handle *handle, uint64_t start, uint64_t count, uint64_t chunk, Blocks **told) {
  unsigned char *buffer = malloc(chunk * SECTOR);
  Blocks *found = malloc(sizeof *found + (count / chunk + 1) * sizeof(Block));
  found->count = 0;
  if (chunk < MIN_CHUNK || start % chunk || count % chunk) { free(buffer); free(found); return VIX_E_INVALID_ARG; }
  for (uint64_t at = start; at < start + count; at += chunk) {
    uint64_t i = 0;
    if (VixDiskLib_Read(handle, at, chunk, buffer)) { free(buffer); free(found); return VIX_E_FAIL; }
    while (i < chunk * SECTOR && !buffer[i]) i++;
    if (i < chunk * SECTOR) found->blocks[found->count++] = (Block){at, chunk};
  }
  free(buffer);
  *told = found;
  return VIX_OK;
}
VixError VixDiskLib_FreeBlockList(Blocks *told) { free(told); return VIX_OK; }
