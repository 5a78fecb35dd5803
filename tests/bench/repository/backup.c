/* SPDX-License-Identifier: Apache-2.0
 *
 * What a backup costs without Python: the same work over NBD in C, on a number of threads.
 *
 *     backup URI PACKDIR THREADS CHUNK_KIB [CHANGES]
 *
 * Each thread has a connection and takes the next MiB of what the server calls data. Chunk by chunk: is it zero; keyed BLAKE3;
 * known already; zstd level 1; an AES-256-GCM key derived from the chunk's id, random nonce, seal; append to the open pack.
 * A pack of 32 MiB gets its entries as a footer, is written under a temporary name, synced and renamed by the thread that
 * filled it, while the others fill the second buffer. At the end the array of references is written and synced.
 *
 * Where PACKDIR has such an array already, it is an incremental upon it: all of the disk is read, or the chunks that CHANGES
 * names (a file of lines with offset and length in bytes, in ascending order), and what is as it was is not stored.
 *
 * One line of JSON goes to stdout: seconds from the first connection to the last sync, bytes read, chunks, bytes stored.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libnbd.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <zstd.h>

#include "blake3.h"

#define MIB (1024 * 1024)
#define SEGMENT MIB
#define PACK (32 * MIB)
#define ID 20
#define NONCE 12
#define TAG 16
#define MAX_THREADS 16
/* Bytes a write: larger ones make the kernel clear fresh huge pages for the cache, and take twice its time. */
#define WRITE (128 * 1024)
#define BUFFERS 2

struct run { uint64_t start, end; };
struct reference { uint8_t id[ID]; uint32_t pack, offset, stored; };
struct pack { uint8_t *data; size_t end; uint32_t number, count; struct reference entries[4096]; bool busy; };

static const char *uri, *directory;
static size_t chunk_size = 256 * 1024;
static uint64_t disk_size;
static struct run *runs;
static size_t run_count, run_room, next_run;
static uint64_t next_offset;
static struct reference *places;   /* one a chunk of the disk */
static struct reference *table;    /* open addressing, by the id's first bytes */
static size_t table_mask;
static struct pack packs[BUFFERS], *current;
static uint32_t pack_count;
static uint64_t bytes_read, chunks_new, bytes_stored;
static uint8_t id_key[32], seal_key[32];
static pthread_mutex_t work_lock = PTHREAD_MUTEX_INITIALIZER, pack_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t pack_free = PTHREAD_COND_INITIALIZER;

static void die(const char *what)
{
    const char *nbd = nbd_get_error();
    fprintf(stderr, "backup: %s: %s\n", what, nbd ? nbd : strerror(errno));
    exit(1);
}

static void *need(void *memory)
{
    if (!memory)
        die("memory");
    return memory;
}

static void keep_run(uint64_t start, uint64_t end)
{
    if (run_count && runs[run_count - 1].end == start) {
        runs[run_count - 1].end = end;
        return;
    }
    if (run_count == run_room) {
        run_room = run_room ? run_room * 2 : 1024;
        runs = need(realloc(runs, run_room * sizeof *runs));
    }
    runs[run_count++] = (struct run){start, end};
}

/* The chunks that a range touches, but for those that are kept already; ranges come in ascending order. */
static void keep_chunks(uint64_t start, uint64_t end)
{
    uint64_t low = start - start % chunk_size, high = (end + chunk_size - 1) / chunk_size * chunk_size;
    if (run_count && low < runs[run_count - 1].end)
        low = runs[run_count - 1].end;
    if (high > disk_size)
        high = disk_size;
    if (low < high)
        keep_run(low, high);
}

static int on_extent(void *data, const char *context, uint64_t offset, uint32_t *entries, size_t count, int *error)
{
    uint64_t *position = data;
    (void)error;
    if (strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0)
        return 0;
    for (size_t i = 0; i + 1 < count; i += 2) {
        uint64_t end = offset + entries[i];
        if (end > disk_size)
            end = disk_size;
        if (!(entries[i + 1] & LIBNBD_STATE_ZERO))
            keep_chunks(offset, end);
        *position = offset = end;
    }
    return 0;
}

static struct nbd_handle *connect_to_server(void)
{
    struct nbd_handle *nbd = nbd_create();
    if (!nbd || nbd_add_meta_context(nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) == -1 || nbd_connect_uri(nbd, uri) == -1)
        die("connect");
    nbd_set_pread_initialize(nbd, false);
    return nbd;
}

static void read_map(struct nbd_handle *nbd)
{
    uint64_t position = 0;
    while (position < disk_size) {
        uint64_t count = disk_size - position < (1u << 31) ? disk_size - position : (1u << 31);
        nbd_extent_callback callback = {.callback = on_extent, .user_data = &position};
        if (nbd_block_status(nbd, count, position, callback, 0) == -1)
            die("block status");
    }
}

/* The chunks of the changes that a file names, instead of what the server calls data. */
static void read_changes(const char *path)
{
    uint64_t offset, length;
    FILE *file = fopen(path, "r");
    if (!file)
        die(path);
    while (fscanf(file, "%" SCNu64 " %" SCNu64, &offset, &length) == 2)
        keep_chunks(offset, offset + length);
    fclose(file);
}

