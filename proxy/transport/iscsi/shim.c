/* SPDX-License-Identifier: Apache-2.0
 *
 * The little C between Python and libiscsi: it exists so that one call without the interpreter's lock submits a batch,
 * polls, services the connection and collects whatever completed. A session belongs to the one thread that drives it
 * (libiscsi is not thread-safe); only the eventfd may be written by others.
 *
 * Buffers: Python keeps them alive until a slot comes back as done, or until lf_close() returned. After lf_close()
 * nothing in here or in libiscsi knows their addresses any more.
 */

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

#include "shim.h"

struct lf_entry {
    lf_slot slot;
    struct lf_session *owner;
    struct scsi_task *task;
    struct scsi_iovec iov;
    int index;
    int busy;
};

struct lf_session {
    struct iscsi_context *iscsi;
    struct lf_entry *entries;
    int *todo;
    int *done;
    int done_count;
    int depth;
    int in_flight;
    int wake_fd;
    int may_write;
    int state;
    char why[256];
};

lf_session *lf_open(const char *initiator, const char *target, const char *user, const char *secret,
                    int timeout_seconds, int digest, uint32_t isid_random, uint32_t isid_qualifier,
                    int depth, int wake_fd, int may_write)
{
    lf_session *s = calloc(1, sizeof(*s));

    if (s == NULL)
        return NULL;
    s->depth = depth;
    s->wake_fd = wake_fd;
    s->may_write = may_write;
    s->entries = calloc(depth, sizeof(*s->entries));
    s->todo = calloc(depth, sizeof(int));
    s->done = calloc(depth, sizeof(int));
    s->iscsi = iscsi_create_context(initiator);
    if (s->entries == NULL || s->todo == NULL || s->done == NULL || s->iscsi == NULL) {
        lf_close(s);
        return NULL;
    }
    for (int i = 0; i < depth; i++) {
        s->entries[i].owner = s;
        s->entries[i].index = i;
    }
    /* A session that breaks stays broken: Python decides where to go on, and no command is repeated behind its back. */
    iscsi_set_noautoreconnect(s->iscsi, 1);
    iscsi_set_session_type(s->iscsi, ISCSI_SESSION_NORMAL);
    iscsi_set_header_digest(s->iscsi, digest ? ISCSI_HEADER_DIGEST_CRC32C : ISCSI_HEADER_DIGEST_NONE);
    iscsi_set_timeout(s->iscsi, timeout_seconds);
    iscsi_set_isid_random(s->iscsi, isid_random, isid_qualifier);
    if (iscsi_set_targetname(s->iscsi, target) != 0 ||
        (user != NULL && iscsi_set_initiator_username_pwd(s->iscsi, user, secret) != 0)) {
        s->state = LF_BROKEN;
    }
    return s;
}

lf_slot *lf_get_slot(lf_session *s, int index) { return &s->entries[index].slot; }
int *lf_todo(lf_session *s) { return s->todo; }
const int *lf_done(lf_session *s) { return s->done; }
int lf_state(lf_session *s) { return s->state; }
int lf_in_flight(lf_session *s) { return s->in_flight; }
const char *lf_error(lf_session *s) { return s->why[0] != 0 ? s->why : iscsi_get_error(s->iscsi); }

/* The first error is the telling one: libiscsi overwrites it with "can not reconnect right now". */
static void broke(lf_session *s)
{
    const char *said = iscsi_get_error(s->iscsi);

    s->state = LF_BROKEN;
    if (s->why[0] == 0 && said != NULL)
        strncpy(s->why, said, sizeof(s->why) - 1);
}

static void on_login(struct iscsi_context *iscsi, int status, void *data, void *opaque)
{
    lf_session *s = opaque;

    (void)iscsi;
    (void)data;
    if (status == SCSI_STATUS_GOOD)
        s->state = LF_READY;
    else
        broke(s);
}

static void on_connect(struct iscsi_context *iscsi, int status, void *data, void *opaque)
{
    lf_session *s = opaque;

    (void)data;
    /* The callback comes a second time when an established connection is torn down. */
    if (status != SCSI_STATUS_GOOD || s->state != LF_CONNECTING || iscsi_login_async(iscsi, on_login, s) != 0)
        broke(s);
}

int lf_login(lf_session *s, const char *portal)
{
    if (s->state != LF_NEW)
        return -1;
    s->state = LF_CONNECTING;
    if (iscsi_connect_async(s->iscsi, portal, on_connect, s) != 0)
        broke(s);
    return s->state == LF_BROKEN ? -1 : 0;
}

static void on_logout(struct iscsi_context *iscsi, int status, void *data, void *opaque)
{
    lf_session *s = opaque;

    (void)iscsi;
    (void)status;
    (void)data;
    s->state = LF_LOGGED_OUT;
}

int lf_logout(lf_session *s)
{
    return s->state == LF_READY ? iscsi_logout_async(s->iscsi, on_logout, s) : -1;
}

