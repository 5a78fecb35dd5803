/* SPDX-License-Identifier: Apache-2.0
 *
 * One iSCSI session in C, between Python and libiscsi. It exists so that no byte and no command waits for the
 * interpreter's lock: the session's thread runs lf_serve() from login to the end, readers wait in lf_execute().
 *
 *     reader's thread                              the session's thread
 *     lf_execute: append to the queue ──────────>  submit while less than ``depth`` are in flight
 *                 wait for its batch   <─────────  poll, iscsi_service, on_command: count the batch down
 *
 * libiscsi is not thread-safe: everything that touches ``iscsi`` runs on the session's thread (lf_open excepted, before
 * there is one). ``lock`` guards what both sides see: queue, batches, in_flight, closing, dead.
 *
 * Buffers and commands belong to the reader, who is in lf_execute() for as long as anybody here knows their addresses.
 * A session that breaks destroys its libiscsi context first and wakes its readers then (lf_bury), so that nothing can
 * be written into a buffer after its reader was told of the failure.
 */

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

#include "shim.h"

struct lf_batch {
    int left;
    int lost;
    pthread_cond_t finished;
};

/* A command in flight. ``command`` stays set when it ended without a status: lf_bury() tells its reader. */
struct lf_slot {
    lf_session *owner;
    lf_command *command;
    struct scsi_task *task;
    struct scsi_iovec iov;
    int in_flight;
};

struct lf_session {
    struct iscsi_context *iscsi;
    struct lf_slot *slots;
    int depth;
    int may_write;
    int state;
    char why[256];

    pthread_mutex_t lock;
    lf_command *first, *last;
    int waiting;
    int in_flight;
    int closing;
    int dead;
    int wake_fd;
};

lf_session *lf_open(const char *initiator, const char *target, const char *user, const char *secret,
                    int timeout_seconds, int digest, uint32_t isid_random, uint32_t isid_qualifier,
                    int depth, int may_write)
{
    lf_session *s = calloc(1, sizeof(*s));

    if (s == NULL)
        return NULL;
    pthread_mutex_init(&s->lock, NULL);
    s->depth = depth;
    s->may_write = may_write;
    s->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    s->slots = calloc(depth, sizeof(*s->slots));
    s->iscsi = iscsi_create_context(initiator);
    if (s->wake_fd < 0 || s->slots == NULL || s->iscsi == NULL) {
        lf_free(s);
        return NULL;
    }
    for (int i = 0; i < depth; i++)
        s->slots[i].owner = s;
    /* A session that breaks stays broken: Python decides where to go on, and no command is repeated behind its back. */
    iscsi_set_noautoreconnect(s->iscsi, 1);
    iscsi_set_session_type(s->iscsi, ISCSI_SESSION_NORMAL);
    iscsi_set_header_digest(s->iscsi, digest ? ISCSI_HEADER_DIGEST_CRC32C : ISCSI_HEADER_DIGEST_NONE);
    iscsi_set_timeout(s->iscsi, timeout_seconds);
    iscsi_set_isid_random(s->iscsi, isid_random, isid_qualifier);
    if (iscsi_set_targetname(s->iscsi, target) != 0 ||
        (user != NULL && iscsi_set_initiator_username_pwd(s->iscsi, user, secret) != 0)) {
        lf_free(s);
        return NULL;
    }
    return s;
}

const char *lf_why(lf_session *s) { return s->why; }

/* The first reason is the telling one: libiscsi overwrites its own with "can not reconnect right now". */
static void broke(lf_session *s, const char *why)
{
    s->state = LF_BROKEN;
    if (s->why[0] == 0 && why != NULL)
        strncpy(s->why, why, sizeof(s->why) - 1);
}

static int64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Wait at most timeout_ms for the connection or for somebody who wakes us, and service the connection. */
static void turn(lf_session *s, int timeout_ms)
{
    struct pollfd fds[2];
    uint64_t ticks;

    fds[0].fd = iscsi_get_fd(s->iscsi);
    fds[0].events = iscsi_which_events(s->iscsi);
    fds[0].revents = 0;
    fds[1].fd = s->wake_fd;
    fds[1].events = POLLIN;
    fds[1].revents = 0;
    if (poll(fds, 2, timeout_ms) < 0 && errno != EINTR)
        broke(s, "poll failed");
    if (fds[1].revents & POLLIN)
        (void)!read(s->wake_fd, &ticks, sizeof(ticks));
    /* Called with nothing to do as well: libiscsi looks for commands past their time only in here. */
    if (iscsi_service(s->iscsi, fds[0].revents) != 0)
        broke(s, iscsi_get_error(s->iscsi));
    /* With automatic reconnection off, a lost connection shows as a missing descriptor or as logged out. */
    if (iscsi_get_fd(s->iscsi) < 0 || (s->state == LF_READY && !iscsi_is_logged_in(s->iscsi)))
        broke(s, "connection lost");
}