static bool next_piece(uint64_t *start, size_t *length)
{
    bool found = false;
    pthread_mutex_lock(&work_lock);
    while (next_run < run_count && !found) {
        if (next_offset < runs[next_run].start)
            next_offset = runs[next_run].start;
        if (next_offset >= runs[next_run].end) {
            next_run++;
            continue;
        }
        uint64_t end = next_offset - next_offset % SEGMENT + SEGMENT;
        if (end > runs[next_run].end)
            end = runs[next_run].end;
        *start = next_offset;
        *length = end - next_offset;
        bytes_read += *length;
        next_offset = end;
        found = true;
    }
    pthread_mutex_unlock(&work_lock);
    return found;
}

static bool is_zero(const uint8_t *data, size_t length)
{
    return data[0] == 0 && (length == 1 || memcmp(data, data + 1, length - 1) == 0);
}

/* The slot of an id: its own, or the free one where it belongs. The lock is held. */
static struct reference *slot_of(const uint8_t *id)
{
    uint64_t at;
    memcpy(&at, id, sizeof at);
    for (at &= table_mask; table[at].stored && memcmp(table[at].id, id, ID) != 0; at = (at + 1) & table_mask)
        ;
    return &table[at];
}

static void write_all(int file, const void *data, size_t length)
{
    for (const uint8_t *at = data; length;) {
        ssize_t done = write(file, at, length < WRITE ? length : WRITE);
        if (done < 0)
            die("write");
        at += done;
        length -= (size_t)done;
    }
}

static void put(const char *name, const void *data, size_t length, const void *more, size_t more_length)
{
    char scratch[4096], path[4096];
    snprintf(scratch, sizeof scratch, "%s/%s.new", directory, name);
    snprintf(path, sizeof path, "%s/%s", directory, name);
    int file = open(scratch, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (file < 0)
        die(scratch);
    write_all(file, data, length);
    write_all(file, more, more_length);
    if (fsync(file) < 0 || close(file) < 0 || rename(scratch, path) < 0)
        die(path);
    int folder = open(directory, O_RDONLY | O_DIRECTORY);
    if (folder < 0 || fsync(folder) < 0)
        die(directory);
    close(folder);
}

static void put_pack(struct pack *pack)
{
    char name[32];
    snprintf(name, sizeof name, "pack-%08" PRIu32, pack->number);
    put(name, pack->data, pack->end, pack->entries, pack->count * sizeof pack->entries[0]);
    pthread_mutex_lock(&pack_lock);
    pack->busy = false;
    pthread_cond_broadcast(&pack_free);
    pthread_mutex_unlock(&pack_lock);
}

/* A pack with room. The lock is held; it is given up while a full pack is written. */
static struct pack *room_for(size_t length)
{
    for (;;) {
        if (current && current->end + length <= PACK && current->count < 4096)
            return current;
        if (current) {
            struct pack *full = current;
            current = NULL;
            pthread_mutex_unlock(&pack_lock);
            put_pack(full);
            pthread_mutex_lock(&pack_lock);
            continue;
        }
        for (int i = 0; i < BUFFERS && !current; i++)
            if (!packs[i].busy)
                current = &packs[i];
        if (!current) {
            pthread_cond_wait(&pack_free, &pack_lock);
            continue;
        }
        if (!current->data)
            current->data = need(malloc(PACK));
        current->busy = true;
        current->end = current->count = 0;
        current->number = pack_count++;
    }
}

static void store(uint64_t chunk, const uint8_t *id, const uint8_t *data, size_t length)
{
    pthread_mutex_lock(&pack_lock);
    struct pack *pack = room_for(length);
    struct reference *known = slot_of(id);
    if (!known->stored) {
        struct reference place = {.pack = pack->number + 1, .offset = (uint32_t)pack->end, .stored = (uint32_t)length};
        memcpy(place.id, id, ID);
        memcpy(pack->data + pack->end, data, length);
        pack->end += length;
        pack->entries[pack->count++] = place;
        *known = place;
        chunks_new++;
        bytes_stored += length;
    }
    places[chunk] = *known;
    pthread_mutex_unlock(&pack_lock);
}

static bool load(const char *name, void *data, size_t length)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "rb");
    if (!file)
        return false;
    if (fread(data, 1, length, file) != length)
        die(path);
    fclose(file);
    return true;
}

/* What the last backup left: its references are this one's, until something else is read. */
static bool load_parent(size_t chunks)
{
    if (!load("index", places, chunks * sizeof *places))
        return false;
    for (size_t i = 0; i < chunks; i++) {
        if (!places[i].stored)
            continue;
        *slot_of(places[i].id) = places[i];
        if (pack_count < places[i].pack)
            pack_count = places[i].pack;
    }
    return true;
}

static bool is_known(uint64_t chunk, const uint8_t *id)
{
    pthread_mutex_lock(&pack_lock);
    struct reference *known = slot_of(id);
    bool found = known->stored != 0;
    if (found)
        places[chunk] = *known;
    pthread_mutex_unlock(&pack_lock);
    return found;
}

