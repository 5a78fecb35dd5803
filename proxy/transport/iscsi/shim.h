/* What Python sees of the shim; build.py reads this file as cffi declarations too, so it holds nothing but those. */

typedef struct lf_session lf_session;

enum { LF_NEW = 0, LF_CONNECTING = 1, LF_READY = 2, LF_LOGGED_OUT = 3, LF_BROKEN = -1 };

typedef struct {
    /* in: the command, set by Python while the slot is free */
    uint8_t cdb[16];
    int cdb_size;
    int direction;      /* 0 none, 1 from the device, 2 to the device */
    uint32_t lun;       /* first two bytes of the SAM-5 LUN field: 0x4000 | lun from 256 on */
    void *buffer;       /* data lands here, or is taken from here, without a copy */
    uint32_t length;
    /* out: how it ended */
    int status;         /* SCSI status, or one of libiscsi's own above 0x0f000000 */
    int sense_key;
    int sense_code;     /* ASC << 8 | ASCQ */
    int residual_kind;  /* 0 none, 1 underflow, 2 overflow */
    uint64_t residual;
} lf_slot;

lf_session *lf_open(const char *initiator, const char *target, const char *user, const char *secret,
                    int timeout_seconds, int digest, uint32_t isid_random, uint32_t isid_qualifier,
                    int depth, int wake_fd, int may_write);
lf_slot *lf_get_slot(lf_session *s, int index);
int *lf_todo(lf_session *s);
const int *lf_done(lf_session *s);
int lf_login(lf_session *s, const char *portal);
int lf_state(lf_session *s);
int lf_run(lf_session *s, int count, int timeout_ms);
int lf_logout(lf_session *s);
int lf_in_flight(lf_session *s);
const char *lf_error(lf_session *s);
void lf_close(lf_session *s);