static void finish(struct lf_entry *e, int status)
{
    lf_session *s = e->owner;

    e->slot.status = status;
    e->busy = 0;
    if (e->task != NULL) {
        e->slot.sense_key = e->task->sense.key;
        e->slot.sense_code = e->task->sense.ascq;
        e->slot.residual_kind = e->task->residual_status;
        e->slot.residual = e->task->residual;
        scsi_free_scsi_task(e->task);
        e->task = NULL;
    }
    s->in_flight--;
    s->done[s->done_count++] = e->index;
}

static void on_command(struct iscsi_context *iscsi, int status, void *data, void *opaque)
{
    struct lf_entry *e = opaque;

    (void)iscsi;
    (void)data;
    if (e->busy)
        finish(e, status);
}

/* The only place in the program that hands a SCSI command to libiscsi. Python has checked the opcode against the
 * session's list; a session that only reads moves no data to a device even if that check were wrong. */
static void submit(lf_session *s, struct lf_entry *e)
{
    lf_slot *slot = &e->slot;

    slot->sense_key = slot->sense_code = slot->residual_kind = 0;
    slot->residual = 0;
    e->busy = 1;
    s->in_flight++;
    if (slot->direction == SCSI_XFER_WRITE && !s->may_write) {
        finish(e, SCSI_STATUS_ERROR);
        return;
    }
    e->task = scsi_create_task(slot->cdb_size, slot->cdb, slot->direction, slot->length);
    if (e->task == NULL) {
        finish(e, SCSI_STATUS_ERROR);
        return;
    }
    if (slot->direction != SCSI_XFER_NONE) {
        e->iov.iov_base = slot->buffer;
        e->iov.iov_len = slot->length;
        if (slot->direction == SCSI_XFER_READ)
            scsi_task_set_iov_in(e->task, &e->iov, 1);
        else
            scsi_task_set_iov_out(e->task, &e->iov, 1);
    }
    if (iscsi_scsi_command_async(s->iscsi, slot->lun, e->task, on_command, NULL, e) != 0 && e->busy) {
        broke(s);
        finish(e, SCSI_STATUS_ERROR);
    }
}

static int64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Wait at most timeout_ms for the connection or the eventfd, service the connection. Returns whether we were woken. */
static int turn(lf_session *s, int timeout_ms)
{
    struct pollfd fds[2];
    uint64_t ticks;
    int woken;

    fds[0].fd = iscsi_get_fd(s->iscsi);
    fds[0].events = iscsi_which_events(s->iscsi);
    fds[0].revents = 0;
    fds[1].fd = s->wake_fd;
    fds[1].events = POLLIN;
    fds[1].revents = 0;
    if (poll(fds, 2, timeout_ms) < 0 && errno != EINTR)
        broke(s);
    woken = (fds[1].revents & POLLIN) != 0;
    if (woken)
        (void)!read(s->wake_fd, &ticks, sizeof(ticks));
    /* Called with nothing to do as well: libiscsi looks for commands past their time only in here. */
    if (iscsi_service(s->iscsi, fds[0].revents) != 0)
        broke(s);
    /* With automatic reconnection off, a lost connection shows as a missing descriptor or as logged out. */
    if (iscsi_get_fd(s->iscsi) < 0 || (s->state == LF_READY && !iscsi_is_logged_in(s->iscsi)))
        broke(s);
    return woken;
}

/* Submit the slots named in todo[0..count), then service the connection until a quarter of what is in flight is done (at
 * least one command), somebody wakes us, the state changes or timeout_ms have passed. A request's data arrive in many
 * pieces, and none of them needs Python; a quarter, because fewer rounds through Python cost less and three quarters
 * keep the array busy meanwhile.
 * Returns how many slots are in done[]; they are free again. lf_state() tells whether the session still lives. */
int lf_run(lf_session *s, int count, int timeout_ms)
{
    int64_t end = now_ms() + timeout_ms;
    int state = s->state;
    int left = timeout_ms;
    int enough;

    s->done_count = 0;
    if (s->state == LF_BROKEN)
        return 0;
    for (int i = 0; i < count; i++)
        submit(s, &s->entries[s->todo[i]]);
    enough = s->in_flight / 4 > 1 ? s->in_flight / 4 : 1;
    while (s->done_count < enough && s->state == state && left >= 0) {
        if (turn(s, left))
            break;
        left = (int)(end - now_ms());
    }
    return s->done_count;
}

void lf_close(lf_session *s)
{
    if (s == NULL)
        return;
    s->done_count = 0;
    if (s->iscsi != NULL)
        iscsi_destroy_context(s->iscsi); /* cancels what is in flight and closes the socket */
    for (int i = 0; s->entries != NULL && i < s->depth; i++) {
        if (s->entries[i].task != NULL)
            scsi_free_scsi_task(s->entries[i].task);
    }
    free(s->entries);
    free(s->todo);
    free(s->done);
    free(s);
}