static void hash(const uint8_t *key, const void *data, size_t length, uint8_t *digest, size_t digest_length)
{
    blake3_hasher hasher;
    blake3_hasher_init_keyed(&hasher, key);
    blake3_hasher_update(&hasher, data, length);
    blake3_hasher_finalize(&hasher, digest, digest_length);
}

static size_t seal(EVP_CIPHER_CTX *cipher, const uint8_t *id, const uint8_t *data, size_t length, uint8_t *out)
{
    uint8_t key[32];
    int count, rest;
    hash(seal_key, id, ID, key, sizeof key);
    if (RAND_bytes(out, NONCE) != 1 || EVP_EncryptInit_ex(cipher, EVP_aes_256_gcm(), NULL, key, out) != 1 ||
        EVP_EncryptUpdate(cipher, out + NONCE, &count, data, (int)length) != 1 ||
        EVP_EncryptFinal_ex(cipher, out + NONCE + count, &rest) != 1 ||
        EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_GCM_GET_TAG, TAG, out + NONCE + length) != 1)
        die("seal");
    return NONCE + length + TAG;
}

static void *work(void *connection)
{
    struct nbd_handle *nbd = connection ? connection : connect_to_server();
    ZSTD_CCtx *zstd = need(ZSTD_createCCtx());
    EVP_CIPHER_CTX *cipher = need(EVP_CIPHER_CTX_new());
    size_t bound = ZSTD_compressBound(chunk_size), length;
    uint8_t *segment = need(malloc(SEGMENT)), *packed = need(malloc(bound));
    uint8_t *sealed = need(malloc(chunk_size + NONCE + TAG)), id[ID];
    uint64_t start;

    while (next_piece(&start, &length)) {
        if (nbd_pread(nbd, segment, length, start, 0) == -1)
            die("read");
        for (size_t at = 0; at < length; at += chunk_size) {
            size_t raw = length - at < chunk_size ? length - at : chunk_size;
            uint64_t chunk = (start + at) / chunk_size;
            if (is_zero(segment + at, raw)) {
                places[chunk] = (struct reference){.stored = 0};
                continue;
            }
            hash(id_key, segment + at, raw, id, ID);
            if (is_known(chunk, id))
                continue;
            size_t count = ZSTD_compressCCtx(zstd, packed, bound, segment + at, raw, 1);
            if (ZSTD_isError(count))
                die("zstd");
            bool worth = count <= raw - raw / 16;
            count = seal(cipher, id, worth ? packed : segment + at, worth ? count : raw, sealed);
            store(chunk, id, sealed, count);
        }
    }
    nbd_shutdown(nbd, 0);
    nbd_close(nbd);
    ZSTD_freeCCtx(zstd);
    EVP_CIPHER_CTX_free(cipher);
    free(segment);
    free(packed);
    free(sealed);
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc < 5) {
        fprintf(stderr, "usage: backup URI PACKDIR THREADS CHUNK_KIB [CHANGES]\n");
        return 2;
    }
    uri = argv[1];
    directory = argv[2];
    int threads = atoi(argv[3]);
    chunk_size = (size_t)atoi(argv[4]) * 1024;
    if (threads < 1 || threads > MAX_THREADS || !chunk_size || SEGMENT % chunk_size)
        die("arguments");

    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    struct nbd_handle *first = connect_to_server();
    disk_size = (uint64_t)nbd_get_size(first);
    if (argc > 5)
        read_changes(argv[5]);
    else
        read_map(first);
    size_t chunks = (disk_size + chunk_size - 1) / chunk_size, slots = 1024;
    while (slots < 4 * chunks)
        slots *= 2;
    table_mask = slots - 1;
    table = need(calloc(slots, sizeof *table));
    places = need(calloc(chunks, sizeof *places));
    uint8_t keys[sizeof id_key + sizeof seal_key];
    if (!load("keys", keys, sizeof keys)) {
        if (RAND_bytes(keys, sizeof keys) != 1)
            die("random");
        put("keys", keys, sizeof keys, "", 0);
    }
    memcpy(id_key, keys, sizeof id_key);
    memcpy(seal_key, keys + sizeof id_key, sizeof seal_key);
    if (!load_parent(chunks) && argc > 5)
        die("changes since which backup?");
    if (argc <= 5)
        memset(places, 0, chunks * sizeof *places);   /* what is not read is zero */

    pthread_t helpers[MAX_THREADS];
    for (int i = 1; i < threads; i++)
        if (pthread_create(&helpers[i], NULL, work, NULL) != 0)
            die("thread");
    work(first);
    for (int i = 1; i < threads; i++)
        pthread_join(helpers[i], NULL);
    if (current)
        put_pack(current);
    put("index", places, chunks * sizeof *places, "", 0);
    clock_gettime(CLOCK_MONOTONIC, &end);
    double seconds = (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9;
    printf("{\"seconds\": %.4f, \"read\": %" PRIu64 ", \"chunks\": %" PRIu64 ", \"stored\": %" PRIu64 "}\n", seconds, bytes_read,
           chunks_new, bytes_stored);
    return 0;
}