static void on_login(struct iscsi_context *iscsi, int status, void *data, void *opaque)
{
    lf_session *s = opaque;

    (void)data;
    if (status == SCSI_STATUS_GOOD)
        s->state = LF_READY;
    else
        broke(s, iscsi_get_error(iscsi));
}

static void on_connect(struct iscsi_context *iscsi, int status, void *data, void *opaque)
{
    lf_session *s = opaque;

    (void)data;
    /* The callback comes a second time when an established connection is torn down. */
    if (status != SCSI_STATUS_GOOD || s->state != LF_CONNECTING || iscsi_login_async(iscsi, on_login, s) != 0)
        broke(s, iscsi_get_error(iscsi));
}

static int is_closing(lf_session *s)
{
    int closing;

    pthread_mutex_lock(&s->lock);
    closing = s->closing;
    pthread_mutex_unlock(&s->lock);
    return closing;
}

/* Connect and log in; returns the state: LF_READY, LF_BROKEN (lf_why tells), LF_CONNECTING when time is up. */
int lf_login(lf_session *s, const char *portal, int timeout_ms)
{
    int64_t end = now_ms() + timeout_ms;
    int left = timeout_ms;

    s->state = LF_CONNECTING;
    if (iscsi_connect_async(s->iscsi, portal, on_connect, s) != 0)
        broke(s, iscsi_get_error(s->iscsi));
    while (s->state == LF_CONNECTING && left > 0 && !is_closing(s)) {
        turn(s, left);
        left = (int)(end - now_ms());
    }
    return s->state;
}

static void count_down(lf_command *c, int lost)
{
    struct lf_batch *batch = c->batch;

    batch->lost |= lost;
    if (--batch->left == 0)
        pthread_cond_signal(&batch->finished);
}

static void finish(struct lf_slot *slot, int status)
{
    lf_session *s = slot->owner;
    lf_command *c = slot->command;

    c->status = status;
    c->sense_key = slot->task->sense.key;
    c->sense_code = slot->task->sense.ascq;
    c->residual_kind = slot->task->residual_status;
    c->residual = slot->task->residual;
    scsi_free_scsi_task(slot->task);
    slot->task = NULL;
    slot->in_flight = 0;
    pthread_mutex_lock(&s->lock);
    s->in_flight--;
    if (status < SCSI_STATUS_CANCELLED) {
        slot->command = NULL;
        count_down(c, 0);
    }
    pthread_mutex_unlock(&s->lock);
    if (status == SCSI_STATUS_TIMEOUT)
        broke(s, "no answer in time");
    else if (status >= SCSI_STATUS_CANCELLED)
        broke(s, iscsi_get_error(s->iscsi));
}

static void on_command(struct iscsi_context *iscsi, int status, void *data, void *opaque)
{
    struct lf_slot *slot = opaque;

    (void)iscsi;
    (void)data;
    if (slot->in_flight)
        finish(slot, status);
}

/* The only place in the program that hands a SCSI command to libiscsi. Python has checked the opcode against the
 * session's list; a session that only reads moves no data to a device even if that check were wrong. */
static void submit(lf_session *s, lf_command *c)
{
    struct lf_slot *slot = s->slots;

    while (slot->command != NULL)
        slot++;
    slot->command = c;
    if (c->direction == SCSI_XFER_WRITE && !s->may_write) {
        broke(s, "a reading session was asked to write");
        return;
    }
    slot->task = scsi_create_task(c->cdb_size, c->cdb, c->direction, c->length);
    if (slot->task == NULL) {
        broke(s, "out of memory");
        return;
    }
    if (c->direction != SCSI_XFER_NONE) {
        slot->iov.iov_base = c->buffer;
        slot->iov.iov_len = c->length;
        if (c->direction == SCSI_XFER_READ)
            scsi_task_set_iov_in(slot->task, &slot->iov, 1);
        else
            scsi_task_set_iov_out(slot->task, &slot->iov, 1);
    }
    slot->in_flight = 1;
    if (iscsi_scsi_command_async(s->iscsi, c->lun, slot->task, on_command, NULL, slot) != 0)
        broke(s, iscsi_get_error(s->iscsi));
}

/* Take the next command off the queue, if one waits and there is room for it in flight. */
static lf_command *next_command(lf_session *s)
{
    lf_command *c = NULL;

    pthread_mutex_lock(&s->lock);
    if (s->first != NULL && s->in_flight < s->depth) {
        c = s->first;
        s->first = c->next;
        s->waiting--;
        s->in_flight++;
    }
    pthread_mutex_unlock(&s->lock);
    return c;
}

static void on_logout(struct iscsi_context *iscsi, int status, void *data, void *opaque)
{
    lf_session *s = opaque;

    (void)iscsi;
    (void)status;
    (void)data;
    s->state = LF_LOGGED_OUT;
}

/* The life of a session that is logged in: returns when it broke (lf_why tells) or was closed. Then comes lf_bury(). */
void lf_serve(lf_session *s, int tick_ms, int logout_ms)
{
    lf_command *c;
    int64_t end;

    while (s->state == LF_READY && !is_closing(s)) {
        while (s->state == LF_READY && (c = next_command(s)) != NULL)
            submit(s, c);
        if (s->state == LF_READY)
            turn(s, tick_ms);
    }
    /* Say goodbye if nothing is outstanding and the target still listens; closing the connection ends it as well. */
    if (s->state == LF_READY && s->in_flight == 0 && iscsi_logout_async(s->iscsi, on_logout, s) == 0) {
        end = now_ms() + logout_ms;
        while (s->state == LF_READY && now_ms() < end)
            turn(s, (int)(end - now_ms()) + 1);
    }
}

/* Run commands and wait for all of them. 0: each has its status. -1: the session is dead, nobody knows the buffers. */
int lf_execute(lf_session *s, lf_command *commands, int count)
{
    struct lf_batch batch = {.left = count, .lost = 0};
    uint64_t one = 1;
    int wake;

    pthread_mutex_lock(&s->lock);
    if (s->dead) {
        pthread_mutex_unlock(&s->lock);
        return -1;
    }
    pthread_cond_init(&batch.finished, NULL);
    /* With half the depth in flight the session's thread comes by soon enough: waking it would cost a system call. */
    wake = s->first == NULL && s->in_flight <= s->depth / 2;
    for (int i = 0; i < count; i++) {
        commands[i].batch = &batch;
        commands[i].next = NULL;
        if (s->first == NULL)
            s->first = &commands[i];
        else
            s->last->next = &commands[i];
        s->last = &commands[i];
    }
    s->waiting += count;
    if (wake)
        (void)!write(s->wake_fd, &one, sizeof(one));
    while (batch.left > 0)
        pthread_cond_wait(&batch.finished, &s->lock);
    pthread_mutex_unlock(&s->lock);
    pthread_cond_destroy(&batch.finished);
    return batch.lost ? -1 : 0;
}

/* Ask lf_serve() or lf_login() to end. From any thread. */
void lf_close(lf_session *s)
{
    uint64_t one = 1;

    pthread_mutex_lock(&s->lock);
    s->closing = 1;
    if (s->wake_fd >= 0)
        (void)!write(s->wake_fd, &one, sizeof(one));
    pthread_mutex_unlock(&s->lock);
}

/* Nothing new from here on; no address in libiscsi; and only then the bad news. Twice is fine. */
void lf_bury(lf_session *s)
{
    struct iscsi_context *iscsi = s->iscsi;

    pthread_mutex_lock(&s->lock);
    s->dead = 1;
    pthread_mutex_unlock(&s->lock);
    broke(s, "closed");
    if (iscsi != NULL)
        iscsi_destroy_context(iscsi); /* cancels what is in flight, by on_command, and closes the socket */
    s->iscsi = NULL;
    pthread_mutex_lock(&s->lock);
    for (int i = 0; s->slots != NULL && i < s->depth; i++) {
        if (s->slots[i].task != NULL)
            scsi_free_scsi_task(s->slots[i].task);
        if (s->slots[i].command != NULL)
            count_down(s->slots[i].command, 1);
        s->slots[i].task = NULL;
        s->slots[i].command = NULL;
    }
    while (s->first != NULL) {
        lf_command *c = s->first;

        s->first = c->next; /* before its reader wakes up and takes it away */
        count_down(c, 1);
    }
    s->waiting = 0;
    if (s->wake_fd >= 0)
        close(s->wake_fd); /* here, not in lf_free: a reader that keeps its error keeps the session, but no descriptor */
    s->wake_fd = -1;
    pthread_mutex_unlock(&s->lock);
}

int lf_dead(lf_session *s)
{
    int dead;

    pthread_mutex_lock(&s->lock);
    dead = s->dead;
    pthread_mutex_unlock(&s->lock);
    return dead;
}

/* Commands in the queue, for whoever looks at a session from outside. */
int lf_waiting(lf_session *s)
{
    int waiting;

    pthread_mutex_lock(&s->lock);
    waiting = s->waiting;
    pthread_mutex_unlock(&s->lock);
    return waiting;
}

/* When nobody can be in any other function any more. */
void lf_free(lf_session *s)
{
    if (s == NULL)
        return;
    lf_bury(s);
    free(s->slots);
    pthread_mutex_destroy(&s->lock);
    free(s);
}
